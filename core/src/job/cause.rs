//! Determines why a replica failed from the end of its log and its exit code.
//!
//! Any program may have written the log. The most specific line wins: the error of `train.py`, then
//! the exception of the rank that failed first, then messages of launchers, libraries and the
//! shell, then the last line.

mod line;
mod python;
mod torchrun;

use crate::keys::PERMANENT_EXIT_CODES;
use line::{clean, split_rank};
use python::{Exception, exception};
use torchrun::Report;

/// How many bytes at the end of a log are read.
pub const MAX_LOG_BYTES: usize = 64 * 1024;
/// The maximum length of a message, in characters.
const MAX_CHARACTERS: usize = 400;
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
    let program = torchrun::without_its_end(&lines);
    let said = said(&lines, program, report.as_ref());
    let end = match (&report, said.as_ref().and_then(|said| said.rank)) {
        // torchrun saw another process end first, of an error that followed from this one.
        (Some(report), Some(rank)) if rank != report.rank => Some(format!("rank {rank} failed")),
        (Some(report), _) => Some(report.sentence(&lines)),
        (None, _) => end_of(code).map(str::to_string),
    };
    let message = match (end, &said) {
        (Some(end), Some(said)) => Some(format!("{end}: {}", said.text)),
        (end, said) => end.or_else(|| said.as_ref().map(|said| said.text.clone())),
    };
    let code_is_sure = |code: i32| PERMANENT_EXIT_CODES.contains(&code);
    let useless = code_is_sure(code)
        || report.is_some_and(|report| code_is_sure(report.code))
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
    /// Whose exception it is, where the log marks ranks.
    rank: Option<u32>,
    restart: Restart,
}

impl Said {
    fn that_may_pass(text: String) -> Self {
        let (rank, restart) = (None, Restart::MayHelp);
        Self {
            text,
            rank,
            restart,
        }
    }
}

/// `program` is what stands before torchrun's own lines about the end.
fn said(lines: &[String], program: &[String], report: Option<&Report>) -> Option<Said> {
    let of_trainer = lines.iter().rev().find_map(|line| {
        let at = line.find(TRAINER_ERROR)?;
        Some(Said::that_may_pass(line[at..].to_string()))
    });
    let passing = |text: Option<String>| text.map(Said::that_may_pass);
    of_trainer
        .or_else(|| launcher(program))
        .or_else(|| of_exception(lines, program, report))
        .or_else(|| passing(report.and_then(|report| report.message.clone())))
        .or_else(|| passing(library(lines)))
        // The report states that the script failed, so its last output is not the cause.
        .or_else(|| passing(last(lines).cloned()).filter(|_| report.is_none()))
}

/// Finds an error of the launcher: a wrong command line or a missing program. Only the last line
/// counts, because a program may report that another one is missing and continue.
fn launcher(program: &[String]) -> Option<Said> {
    const REFUSALS: [&str; 6] = [
        "torchrun: error: ",
        "can't open file '",
        "executable file not found",
        "command not found",
        "error while loading shared libraries: ",
        "exec format error",
    ];
    let line = last(program)?;
    if !REFUSALS.iter().any(|refusal| line.contains(refusal)) {
        return None;
    }
    let at = line.find("torchrun: error: ").unwrap_or_default();
    Some(Said {
        text: line[at..].to_string(),
        rank: None,
        restart: Restart::IsUseless,
    })
}

fn of_exception(lines: &[String], program: &[String], report: Option<&Report>) -> Option<Said> {
    let Exception { rank, text } = exception(lines, report.map(|report| report.rank))?;
    // A program may log an exception and continue. The last line is what it ended with.
    let is_end = last(program).is_some_and(|line| split_rank(line).1 == text);
    Some(Said {
        rank,
        restart: match is_end && python::is_of_the_code(&text) {
            true => Restart::IsUseless,
            false => Restart::MayHelp,
        },
        text,
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
fn last(lines: &[String]) -> Option<&String> {
    let says = |line: &&String| {
        let letters = line.chars().filter(|c| c.is_alphabetic()).count();
        // Skips progress lines and separators.
        letters > 2 && !line.starts_with('{') && !line.starts_with(['=', '-', '*'])
    };
    lines.iter().rev().find(says)
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
