//! Finds exceptions in a log: tracebacks of one or several processes.

use super::line::split_rank;

const HEADER: &str = "Traceback (most recent call last):";
/// Exceptions that are consequences of the failure of another process.
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

#[derive(Debug)]
struct Exception<'a> {
    rank: Option<u32>,
    text: &'a str,
}

/// Type and message of the most relevant exception. If the log marks ranks, it is that of the rank
/// that failed first. Causes are preferred to their consequences in other processes.
pub fn exception(lines: &[String], first_rank: Option<u32>) -> Option<String> {
    let all = exceptions(lines);
    let follows =
        |exception: &&Exception<'_>| FOLLOWING.iter().any(|mark| exception.text.contains(mark));
    let of_rank = || {
        let mut all = all.iter().rev();
        all.find(|exception| exception.rank.is_some() && exception.rank == first_rank)
    };
    let cause = || all.iter().rev().find(|exception| !follows(exception));
    let own = |exception: &&Exception<'_>| !exception.text.contains("ChildFailedError");
    let found = of_rank().filter(|exception| !follows(exception));
    let found = found.or_else(cause).or_else(|| all.iter().rev().find(own));
    found.map(|exception| exception.text.to_string())
}

fn exceptions(lines: &[String]) -> Vec<Exception<'_>> {
    let lines: Vec<(Option<u32>, &str)> = lines.iter().map(|line| split_rank(line)).collect();
    let mut found = Vec::new();
    for (at, (rank, line)) in lines.iter().enumerate() {
        if line.trim_start().ends_with(HEADER) {
            // Lines of other ranks may be interleaved.
            let block = lines[at + 1..].iter().filter(|(of, _)| of == rank);
            let text = block.map(|(_, line)| *line).find(|line| is_exception(line));
            found.extend(text.map(|text| Exception { rank: *rank, text }));
        }
    }
    found
}

/// Whether a line ends a traceback: the type of the exception, usually with a message.
fn is_exception(line: &str) -> bool {
    let (kind, _) = line.split_once(':').unwrap_or((line, ""));
    let is_name =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    !kind.is_empty() && kind.split('.').all(is_name) && line != HEADER
}
