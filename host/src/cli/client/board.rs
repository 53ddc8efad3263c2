//! `trainer list --watch`: all jobs as they change. A terminal shows one table that is redrawn, a
//! pipe gets a line for each change.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use super::arguments::ListArguments;
use super::failure::Failure;
use super::follow::Failures;
use super::follow::event_stream::{Event, EventStream};
use super::live::Display;
use super::output::{self, word};
use super::server::Server;
use super::terminal::visible;
use crate::job::{ListedJob, Progress};

/// The time between two redraws of the table.
const REDRAW: Duration = Duration::from_millis(500);
/// Moves the cursor to the top left, and erases what follows.
const REDRAWN: &str = "\x1b[H\x1b[J";

/// Which jobs are shown.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    pub arguments: &'a ListArguments,
    /// The name of the caller for `--mine`, else `--owner`.
    pub owner: Option<String>,
}

impl Shown<'_> {
    fn admits(&self, job: &ListedJob) -> bool {
        let is = |wanted: &Option<String>, value: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == value)
        };
        is(&self.arguments.framework, &job.summary.framework)
            && is(&self.arguments.status, &word(&job.summary.status))
            && is(&self.arguments.namespace, &job.namespace)
            && is(&self.owner, job.owner.as_deref().unwrap_or_default())
    }
}

/// What identifies a job, as in the events `progress` and `deleted`.
#[derive(Debug, Deserialize)]
struct JobName {
    namespace: String,
    name: String,
    progress: Option<Progress>,
}

/// Shows jobs until the command is interrupted.
///
/// # Errors
///
/// If the service cannot be reached for a minute, or the output is closed.
pub fn watch(
    server: &Server,
    shown: Shown<'_>,
    display: Display,
    output: &mut impl Write,
) -> Result<(), Failure> {
    let mut board = Board {
        jobs: BTreeMap::new(),
        is_complete: false,
        last: None,
        shown,
        display,
        output,
    };
    let mut failures = Failures::default();
    loop {
        let mut call = server.call(Method::GET, &["events"]);
        if let Some(id) = &board.last {
            call = call.header("last-event-id", id);
        }
        let ended = match call.send() {
            Err(failure) if !failure.may_pass() => return Err(failure),
            Err(failure) => failure,
            Ok(response) => {
                failures = Failures::default();
                board.run(&received(response))?;
                Failure::Answer(anyhow::anyhow!("the service closed the connection"))
            }
        };
        failures.record(ended)?;
    }
}

/// Reads the events of a response on another thread, so that drawing does not wait for them.
fn received(response: http::Response<ureq::Body>) -> Receiver<Event> {
    let (sender, events) = channel();
    std::thread::spawn(move || {
        let reader = BufReader::new(response.into_body().into_reader());
        let mut events = EventStream::new(reader).map_while(Result::ok);
        // The receiver is gone if the output was closed.
        let _ = events.try_for_each(|event| sender.send(event));
    });
    events
}

struct Board<'a, W> {
    /// By namespace and name.
    jobs: BTreeMap<(String, String), ListedJob>,
    /// Whether all jobs have arrived.
    is_complete: bool,
    /// The last event, after which the stream resumes after an interruption.
    last: Option<String>,
    shown: Shown<'a>,
    display: Display,
    output: &'a mut W,
}

impl<W: Write> Board<'_, W> {
    /// Shows events until their stream ends.
    fn run(&mut self, events: &Receiver<Event>) -> Result<(), Failure> {
        let mut is_drawn = true;
        loop {
            match events.recv_timeout(REDRAW) {
                Ok(event) => {
                    self.take(event)?;
                    is_drawn = false;
                    // What has arrived meanwhile is drawn at once.
                    events.try_iter().try_for_each(|event| self.take(event))?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if let (false, true, Display::Terminal { columns, rows }) =
                (is_drawn, self.is_complete, self.display)
            {
                self.draw(columns, rows)?;
                is_drawn = true;
                std::thread::sleep(REDRAW);
            }
        }
    }

    /// Applies an event, and prints it if lines are not redrawn.
    fn take(&mut self, event: Event) -> Result<(), Failure> {
        match event.kind.as_str() {
            "reset" => {
                self.jobs.clear();
                self.is_complete = false;
            }
            "synced" => self.is_complete = true,
            "status" => {
                let Ok(job) = serde_json::from_str::<ListedJob>(&event.data) else {
                    return Ok(());
                };
                let key = (job.namespace.clone(), job.summary.name.clone());
                self.print_change(&job, "")?;
                self.jobs.insert(key, job);
            }
            "progress" => {
                let Some((key, progress)) = name(&event) else {
                    return Ok(());
                };
                if let Some(job) = self.jobs.get_mut(&key) {
                    job.progress = progress;
                }
            }
            "deleted" => {
                let Some((key, _)) = name(&event) else {
                    return Ok(());
                };
                if let Some(job) = self.jobs.remove(&key) {
                    self.print_change(&job, " (deleted)")?;
                }
            }
            _ => {}
        }
        if !event.id.is_empty() {
            self.last = Some(event.id);
        }
        Ok(())
    }

    fn print_change(&mut self, job: &ListedJob, note: &str) -> Result<(), Failure> {
        if self.display != Display::Lines || !self.shown.admits(job) {
            return Ok(());
        }
        let ListedJob {
            summary, namespace, ..
        } = job;
        let (name, state) = (&summary.name, output::state(job));
        let line = format!("{namespace}/{name} {state}{note}");
        Ok(writeln!(self.output, "{}", visible(&line))?)
    }

    fn draw(&mut self, columns: usize, rows: usize) -> Result<(), Failure> {
        let shown = self.jobs.values().filter(|job| self.shown.admits(job));
        let mut shown: Vec<&ListedJob> = shown.collect();
        shown
            .sort_by_key(|job| std::cmp::Reverse(job.created_at.as_ref().map(|created| created.0)));
        // The header, and the line of the cursor.
        let fit = rows.saturating_sub(2).max(1);
        shown.truncate(self.shown.arguments.limit.unwrap_or(fit).min(fit));
        let table = output::board(&shown, Timestamp::now(), columns);
        writeln!(self.output, "{REDRAWN}{}", visible(&table))?;
        Ok(self.output.flush()?)
    }
}

fn name(event: &Event) -> Option<((String, String), Option<Progress>)> {
    let named: JobName = serde_json::from_str(&event.data).ok()?;
    Some(((named.namespace, named.name), named.progress))
}
