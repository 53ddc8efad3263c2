//! Threads of low priority, for work that must not delay what other clients wait for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use tokio::sync::oneshot;
use tracing::warn;

use crate::scheduling;

type Work = Box<dyn FnOnce() + Send>;

/// A fixed number of threads, and the work that waits for them.
#[derive(Debug)]
pub(super) struct Background {
    queue: mpsc::Sender<Work>,
}

/// The work did not complete.
#[derive(Debug, thiserror::Error)]
#[error("the work panicked, or no thread could be started for it")]
pub(super) struct Incomplete;

impl Background {
    pub(super) fn start(threads: usize) -> Self {
        let (queue, work) = mpsc::channel();
        let work = Arc::new(Mutex::new(work));
        for _ in 0..threads {
            let work = work.clone();
            let thread = thread::Builder::new().name("large-requests".to_string());
            if let Err(error) = thread.spawn(move || run(&work)) {
                warn!(%error, "cannot start a thread for large requests");
            }
        }
        Self { queue }
    }

    /// Runs the work on one of the threads, and waits for it.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] if the work panics, or if no thread could be started.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Incomplete> {
        let (result, done) = oneshot::channel();
        let work = move || {
            // Nobody waits if the client has disconnected.
            let _ = result.send(work());
        };
        let queued = self.queue.send(Box::new(work));
        queued.map_err(|_| Incomplete)?;
        done.await.map_err(|_| Incomplete)
    }
}

fn run(queue: &Mutex<mpsc::Receiver<Work>>) {
    scheduling::lower_priority();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else { return };
        // A panic was reported by the hook, and the caller gets an error.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_a_thread_of_lower_priority() {
        let background = Background::start(1);
        let niceness = || rustix::process::getpriority_process(None);
        let usual = niceness().unwrap();
        let lowered = background.run(niceness).await.unwrap().unwrap();
        assert!(lowered > usual || usual >= 19, "{usual} {lowered}");
        assert_eq!(niceness().unwrap(), usual);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_continues() {
        let background = Background::start(1);
        let panics = background.run(|| panic!("expected by this test")).await;
        assert!(panics.is_err());
        assert_eq!(background.run(|| 7).await.unwrap(), 7);
    }
}
