//! Follows the logs and events of a job across interrupted connections.

pub mod event_stream;
mod seen;

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::arguments::LogsArguments;
use super::failure::Failure;
use super::server::Server;
use crate::job::{JobState, ListedJob, LogLines};
use event_stream::EventStream;
use seen::{Printed, Seen};

/// The delay before reconnecting.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// The maximum number of attempts in a row that yield nothing new.
const MAX_FAILURES: u32 = 60;

/// How following a job ended.
#[derive(Debug)]
pub enum Ending {
    Ended(Box<ListedJob>),
    Deleted,
}

/// Reports status changes of a job until it finishes.
///
/// # Errors
///
/// If the service cannot be reached for a minute, or has no such job.
pub fn events(
    server: &Server,
    job: &str,
    namespace: Option<&str>,
    mut report: impl FnMut(&ListedJob) -> Result<(), Failure>,
) -> Result<Ending, Failure> {
    let mut failures = Failures::default();
    let mut last: Option<(String, ListedJob)> = None;
    loop {
        let mut call = server
            .call(Method::GET, &["train", job, "events"])
            .query("namespace", namespace);
        if let Some((id, _)) = &last {
            call = call.header("last-event-id", id);
        }
        let response = match (call.send(), &last) {
            // A job that existed before and is now missing was deleted.
            (Err(Failure::Refused { problem, .. }), Some(_)) if problem.status == 404 => {
                return Ok(Ending::Deleted);
            }
            (Err(failure), _) if !failure.may_pass() => return Err(failure),
            (Err(failure), _) => {
                failures.record(failure)?;
                continue;
            }
            (Ok(response), _) => response,
        };
        if let (StatusCode::NO_CONTENT, Some((_, job))) = (response.status(), &last) {
            return Ok(Ending::Ended(Box::new(job.clone())));
        }
        for event in EventStream::new(BufReader::new(response.into_body().into_reader())) {
            let Ok(event) = event else { break };
            failures = Failures::default();
            if event.kind == "deleted" {
                return Ok(Ending::Deleted);
            }
            let Ok(job) = serde_json::from_str::<ListedJob>(&event.data) else {
                continue;
            };
            report(&job)?;
            if job.summary.status.is_final() {
                return Ok(Ending::Ended(Box::new(job)));
            }
            last = Some((event.id, job));
        }
        failures.record(Failure::Answer(anyhow::anyhow!(
            "the service closed the connection"
        )))?;
    }
}

/// Counts failures in a row.
#[derive(Default)]
pub struct Failures {
    count: u32,
}

impl Failures {
    /// Waits before the next attempt.
    ///
    /// # Errors
    ///
    /// The failure, if there were too many.
    pub fn record(&mut self, failure: Failure) -> Result<(), Failure> {
        self.count += 1;
        if self.count > MAX_FAILURES {
            return Err(failure);
        }
        std::thread::sleep(RECONNECT_DELAY);
        Ok(())
    }
}

