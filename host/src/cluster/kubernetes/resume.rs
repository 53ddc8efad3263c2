//! Determines which lines of a log were already returned, to resume after an interruption. Pure.
//!
//! The API server accepts a start time in whole seconds, so it sends some lines again. A line is
//! identified by its time in nanoseconds and its text. Lines of standard output and standard error
//! are not strictly in order of time, so remembering only the last line is not sufficient.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{Timestamp, ToSpan};

/// How many lines are remembered. Times may only be out of order within these.
const REMEMBERED: usize = 4096;

/// Identifies a line: its time and a hash of its contents.
type Line = (Timestamp, u64);

/// The lines that were returned.
#[derive(Debug, Default)]
pub(super) struct SeenLines {
    last: VecDeque<Line>,
    /// The remembered lines that were not received again since the interruption.
    again: HashMap<Line, u32>,
    /// The end of the lines that may be received again.
    overlap: Option<(Timestamp, Timestamp)>,
}

impl SeenLines {
    /// Starts a resumption, and returns the time from which to request the rest.
    pub(super) fn resume(&mut self) -> Option<Timestamp> {
        let newest = self.last.iter().map(|(time, _)| *time).max()?;
        let oldest = self.last.front().map(|(time, _)| *time)?;
        self.again.clear();
        for line in &self.last {
            *self.again.entry(*line).or_default() += 1;
        }
        self.overlap = Some((oldest, newest));
        // Includes the previous second, because lines may be late by less than that.
        let since = Timestamp::from_second(newest.as_second()).ok()?;
        since.checked_sub(1.second()).ok()
    }

    /// Whether returned lines may still be received again.
    pub(super) fn overlaps(&self) -> bool {
        self.overlap.is_some()
    }

    /// Whether a line is new. If so, it is recorded as returned.
    pub(super) fn is_new(&mut self, line: &[u8]) -> bool {
        let line = (time_of(line).unwrap_or_default(), hash(line));
        if let Some((oldest, newest)) = self.overlap {
            if let Some(count) = self.again.get_mut(&line).filter(|count| **count > 0) {
                *count -= 1;
                return false;
            }
            // It was returned so long ago that it is not remembered.
            if line.0 < oldest && self.last.len() == REMEMBERED {
                return false;
            }
            if line.0 > newest + 2.seconds() {
                self.overlap = None;
                self.again = HashMap::new();
            }
        }
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(line);
        true
    }
}

/// The time at the start of a line.
pub(super) fn time_of(line: &[u8]) -> Option<Timestamp> {
    let end = memchr::memchr(b' ', line)?;
    std::str::from_utf8(&line[..end]).ok()?.parse().ok()
}

/// A line without its time.
pub(super) fn text_of(line: &[u8]) -> &[u8] {
    match (time_of(line), memchr::memchr(b' ', line)) {
        (Some(_), Some(end)) => &line[end + 1..],
        _ => line,
    }
}

fn hash(line: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(micros: i64, text: &str) -> String {
        let time = Timestamp::from_microsecond(1_700_000_000_000_000 + micros).unwrap();
        format!("{time:.9} {text}\n")
    }

    #[test]
    fn a_line_has_a_time_and_a_text() {
        assert_eq!(
            text_of(b"2026-01-02T03:04:05.123456789Z step 1\n"),
            b"step 1\n"
        );
        assert_eq!(text_of(b"2026-01-02T03:04:05Z \n"), b"\n");
        assert_eq!(text_of(b"no time\n"), b"no time\n");
    }

    /// What a kubelet sends of a log from a time on.
    fn from(log: &[String], since: Option<Timestamp>) -> impl Iterator<Item = &String> {
        let is_late = move |line: &&String| {
            since.is_none_or(|since| time_of(line.as_bytes()).unwrap() >= since)
        };
        log.iter().filter(is_late)
    }

    proptest! {
        /// Times are out of order by up to a millisecond and may be the same, as may be texts.
        #[test]
        fn each_line_is_given_once_and_in_order_however_often_the_stream_is_cut(
            steps in proptest::collection::vec((0_i64..400_000, -1000_i64..1000, 0_u8..3), 1..200),
            cuts in proptest::collection::vec(1_usize..40, 0..20),
        ) {
            let mut now = 10_000;
            let log = steps.iter().map(|(step, jitter, text)| {
                now += step;
                line(now + jitter, &text.to_string())
            });
            let log: Vec<String> = log.collect();
            let mut given = SeenLines::default();
            let mut out: Vec<&String> = Vec::new();
            let mut since = None;
            for cut in cuts.into_iter().map(Some).chain([None]) {
                let fresh: Vec<_> = from(&log, since)
                    .filter(|line| given.is_new(line.as_bytes()))
                    .take(cut.unwrap_or(usize::MAX))
                    .collect();
                out.extend(fresh);
                since = given.resume();
            }
            prop_assert_eq!(out, log.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_was_rotated_away_hides_nothing_new() {
        let log: Vec<String> = (0..100).map(|n| line(n * 1000, &n.to_string())).collect();
        let mut given = SeenLines::default();
        assert!(log[..50].iter().all(|line| given.is_new(line.as_bytes())));
        given.resume();
        // The kubelet has only the newest file.
        assert!(log[60..].iter().all(|line| given.is_new(line.as_bytes())));
    }

    #[test]
    fn more_lines_in_a_second_than_are_remembered_are_not_repeated() {
        let log: Vec<String> = (0..10_000).map(|n| line(n, &n.to_string())).collect();
        let mut given = SeenLines::default();
        assert!(log[..9000].iter().all(|line| given.is_new(line.as_bytes())));
        given.resume();
        let again = log.iter().filter(|line| given.is_new(line.as_bytes()));
        assert_eq!(again.count(), 1000);
    }
}
