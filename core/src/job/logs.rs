//! Which part of a job's logs to read, and the names of its replicas.

use jiff::{SignedDuration, Timestamp};

use super::ObservedJob;

/// A part of the log of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSelection {
    pub start: LogStart,
    pub end: LogEnd,
    /// Whether each line starts with the time at which it was written.
    pub lines: LogLines,
    /// Only this many of the last lines that exist now.
    pub tail: Option<u64>,
    /// Only lines that were written at this time or later.
    pub since: Option<Timestamp>,
    pub unfinished: Unfinished,
}

/// How a follower receives a line that is not finished within a second, such as a progress bar:
/// first the line so far, later the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// The rest continues the line.
    Continued,
    /// The rest is a separate line, so that lines of other replicas fit in between.
    Split,
}

impl LogSelection {
    /// All lines that exist, with their times.
    pub fn whole(end: LogEnd) -> Self {
        Self {
            start: LogStart::First,
            end,
            lines: LogLines::WithTime,
            tail: None,
            since: None,
            unfinished: Unfinished::Split,
        }
    }

    /// The same selection for another attempt. The log of an earlier attempt is complete, so it is
    /// not followed.
    #[must_use]
    pub fn starting_at(&self, start: LogStart) -> Self {
        Self {
            start,
            end: match start {
                LogStart::Previous => LogEnd::Now,
                LogStart::First | LogStart::Latest => self.end,
            },
            ..self.clone()
        }
    }
}

/// Which attempt of the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStart {
    /// The first attempt whose log still exists, followed by all later ones.
    First,
    Latest,
    /// The attempt before the latest.
    Previous,
}

/// Where reading a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// At its current end.
    Now,
    /// When the job ends, across restarts of the replica. If the replica does not exist yet, the
    /// reader waits for it.
    WithJob,
}

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLines {
    Plain,
    WithTime,
}

/// The names of a job's replicas in this API: `master-0`, `worker-0`, ...
pub fn replica_names(job: &ObservedJob) -> Vec<String> {
    let specs = job.spec.pytorch_replica_specs.iter();
    specs
        .flat_map(|(kind, desired)| {
            let kind = kind.to_ascii_lowercase();
            (0..desired.replicas).map(move |index| format!("{kind}-{index}"))
        })
        .collect()
}

/// Parses a time in the past: RFC 3339, or a duration such as `10m` ago.
pub fn since(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let ago: SignedDuration = text.parse().ok()?;
    now.checked_sub(ago.abs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_is_absolute_or_so_long_ago() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let cases = [
            ("2026-01-01T23:00:00Z", Some("2026-01-01T23:00:00Z")),
            ("2026-01-02T00:00:00+01:00", Some("2026-01-01T23:00:00Z")),
            ("10m", Some("2026-01-01T23:50:00Z")),
            ("1h30m", Some("2026-01-01T22:30:00Z")),
            ("90s", Some("2026-01-01T23:58:30Z")),
            ("yesterday", None),
            ("", None),
        ];
        for (text, time) in cases {
            let time = time.map(|time| time.parse().unwrap());
            assert_eq!(since(text, now), time, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r"[0-9smhd.\-+TZ:\PC]{0,20}") {
            since(&text, Timestamp::UNIX_EPOCH);
        }
    }
}
