//! Who follows which job, and the feed of all jobs: each change of a job reaches both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::feed::Feed;
use crate::job::ObservedJob;

/// The current state of a job, or None once it was deleted. Slow followers only see the latest
/// state.
pub type JobWatch = watch::Receiver<Option<Arc<ObservedJob>>>;

type Key = (String, String);

/// The followed jobs.
#[derive(Debug, Default)]
pub(super) struct Changes {
    followed: Mutex<BTreeMap<Key, watch::Sender<Option<Arc<ObservedJob>>>>>,
    feed: Arc<Feed>,
}

impl Changes {
    /// Follows a job from its current state. To miss no change, call this under the lock under
    /// which changes are made.
    pub(super) fn follow(&self, job: Arc<ObservedJob>) -> JobWatch {
        let mut followed = self.followed();
        // Followers may disconnect at any time.
        followed.retain(|_, sender| sender.receiver_count() > 0);
        let sender = followed.entry(key(&job));
        sender
            .or_insert_with(|| watch::Sender::new(Some(job)))
            .subscribe()
    }

    /// The changes of all jobs.
    pub(super) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Sends the new state of a job to its followers.
    pub(super) fn publish(&self, before: Option<&ObservedJob>, job: &Arc<ObservedJob>) {
        self.feed.changed(before, job);
        if let Some(sender) = self.followed().get(&key(job)) {
            sender.send_if_modified(|known| {
                let is_news = known.as_deref() != Some(job);
                *known = Some(job.clone());
                is_news
            });
        }
    }

    /// Notifies the followers of a job that it was deleted.
    pub(super) fn publish_deletion(&self, job: &ObservedJob) {
        self.feed.deleted(job);
        if let Some(sender) = self.followed().remove(&key(job)) {
            sender.send_replace(None);
        }
    }

    /// The followed jobs, in the state that was sent last.
    pub(super) fn followed_jobs(&self) -> Vec<Arc<ObservedJob>> {
        let followed = self.followed();
        let jobs = followed.values().map(|sender| sender.borrow().clone());
        jobs.flatten().collect()
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<Key, watch::Sender<Option<Arc<ObservedJob>>>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(job: &ObservedJob) -> Key {
    (job.namespace().to_string(), job.name().to_string())
}
