//! Determines why a replica failed from the end of its log and its exit code.
//!
//! Any program may have written the log. The most specific line wins: the error of `train.py`, then
//! the exception of the rank that failed first, then messages of launchers, libraries and the
//! shell, then the last line.

mod line;
mod python;
mod torchrun;

use line::{clean, split_rank};
use python::exception;
use torchrun::Report;

/// How many bytes at the end of a log are read.
pub const MAX_LOG_BYTES: usize = 64 * 1024;
/// The maximum length of a message, in characters.
const MAX_CHARACTERS: usize = 400;
/// The exit code of `train.py` when a restart cannot help, as in sysexits.h.
const EX_CONFIG: i32 = 78;
/// The prefix of the last line of `train.py`.
const TRAINER_ERROR: &str = "train.py: error: ";

/// Why a replica failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// A sentence without a full stop, or None if there is nothing to add to the exit code.
    pub message: Option<String>,
    /// Whether a restart may help.
    pub restart: Restart,
}

/// Whether a restart may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    MayHelp,
    /// The job has to be changed first.
    IsUseless,
}

/// Determines the cause from the end of the log and the exit code of the container's process.
pub fn cause(log: &[u8], code: i32) -> Cause {
    let log = &log[log.len().saturating_sub(MAX_LOG_BYTES)..];
    let text = String::from_utf8_lossy(log);
    let lines: Vec<String> = text.lines().map(clean).collect();
    let report = Report::last_in(&lines);
    let said = said(&lines, report.as_ref());
    let end = match &report {
        Some(report) => Some(report.sentence(&lines)),
        None => end_of(code).map(str::to_string),
    };
    let message = match (end, &said) {
        (Some(end), Some(said)) => Some(format!("{end}: {}", said.text)),
        (end, said) => end.or_else(|| said.as_ref().map(|said| said.text.clone())),
    };
    let useless = code == EX_CONFIG
        || matches!(code, 126 | 127)
        || report.is_some_and(|report| report.code == EX_CONFIG)
        || said.is_some_and(|said| said.restart == Restart::IsUseless);
    Cause {
        message: message.map(|message| shortened(&message)),
        restart: match useless {
            true => Restart::IsUseless,
            false => Restart::MayHelp,
        },
    }
}

/// The message of a program about its failure.
struct Said {
    text: String,
    restart: Restart,
}

fn said(lines: &[String], report: Option<&Report>) -> Option<Said> {
    let of_trainer = lines.iter().rev().find_map(|line| {
        let at = line.find(TRAINER_ERROR)?;
        Some(Said {
            text: line[at..].to_string(),
            restart: Restart::MayHelp,
        })
    });
    of_trainer
        .or_else(|| launcher(lines))
        .or_else(|| may_help(exception(lines, report.map(|report| report.rank))))
        .or_else(|| may_help(library(lines)))
        // The report states that the script failed, so its last output is not the cause.
        .or_else(|| may_help(last(lines)).filter(|_| report.is_none()))
}

fn may_help(text: Option<String>) -> Option<Said> {
    let restart = Restart::MayHelp;
    text.map(|text| Said { text, restart })
}

/// Finds an error of the launcher: a wrong command line or a missing program.
fn launcher(lines: &[String]) -> Option<Said> {
    const REFUSALS: [&str; 6] = [
        "torchrun: error: ",
        "can't open file '",
        "executable file not found",
        "command not found",
        "error while loading shared libraries: ",
        "exec format error",
    ];
    let mut lines = lines.iter().rev();
    let line = lines.find(|line| REFUSALS.iter().any(|refusal| line.contains(refusal)))?;
    let line = line
        .find("torchrun: error: ")
        .map_or(line.as_str(), |at| &line[at..]);
    Some(Said {
        text: line.to_string(),
        restart: Restart::IsUseless,
    })
}

/// Finds what libraries log before they end the process. The most specific messages come first.
fn library(lines: &[String]) -> Option<String> {
    const MARKS: [&str; 13] = [
        "CUDA out of memory",
        "CUDA error: ",
        "Watchdog caught collective operation timeout",
        "NCCL WARN ",
        "ncclUnhandled",
        "NCCL error",
        "Fatal Python error: ",
        "what():  ",
        "std::bad_alloc",
        "Cannot allocate memory",
        "DefaultCPUAllocator: can't allocate memory",
        "No space left on device",
        "Segmentation fault",
    ];
    let found = MARKS.iter().find_map(|mark| {
        let mut lines = lines.iter();
        lines.find(|line| line.contains(mark) && !line.starts_with('{'))
    });
    found.map(|line| split_rank(line).1.trim().to_string())
}

/// The last line with meaningful text.
fn last(lines: &[String]) -> Option<String> {
    let says = |line: &&String| {
        let letters = line.chars().filter(|c| c.is_alphabetic()).count();
        // Skips progress lines and separators.
        letters > 2 && !line.starts_with('{') && !line.starts_with(['=', '-', '*'])
    };
    lines.iter().rev().find(says).cloned()
}

/// The meaning of exit codes that the shell or the kernel set.
fn end_of(code: i32) -> Option<&'static str> {
    match code {
        126 => Some("the command cannot be executed"),
        127 => Some("the command was not found"),
        132 => {
            Some("killed by SIGILL: the processor does not support an instruction of the program")
        }
        134 => Some("killed by SIGABRT"),
        135 => Some("killed by SIGBUS, which often means that shared memory is full"),
        136 => Some("killed by SIGFPE"),
        137 => Some("killed by SIGKILL, which often means that memory ran out"),
        139 => Some("killed by SIGSEGV: the program or a library crashed"),
        143 => Some("ended by SIGTERM"),
        _ => None,
    }
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message.to_string(),
    }
}

#[cfg(test)]
mod tests;
