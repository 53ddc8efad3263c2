//! Parses the report in which torchrun names the process that failed first.

use super::line::split_rank;
use super::python::HEADER;

/// The first failure, as torchrun reports it.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub rank: u32,
    pub code: i32,
    signal: Option<String>,
    /// What the process has left for torchrun to report.
    pub message: Option<String>,
}

impl Report {
    /// The last report of a log.
    pub fn last_in(lines: &[String]) -> Option<Self> {
        let root = |line: &String| line.trim_start().starts_with("Root Cause");
        let code =
            |line: &String| field(std::slice::from_ref(line), "exitcode").is_some_and(of_a_process);
        let begin = lines
            .iter()
            .rposition(root)
            .or_else(|| lines.iter().rposition(code))?;
        let lines = &lines[begin..];
        let code = field(lines, "exitcode")?.split(' ').next()?.parse().ok()?;
        let rank = field(lines, "rank").and_then(|rank| rank.split(' ').next()?.parse().ok());
        let traceback = field(lines, "traceback").unwrap_or_default();
        let signal = traceback.strip_prefix("Signal ").and_then(|signal| {
            let (_, name) = signal.split_once('(')?;
            Some(name.split_once(')')?.0.to_string())
        });
        // Without a message torchrun says how to get one, or begins a traceback.
        let none = ["", "<N/A>", HEADER];
        let message = (signal.is_none() && !traceback.starts_with("To enable traceback"))
            .then_some(traceback)
            .filter(|message| !none.contains(message));
        Some(Self {
            rank: rank.unwrap_or(0),
            code,
            signal,
            message: message.map(str::to_string),
        })
    }

    /// Which process failed first, and how.
    pub fn sentence(&self, lines: &[String]) -> String {
        let who = match self.rank == 0 && is_alone(lines) {
            true => "the script".to_string(),
            false => format!("rank {}", self.rank),
        };
        match (self.signal.as_deref(), self.code) {
            (Some("SIGKILL"), _) => {
                format!("{who} was killed by SIGKILL, which often means that memory ran out")
            }
            (Some(signal), _) => format!("{who} was killed by {signal}"),
            (None, code) => format!("{who} exited with code {code}"),
        }
    }
}

/// The lines before those in which torchrun reports that a process has failed.
pub fn without_its_end(lines: &[String]) -> &[String] {
    let failed = |line: &String| is_of_torchrun(line) && line.contains("failed (exitcode: ");
    let Some(end) = lines.iter().rposition(failed) else {
        return lines;
    };
    let program = lines[..end].iter().rposition(|line| !is_of_torchrun(line));
    &lines[..program.map_or(0, |last| last + 1)]
}

/// Whether torchrun itself logged a line.
fn is_of_torchrun(line: &str) -> bool {
    line.contains(" torch/distributed/elastic/")
}

/// Whether an exit code belongs to a process, as in `1 (pid: 4711)`.
fn of_a_process(value: &str) -> bool {
    value
        .split_once(' ')
        .is_some_and(|(_, rest)| rest.starts_with("(pid"))
}

/// Whether a log mentions no other process than rank 0.
fn is_alone(lines: &[String]) -> bool {
    lines.iter().all(|line| {
        let (mark, text) = split_rank(line);
        let other = text.trim_start().strip_prefix("rank ");
        let other = other.and_then(|rest| rest.trim_start().strip_prefix(": "));
        mark.is_none_or(|rank| rank == 0) && other.is_none_or(|rank| rank.starts_with("0 "))
    })
}

/// The value of a field, as in `  exitcode  : 1 (pid: 4711)`.
fn field<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| {
        let (key, value) = split_rank(line).1.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}
