//! Waits for what happens in other processes.

use std::time::{Duration, Instant};

/// What `look` finds as soon as it finds something.
///
/// # Panics
///
/// If nothing is found in time, with `what` was awaited.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
