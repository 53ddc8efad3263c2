//! The alarm of a job: its next restart, or its deadline.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::jobs::{JobId, LocalJobs};
use super::lifecycle::Event;

/// The clock may have been set, or the machine may have slept: it is looked at again after this.
const RECHECK: Duration = Duration::from_secs(60);

/// Wakes a job when its alarm is due, for as long as it has one.
pub(super) async fn run(
    machine: Arc<LocalJobs>,
    id: JobId,
    mut wake: watch::Receiver<Option<Timestamp>>,
) {
    loop {
        let due = *wake.borrow_and_update();
        if due.is_some_and(|due| due <= Timestamp::now()) {
            // Boxed, because most timers never need its memory.
            Box::pin(machine.handle_until_stored(&id, Event::Wake)).await;
        }
        let left = left(due);
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            changed = wake.changed() => if changed.is_err() { return },
        }
    }
}

fn left(due: Option<Timestamp>) -> Duration {
    /// An alarm that changes nothing must not keep a processor busy.
    const LEAST: Duration = Duration::from_millis(1);
    let left = due.and_then(|due| due.duration_since(Timestamp::now()).try_into().ok());
    match (due, left) {
        (None, _) => RECHECK,
        (Some(_), left) => left.unwrap_or(LEAST).clamp(LEAST, RECHECK),
    }
}
