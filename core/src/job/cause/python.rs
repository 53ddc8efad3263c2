//! Finds exceptions in a log: tracebacks of one or several processes.

use super::line::split_rank;

/// The first line of a traceback.
pub const HEADER: &str = "Traceback (most recent call last):";
/// Exceptions that follow from the failure of another process.
const FOLLOWING: [&str; 9] = [
    "ChildFailedError",
    "SignalException",
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "DistBackendError",
    "remote process exited",
    "Broken pipe",
    "KeyboardInterrupt",
];

/// Exceptions of code that cannot be loaded. Python prints no traceback for the first three.
const OF_THE_CODE: [&str; 5] = [
    "SyntaxError",
    "IndentationError",
    "TabError",
    "ModuleNotFoundError",
    "ImportError",
];

/// An exception that ended a process, or was printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The process, where the log marks ranks.
    pub rank: Option<u32>,
    /// Type and message.
    pub text: String,
}

/// The most relevant exception. Causes are preferred to their consequences in other processes: that of
/// the rank that torchrun saw fail first, then that of the first rank with a cause, then the last one.
pub fn exception(lines: &[String], first_rank: Option<u32>) -> Option<Exception> {
    let all = exceptions(lines);
    let causes: Vec<&Exception> = all.iter().filter(|exception| !follows(exception)).collect();
    // The exceptions of a chain stand one after the other, the one that was not caught last.
    let last_of = |rank: Option<u32>| causes.iter().rev().find(|one| one.rank == rank);
    let of_first_rank = first_rank.and_then(|rank| last_of(Some(rank)));
    let of_marked_rank = || last_of(causes.iter().find_map(|one| one.rank).map(Some)?);
    let own = |exception: &&Exception| !exception.text.contains("ChildFailedError");
    let found = of_first_rank.or_else(of_marked_rank);
    let found = found.or_else(|| causes.last()).copied();
    found.or_else(|| all.iter().rev().find(own)).cloned()
}

/// Whether an exception says that the code cannot be loaded.
pub fn is_of_the_code(text: &str) -> bool {
    let (kind, _) = text.split_once(':').unwrap_or((text, ""));
    OF_THE_CODE.contains(&kind)
}

fn follows(exception: &Exception) -> bool {
    FOLLOWING.iter().any(|mark| exception.text.contains(mark))
}

fn exceptions(lines: &[String]) -> Vec<Exception> {
    let lines: Vec<(Option<u32>, &str)> = lines.iter().map(|line| split_rank(line)).collect();
    let mut found = Vec::new();
    for (at, (rank, line)) in lines.iter().enumerate() {
        let text = if line.trim_start().ends_with(HEADER) {
            // Lines of other ranks may be interleaved.
            let block = lines[at + 1..].iter().filter(|(of, _)| of == rank);
            block.map(|(_, line)| *line).find(|line| is_exception(line))
        } else {
            Some(*line).filter(|line| OF_THE_CODE[..3].iter().any(|kind| is_of_kind(line, kind)))
        };
        found.extend(text.map(|text| Exception {
            rank: *rank,
            text: text.to_string(),
        }));
    }
    found
}

fn is_of_kind(line: &str, kind: &str) -> bool {
    let rest = line.strip_prefix(kind);
    rest.is_some_and(|rest| rest.starts_with(": "))
}

/// Whether a line ends a traceback: the type of the exception, usually with a message.
fn is_exception(line: &str) -> bool {
    let (kind, _) = line.split_once(':').unwrap_or((line, ""));
    let is_name =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    !kind.is_empty() && kind.split('.').all(is_name) && line != HEADER
}
