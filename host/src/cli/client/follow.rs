//! Following a job: its logs and its events, through connections that break.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::arguments::LogsArguments;
use super::failure::Failure;
use super::server::Server;
use crate::job::{JobState, ListedJob, LogLines};

/// How soon a broken connection is made again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often, without anything new, before it is given up.
const MOST_FAILURES: u32 = 60;

/// How a job was last seen.
#[derive(Debug)]
pub enum Ending {
    Ended(Box<ListedJob>),
    Deleted,
}

/// Tells each change of a job's status until it ends.
///
/// # Errors
///
/// When the service cannot be reached for a minute, or has no such job.
pub fn events(
    server: &Server,
    job: &str,
    namespace: Option<&str>,
    mut tell: impl FnMut(&ListedJob) -> Result<(), Failure>,
) -> Result<Ending, Failure> {
    let mut patience = Patience::default();
    let mut last: Option<(String, ListedJob)> = None;
    loop {
        let mut call = server
            .call(Method::GET, &["train", job, "events"])
            .query("namespace", namespace);
        if let Some((id, _)) = &last {
            call = call.header("last-event-id", id);
        }
        let response = match (call.send(), &last) {
            // What was followed and is not there any more was deleted.
            (Err(Failure::Refused { problem, .. }), Some(_)) if problem.status == 404 => {
                return Ok(Ending::Deleted);
            }
            (Err(failure), _) if !failure.may_pass() => return Err(failure),
            (Err(failure), _) => {
                patience.lose(failure)?;
                continue;
            }
            (Ok(response), _) => response,
        };
        if let (StatusCode::NO_CONTENT, Some((_, job))) = (response.status(), &last) {
            return Ok(Ending::Ended(Box::new(job.clone())));
        }
        for event in Events::of(BufReader::new(response.into_body().into_reader())) {
            let Ok(event) = event else { break };
            patience = Patience::default();
            if event.kind == "deleted" {
                return Ok(Ending::Deleted);
            }
            let Ok(job) = serde_json::from_str::<ListedJob>(&event.data) else {
                continue;
            };
            tell(&job)?;
            if job.summary.status.is_final() {
                return Ok(Ending::Ended(Box::new(job)));
            }
            last = Some((event.id, job));
        }
        patience.lose(Failure::Answer(anyhow::anyhow!(
            "the service closed the connection"
        )))?;
    }
}

/// How often something may still go wrong.
#[derive(Default)]
struct Patience {
    failures: u32,
}

impl Patience {
    fn lose(&mut self, failure: Failure) -> Result<(), Failure> {
        self.failures += 1;
        if self.failures > MOST_FAILURES {
            return Err(failure);
        }
        std::thread::sleep(AGAIN);
        Ok(())
    }
}

/// A server-sent event (HTML, 9.2).
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    kind: String,
    id: String,
    data: String,
}

/// The events of a stream.
struct Events<R> {
    lines: std::io::Lines<R>,
}

impl<R: BufRead> Events<R> {
    fn of(reader: R) -> Self {
        Self {
            lines: reader.lines(),
        }
    }
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = std::io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut event = Event::default();
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            if line.is_empty() && !event.data.is_empty() {
                return Some(Ok(event));
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event.kind = value.to_string(),
                "id" => event.id = value.to_string(),
                "data" => event.data.push_str(value),
                _ => {}
            }
        }
    }
}

