//! Returns memory to the system that the service no longer uses.
//!
//! The allocator keeps freed memory for later, and returns it only while it allocates. Without this
//! task, a service that is idle after a burst of large requests would keep the memory of the burst.

use std::time::Duration;

/// How often the memory is returned. Whatever is in use meanwhile costs nothing.
const EVERY: Duration = Duration::from_secs(15);

/// Returns unused memory periodically while polled.
pub async fn return_unused() {
    let mut turns = tokio::time::interval(EVERY);
    loop {
        turns.tick().await;
        // Takes milliseconds after a burst, so no thread that serves requests does it.
        let _ = tokio::task::spawn_blocking(collect).await;
    }
}

fn collect() {
    #[expect(unsafe_code, reason = "the allocator has no safe function for it")]
    // SAFETY: the function has no requirements, and any thread may call it.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
