//! Which part of a job's logs is asked for, and the names of its replicas.

use jiff::{SignedDuration, Timestamp};

use super::ObservedJob;

/// A part of the log of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSelection {
    pub start: LogStart,
    pub end: LogEnd,
    /// Whether each line begins with the time at which it was written.
    pub lines: LogLines,
    /// Only the last so many lines of what is there.
    pub tail: Option<u64>,
    /// Only lines that were written then or later.
    pub since: Option<Timestamp>,
    pub unfinished: Unfinished,
}

/// What a follower is given of a line whose end does not come within a second, such as a progress
/// bar: the line up to now, and later the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// The rest continues the line.
    Continued,
    /// The rest is a line of its own, so that lines of other replicas fit between them.
    Split,
}

impl LogSelection {
    /// The same part of the log of another start. An earlier start's log is complete, so it ends
    /// with what is there.
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

/// Which start of the replica's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStart {
    /// The first one that is kept, followed by all later ones.
    First,
    Latest,
    /// The one before, after a restart.
    Previous,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// With what is there.
    Now,
    /// With the job, through restarts of the replica. A replica that is not there yet is waited for.
    WithJob,
}

/// What a line is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLines {
    Plain,
    WithTime,
}

/// The replicas of a job by the names that answers use: `master-0`, `worker-0`, ...
pub fn replica_names(job: &ObservedJob) -> Vec<String> {
    let specs = job.spec.pytorch_replica_specs.iter();
    specs
        .flat_map(|(kind, desired)| {
            let kind = kind.to_ascii_lowercase();
            (0..desired.replicas).map(move |index| format!("{kind}-{index}"))
        })
        .collect()
}

/// A time in the past as people write it: RFC 3339, or how long ago, such as `10m`.
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