/// Prints the log of a job and reconnects after interruptions without losing or repeating lines:
/// each line has a timestamp, and the next request starts at the last one.
///
/// # Errors
///
/// If the service cannot be reached for a minute, or has no such log.
pub fn logs(
    server: &Server,
    arguments: &LogsArguments,
    output: &mut impl Write,
) -> Result<(), Failure> {
    let mut failures = Failures::default();
    let mut seen = Seen::default();
    let form = match arguments.timestamps {
        true => LogLines::WithTime,
        false => LogLines::Plain,
    };
    loop {
        let since = seen.since().or_else(|| arguments.since.clone());
        let tail = arguments.tail.filter(|_| seen.since().is_none());
        let call = server
            .call(Method::GET, &["train", &arguments.job, "logs"])
            .query("namespace", arguments.namespace.as_ref())
            .query("replica", arguments.replica.as_ref())
            .query("tail", tail)
            .query("since", since)
            .query("previous", arguments.previous.then_some(true))
            .query(
                "timestamps",
                (arguments.timestamps || arguments.follow).then_some(true),
            )
            .query("follow", arguments.follow.then_some(true));
        let response = match call.send() {
            Ok(response) => response,
            Err(failure @ Failure::Refused { .. }) if failures.count == 0 => {
                return Err(failure);
            }
            Err(failure) if arguments.follow && !matches!(failure, Failure::Input(_)) => {
                failures.record(failure)?;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let mut reader = BufReader::new(response.into_body().into_reader());
        if !arguments.follow {
            std::io::copy(&mut reader, output)?;
            return Ok(output.flush()?);
        }
        match copy_lines(&mut reader, form, &mut seen, output)? {
            Copied::Whole => return Ok(()),
            Copied::Some => failures = Failures::default(),
            Copied::Nothing => {}
        }
        failures.record(Failure::Answer(anyhow::anyhow!("the log was interrupted")))?;
        seen.resume();
    }
}

/// What a connection yielded.
enum Copied {
    Whole,
    Some,
    Nothing,
}

/// A partially received line.
enum Line {
    /// Its replica and time are not complete yet.
    Head(Vec<u8>),
    /// It is printed as it arrives.
    Printed(Printed),
    /// It was printed before.
    Old,
}

impl Line {
    fn begin() -> Self {
        Self::Head(Vec::new())
    }
}

fn copy_lines(
    reader: &mut impl BufRead,
    form: LogLines,
    seen: &mut Seen,
    output: &mut impl Write,
) -> Result<Copied, Failure> {
    let mut copied = Copied::Nothing;
    let mut line = Line::begin();
    loop {
        let read = match reader.fill_buf() {
            Ok([]) => return Ok(Copied::Whole),
            Ok(read) => read,
            Err(_) => break,
        };
        let end = read.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(read.len(), |end| end + 1);
        let piece = &read[..length];
        line = match line {
            Line::Head(mut head) => {
                head.extend_from_slice(piece);
                match is_complete(&head) {
                    true => begin(&head, form, seen, output)?,
                    false => Line::Head(head),
                }
            }
            Line::Printed(mut printed) => {
                printed.write(piece, output)?;
                Line::Printed(printed)
            }
            Line::Old => line,
        };
        output.flush()?;
        if end.is_some() {
            if matches!(line, Line::Printed(_)) {
                copied = Copied::Some;
            }
            line = Line::begin();
        }
        reader.consume(length);
    }
    if let Line::Printed(printed) = line {
        seen.forget_last(printed);
    }
    Ok(copied)
}

/// Prints the beginning of a line, unless it was already printed.
fn begin(
    head: &[u8],
    form: LogLines,
    seen: &mut Seen,
    output: &mut impl Write,
) -> Result<Line, Failure> {
    let (replica, time, text) = parts(head);
    if !seen.is_new(replica, time) {
        return Ok(Line::Old);
    }
    let written = std::mem::take(&mut seen.interrupted);
    match form {
        _ if written > 0 => {}
        LogLines::WithTime => output.write_all(&head[..head.len() - text.len()])?,
        LogLines::Plain => output.write_all(replica)?,
    }
    let mut printed = Printed {
        replica: replica.to_vec(),
        written,
        skip: written,
    };
    printed.write(text, output)?;
    Ok(Line::Printed(printed))
}

/// Whether a partial line can be printed. With several replicas only complete lines can, because
/// after an interruption a line of another replica may come first.
fn is_complete(head: &[u8]) -> bool {
    let is_of_several = head.first() == Some(&b'[');
    head.ends_with(b"\n") || !is_of_several && head.contains(&b' ')
}

/// Splits a line into its replica (in brackets, if there are several), time and text.
fn parts(line: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let after = |from: usize| {
        line[from..]
            .iter()
            .position(|byte| *byte == b' ')
            .map(|at| from + at + 1)
    };
    let replica = match line.first() {
        Some(b'[') => after(0).unwrap_or(0),
        _ => 0,
    };
    let text = after(replica).unwrap_or(replica);
    let time = line[replica..text].strip_suffix(b" ").unwrap_or_default();
    (&line[..replica], time, &line[text..])
}

/// A status change as a readable line.
pub fn status_line(job: &ListedJob) -> String {
    let status = super::output::word(&job.summary.status);
    let suspended = match (&job.queued_in, job.suspended, job.summary.status) {
        (Some(queue), _, JobState::Submitted) => format!(", queued in {queue}"),
        (None, true, JobState::Submitted) => ", suspended".to_string(),
        _ => String::new(),
    };
    format!("{status}{suspended}: {}", job.summary.detail)
}

/// A status change as JSON on one line.
pub fn json(job: &ListedJob) -> String {
    serde_json::to_value(job).unwrap_or(Value::Null).to_string()
}

#[cfg(test)]
mod tests;