/// Prints the log of a job, and goes on after a connection that breaks without losing or repeating
/// a line: each line comes with its time, and the rest is asked for from the last one on.
///
/// # Errors
///
/// When the service cannot be reached for a minute, or has no such log.
pub fn logs(
    server: &Server,
    asked: &LogsArguments,
    output: &mut impl Write,
) -> Result<(), Failure> {
    let mut patience = Patience::default();
    let mut seen = Seen::default();
    let form = match asked.timestamps {
        true => LogLines::WithTime,
        false => LogLines::Plain,
    };
    loop {
        let since = seen.since().or_else(|| asked.since.clone());
        let tail = asked.tail.filter(|_| seen.since().is_none());
        let call = server
            .call(Method::GET, &["train", &asked.job, "logs"])
            .query("namespace", asked.namespace.as_ref())
            .query("replica", asked.replica.as_ref())
            .query("tail", tail)
            .query("since", since)
            .query("previous", asked.previous.then_some(true))
            .query(
                "timestamps",
                (asked.timestamps || asked.follow).then_some(true),
            )
            .query("follow", asked.follow.then_some(true));
        let response = match call.send() {
            Ok(response) => response,
            Err(failure @ Failure::Refused { .. }) if patience.failures == 0 => {
                return Err(failure);
            }
            Err(failure) if asked.follow && !matches!(failure, Failure::Input(_)) => {
                patience.lose(failure)?;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let mut reader = BufReader::new(response.into_body().into_reader());
        if !asked.follow {
            std::io::copy(&mut reader, output)?;
            return Ok(output.flush()?);
        }
        match pass(&mut reader, form, &mut seen, output)? {
            Passed::Whole => return Ok(()),
            Passed::Some => patience = Patience::default(),
            Passed::Nothing => {}
        }
        patience.lose(Failure::Answer(anyhow::anyhow!("the log was interrupted")))?;
        seen.resume();
    }
}

/// How far a log came.
enum Passed {
    Whole,
    Some,
    Nothing,
}

/// A line of a log, as far as it has come.
enum Line {
    /// It is not known yet whose it is and when it was written.
    Head(Vec<u8>),
    /// It is printed as it comes.
    Printed(Printed),
    /// It was printed before.
    Old,
}

/// How much of the text of a line was printed.
struct Printed {
    replica: Vec<u8>,
    /// In bytes.
    written: usize,
    /// Bytes that come again after a cut and were printed before it.
    skip: usize,
}

impl Printed {
    fn write(&mut self, text: &[u8], output: &mut impl Write) -> std::io::Result<()> {
        let skipped = self.skip.min(text.len());
        self.skip -= skipped;
        self.written += text.len() - skipped;
        output.write_all(&text[skipped..])
    }
}

impl Line {
    fn begin() -> Self {
        Self::Head(Vec::new())
    }
}

fn pass(
    reader: &mut impl BufRead,
    form: LogLines,
    seen: &mut Seen,
    output: &mut impl Write,
) -> Result<Passed, Failure> {
    let mut passed = Passed::Nothing;
    let mut line = Line::begin();
    loop {
        let read = match reader.fill_buf() {
            Ok([]) => return Ok(Passed::Whole),
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
                passed = Passed::Some;
            }
            line = Line::begin();
        }
        reader.consume(length);
    }
    if let Line::Printed(printed) = line {
        seen.forget_last(printed);
    }
    Ok(passed)
}

/// Prints the beginning of a line, unless it was printed before.
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

/// Whether a line can be printed as far as it has come: the line of one of several replicas when all
/// of it is there, since after a cut the line of another one may come first.
fn is_complete(head: &[u8]) -> bool {
    let is_of_several = head.first() == Some(&b'[');
    head.ends_with(b"\n") || !is_of_several && head.contains(&b' ')
}

/// The replica that a line is of, with its brackets, where there are several; the time; the text.
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

/// Up to where the log of each replica was read: the time of its last line, and how many lines have
/// that time.
#[derive(Default)]
struct Seen {
    replicas: BTreeMap<Vec<u8>, Last>,
    /// How many bytes of the next line's text were printed before the connection was cut.
    interrupted: usize,
}

#[derive(Default)]
struct Last {
    time: Vec<u8>,
    count: u64,
    /// Of these, so many are still to come again.
    again: u64,
}

impl Seen {
    /// The time from which on nothing is missing.
    fn since(&self) -> Option<String> {
        let times = self.replicas.values().map(|last| &last.time);
        times
            .min()
            .and_then(|time| String::from_utf8(time.clone()).ok())
    }

    /// Takes back the last line, which was not printed to its end and comes again.
    fn forget_last(&mut self, printed: Printed) {
        if let Some(last) = self.replicas.get_mut(&printed.replica) {
            last.count = last.count.saturating_sub(1);
        }
        self.interrupted = printed.written;
    }

    fn resume(&mut self) {
        let replicas = self.replicas.values_mut();
        replicas.for_each(|last| last.again = last.count);
    }

    /// Whether a line has not been seen. Times have one form, so their order is that of texts.
    fn is_new(&mut self, replica: &[u8], time: &[u8]) -> bool {
        let last = self.replicas.entry(replica.to_vec()).or_default();
        if time < last.time.as_slice() {
            return false;
        }
        if time > last.time.as_slice() {
            *last = Last {
                time: time.to_vec(),
                count: 1,
                again: 0,
            };
            return true;
        }
        if last.again > 0 {
            last.again -= 1;
            return false;
        }
        last.count += 1;
        true
    }
}

/// A change of status as a line for people.
pub fn status_line(job: &ListedJob) -> String {
    let status = super::output::word(&job.summary.status);
    let suspended = match (job.suspended, job.summary.status) {
        (true, JobState::Submitted) => ", suspended",
        _ => "",
    };
    format!("{status}{suspended}: {}", job.summary.detail)
}

/// A change of status as JSON on one line.
pub fn json(job: &ListedJob) -> String {
    serde_json::to_value(job).unwrap_or(Value::Null).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_comments_are_not() {
        let stream = ":\n\nevent: status\nid: 1\nretry: 1000\ndata: {\"a\":1}\n\n: keep\n\nevent: \
                      deleted\ndata: {}\n\n";
        let events: Vec<Event> = Events::of(stream.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(events.len(), 2);
        assert_eq!(
            (events[0].id.as_str(), events[0].data.as_str()),
            ("1", "{\"a\":1}")
        );
        assert_eq!(events[1].kind, "deleted");
    }

    #[test]
    fn a_line_has_a_replica_where_there_are_several() {
        let line = b"[worker-0] 2026-01-01T00:00:00.000001Z step 1\n";
        let (replica, time, text) = parts(line);
        assert_eq!(replica, b"[worker-0] ");
        assert_eq!(time, b"2026-01-01T00:00:00.000001Z");
        assert_eq!(text, b"step 1\n");
        assert_eq!(parts(b"2026Z \n"), (&b""[..], &b"2026Z"[..], &b"\n"[..]));
    }

    /// Reads like a connection that is cut off after these pieces.
    struct Cut<'a>(std::collections::VecDeque<&'a [u8]>);

    impl std::io::Read for Cut<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            let piece = self.0.pop_front().ok_or_else(cut)?;
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn passed(pieces: &[&str], seen: &mut Seen, output: &mut Vec<u8>) {
        let pieces = pieces.iter().map(|piece| piece.as_bytes()).collect();
        let mut reader = BufReader::new(Cut(pieces));
        pass(&mut reader, LogLines::Plain, seen, output).unwrap();
    }

    #[test]
    fn a_line_is_printed_as_it_comes_and_continued_after_a_cut() {
        let (mut seen, mut output) = (Seen::default(), Vec::new());
        passed(&["1 a\n", "2", " 10%\r", "20%\r"], &mut seen, &mut output);
        assert_eq!(String::from_utf8_lossy(&output), "a\n10%\r20%\r");
        seen.resume();
        output.clear();
        passed(&["2 10%\r", "20%\r30"], &mut seen, &mut output);
        assert_eq!(String::from_utf8_lossy(&output), "30");
        seen.resume();
        output.clear();
        passed(&["2 10%\r20%\r30%\n", "3 b\n"], &mut seen, &mut output);
        assert_eq!(String::from_utf8_lossy(&output), "%\nb\n");
        seen.resume();
        output.clear();
        passed(&["2 10%\r20%\r30%\n", "3 b\n3 c\n"], &mut seen, &mut output);
        assert_eq!(String::from_utf8_lossy(&output), "c\n");
    }

    #[test]
    fn a_line_of_several_replicas_is_printed_when_it_is_whole() {
        let (mut seen, mut output) = (Seen::default(), Vec::new());
        passed(&["[a] 1 x\n[b] 1 y", "y\n[a] 2 4"], &mut seen, &mut output);
        assert_eq!(String::from_utf8_lossy(&output), "[a] x\n[b] yy\n");
        seen.resume();
        output.clear();
        passed(
            &["[b] 1 yy\n[b] 2 z\n[a] 1 x\n[a] 2 42\n"],
            &mut seen,
            &mut output,
        );
        assert_eq!(String::from_utf8_lossy(&output), "[b] z\n[a] 42\n");
    }

    #[test]
    fn lines_of_one_time_that_come_again_are_dropped_once_each() {
        let mut seen = Seen::default();
        for time in ["1", "2", "2"] {
            assert!(seen.is_new(b"", time.as_bytes()));
        }
        seen.resume();
        let again = ["2", "2", "2", "3"].map(|time| seen.is_new(b"", time.as_bytes()));
        assert_eq!(again, [false, false, true, true]);
    }
}
