//! Shows the progress of a job until it finishes: one line that is rewritten on a terminal, and a
//! line for each change elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::failure::Failure;
use super::follow::{Ending, Failures, status_line};
use super::output::{as_commands, left, loss};
use super::server::Server;
use super::terminal::visible;
use crate::job::{JobState, ListedJob, Progress};

/// The time between two requests. Each reads the log of a replica, and on Kubernetes events of pods.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often progress alone is a line where lines are not rewritten.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// Cells of the progress bar.
const BAR: usize = 20;
/// Moves the cursor to the start of the line, and erases the line.
const REWRITE: &str = "\r\x1b[K";

/// Where the progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// A terminal of this size.
    Terminal { columns: usize, rows: usize },
    /// A pipe or a file.
    Lines,
}

impl Display {
    /// What an output is.
    pub fn of(output: &impl IsTerminal) -> Self {
        let is_terminal = output.is_terminal();
        match is_terminal.then(terminal_size::terminal_size).flatten() {
            Some((columns, rows)) => Self::Terminal {
                columns: usize::from(columns.0),
                rows: usize::from(rows.0),
            },
            None => Self::Lines,
        }
    }

    /// The width of a terminal.
    pub fn columns(self) -> Option<usize> {
        match self {
            Self::Terminal { columns, .. } => Some(columns),
            Self::Lines => None,
        }
    }
}

/// A job as it is shown.
#[derive(Debug, Deserialize)]
struct WatchedJob {
    #[serde(flatten)]
    job: ListedJob,
    #[serde(default)]
    explanation: Vec<String>,
}

/// Shows a job until it finishes.
///
/// # Errors
///
/// If the service cannot be reached for a minute, has no such job, or the output is closed.
pub fn watch(
    server: &Server,
    job: &str,
    namespace: Option<&str>,
    display: Display,
    output: &mut impl Write,
) -> Result<Ending, Failure> {
    let mut screen = Screen::new(display, output);
    let mut failures = Failures::default();
    let mut is_known = false;
    loop {
        let call = server.job(job, None, namespace);
        let call = call.query("view", Some("full"));
        match call.read::<WatchedJob>() {
            Err(Failure::Refused { problem, .. }) if is_known && problem.status == 404 => {
                screen.end()?;
                return Ok(Ending::Deleted);
            }
            Err(failure) if !failure.may_pass() => return Err(failure),
            Err(failure) => {
                failures.record(failure)?;
                continue;
            }
            Ok(watched) => {
                failures = Failures::default();
                is_known = true;
                screen.show(&watched)?;
                if watched.job.summary.status.is_final() {
                    screen.end()?;
                    return Ok(Ending::Ended(Box::new(watched.job)));
                }
            }
        }
        std::thread::sleep(INTERVAL);
    }
}

/// What was shown last.
struct Screen<'a, W> {
    display: Display,
    output: &'a mut W,
    status: String,
    line: String,
    shown: Option<Instant>,
}

impl<'a, W: Write> Screen<'a, W> {
    fn new(display: Display, output: &'a mut W) -> Self {
        Self {
            display,
            output,
            status: String::new(),
            line: String::new(),
            shown: None,
        }
    }

    fn show(&mut self, watched: &WatchedJob) -> Result<(), Failure> {
        let status = status_line(&watched.job);
        let line = visible(&describe(watched)).into_owned();
        let is_new_status = status != self.status;
        if line == self.line {
            return Ok(());
        }
        match self.display {
            Display::Terminal { columns, .. } => {
                // A line that wraps cannot be rewritten.
                let fits: String = line.chars().take(columns.saturating_sub(1)).collect();
                write!(self.output, "{REWRITE}{fits}")?;
            }
            Display::Lines => {
                let is_due = self
                    .shown
                    .is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL);
                if !is_new_status && !is_due {
                    return Ok(());
                }
                writeln!(self.output, "{line}")?;
            }
        }
        self.output.flush()?;
        self.shown = Some(Instant::now());
        (self.status, self.line) = (status, line);
        Ok(())
    }

    /// Keeps the last line on the terminal.
    fn end(&mut self) -> Result<(), Failure> {
        match self.display {
            Display::Terminal { .. } => Ok(writeln!(self.output)?),
            Display::Lines => Ok(()),
        }
    }
}

/// A job in one line: its progress while it runs, otherwise why it waits or how it ended.
fn describe(watched: &WatchedJob) -> String {
    let status = status_line(&watched.job);
    match (watched.job.summary.status, &watched.job.progress) {
        (JobState::Running, Some(progress)) => format!("running {}", bar(progress)),
        (JobState::Submitted, _) => match watched.explanation.first() {
            Some(why) => format!("submitted: {}", as_commands(why)),
            None => status,
        },
        _ => status,
    }
}

/// Such as `[####------] 10/60 loss 3.2172 5646 tok/s 12s left`.
fn bar(progress: &Progress) -> String {
    let Progress {
        step,
        total_steps,
        tokens_per_second,
        ..
    } = progress;
    let done = *step as f64 / (*total_steps).max(1) as f64;
    let filled = ((done * BAR as f64) as usize).min(BAR);
    format!(
        "[{}{}] {step}/{total_steps} loss {} {tokens_per_second:.0} tok/s {} left",
        "#".repeat(filled),
        "-".repeat(BAR - filled),
        loss(progress).as_deref().unwrap_or("nan"),
        left(progress)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(status: &str, more: Value) -> WatchedJob {
        let mut job = json!({
            "name": "meta-a",
            "framework": "meta",
            "run_id": "a",
            "status": status,
            "detail": "what happened",
            "namespace": "default",
            "suspended": false,
        });
        let members = more.as_object().unwrap().clone();
        job.as_object_mut().unwrap().extend(members);
        serde_json::from_value(job).unwrap()
    }

    fn progress(step: u64) -> Value {
        json!({"progress": {
            "step": step, "total_steps": 60, "loss": 3.217_24, "tokens_per_second": 5646.2,
            "seconds_left": 12.0,
        }})
    }

    fn shown(display: Display, jobs: &[WatchedJob]) -> String {
        let mut output = Vec::new();
        let mut screen = Screen::new(display, &mut output);
        for job in jobs {
            screen.show(job).unwrap();
        }
        screen.end().unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_pipe_gets_a_line_for_each_status_and_progress_only_now_and_then() {
        let jobs = [
            job(
                "submitted",
                json!({"explanation": ["It waits. Resume it with POST /train/a/resume."]}),
            ),
            job("running", progress(30)),
            job("running", progress(31)),
            job("succeeded", progress(60)),
        ];
        assert_eq!(
            shown(Display::Lines, &jobs),
            "submitted: It waits. Resume it with trainer resume a.\n\
             running [##########----------] 30/60 loss 3.2172 5646 tok/s 12s left\n\
             succeeded: what happened\n"
        );
    }

    #[test]
    fn a_terminal_gets_one_line_that_fits_and_is_rewritten() {
        let hostile = json!({"explanation": ["\u{1b}[2J".repeat(100)]});
        let jobs = [job("submitted", hostile), job("running", progress(60))];
        let shown = shown(
            Display::Terminal {
                columns: 40,
                rows: 24,
            },
            &jobs,
        );
        let lines: Vec<&str> = shown.split(REWRITE).collect();
        assert_eq!(lines.len(), 3, "{shown:?}");
        assert!(
            !lines.iter().any(|line| line.contains('\u{1b}')),
            "{shown:?}"
        );
        assert!(
            lines.iter().all(|line| line.chars().count() <= 40),
            "{shown:?}"
        );
    }
}
