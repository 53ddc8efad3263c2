//! Gives each job a time of creation of its own, so that lists have one order.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// When the newest job was created, in microseconds since 1970. No two jobs have one time.
#[derive(Debug, Default)]
pub(super) struct Newest(AtomicI64);

impl Newest {
    pub(super) fn next(&self, now: Timestamp) -> Timestamp {
        let now = now.as_microsecond();
        let later = |newest: i64| now.max(newest + 1);
        let newest = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |newest| {
                Some(later(newest))
            });
        let (Ok(newest) | Err(newest)) = newest;
        Timestamp::from_microsecond(later(newest)).unwrap_or_default()
    }
}
