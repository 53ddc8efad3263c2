//! The changes of all jobs, numbered: the newest are kept, so that a client that connects again gets
//! what it has missed. How much is kept does not depend on how many clients there are.

mod reader;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use super::Cluster;
use crate::job::{DeletedJob, JobProgress, JobUpdate, ObservedJob, Progress};

/// Most changes that are kept, of some hundred bytes each.
const MAX_KEPT: usize = 2048;

/// The changes of all jobs of a cluster.
#[derive(Debug)]
pub struct Feed {
    /// Distinguishes the numbers of this process from those of earlier ones.
    epoch: String,
    state: Mutex<State>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    changes: VecDeque<Arc<Change>>,
    /// The progress that was read last, by the uid of the job.
    progress: BTreeMap<String, Progress>,
    readers: Readers,
}

/// Who reads the feed, and whether progress is being read for them.
#[derive(Debug, Default)]
struct Readers {
    followers: usize,
    progress: ProgressReader,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ProgressReader {
    #[default]
    Stopped,
    Running,
}

/// One change of one job.
#[derive(Debug)]
pub struct Change {
    /// One more than that of the change before.
    pub number: u64,
    /// Of the job.
    pub namespace: String,
    pub news: News,
}

/// What has changed.
#[derive(Debug)]
pub enum News {
    Status(JobUpdate),
    Progress(JobProgress),
    Deleted(DeletedJob),
}

/// How far a client has read, as the id of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPosition {
    epoch: String,
    number: u64,
}

/// A string that is not the id of an event of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not the id of an event of this stream")]
pub struct InvalidPosition;

impl fmt::Display for FeedPosition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.epoch, self.number)
    }
}

impl FromStr for FeedPosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, number) = text.rsplit_once('-').ok_or(InvalidPosition)?;
        Ok(Self {
            epoch: epoch.to_string(),
            number: number.parse().map_err(|_| InvalidPosition)?,
        })
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            epoch: Uuid::new_v4().simple().to_string(),
            state: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }
}

impl Feed {
    /// Adds a change of a job, if answers about it are different now.
    pub(super) fn changed(&self, before: Option<&ObservedJob>, job: &ObservedJob) {
        let is_news = before.is_none_or(|before| {
            before.metadata.uid != job.metadata.uid
                || before.status.conditions != job.status.conditions
                || JobUpdate::of(before, None) != JobUpdate::of(job, None)
        });
        if is_news {
            let mut state = self.state();
            let progress = state.progress.get(uid(job)).copied();
            let news = News::Status(JobUpdate::of(job, progress));
            self.add(&mut state, job, news);
        }
    }

    /// Adds that a job was deleted.
    pub(super) fn deleted(&self, job: &ObservedJob) {
        let mut state = self.state();
        state.progress.remove(uid(job));
        self.add(&mut state, job, News::Deleted(job.into()));
    }

    /// Adds the progress of a job, if it is different now.
    fn progressed(&self, job: &ObservedJob, progress: Progress) {
        let mut state = self.state();
        let before = state.progress.insert(uid(job).to_string(), progress);
        if before != Some(progress) {
            let news = News::Progress(JobProgress::of(job, progress));
            self.add(&mut state, job, news);
        }
    }

    /// Discards the progress of deleted jobs.
    fn keep_progress_of(&self, jobs: &[Arc<ObservedJob>]) {
        let mut state = self.state();
        let mut left = BTreeMap::new();
        for job in jobs {
            left.extend(state.progress.remove_entry(uid(job)));
        }
        state.progress = left;
    }

    fn add(&self, state: &mut State, job: &ObservedJob, news: News) {
        let number = *self.newest.borrow() + 1;
        let namespace = job.namespace().to_string();
        state.changes.push_back(Arc::new(Change {
            number,
            namespace,
            news,
        }));
        if state.changes.len() > MAX_KEPT {
            state.changes.pop_front();
        }
        self.newest.send_replace(number);
    }

    /// A job with the progress that is known of it.
    pub fn update(&self, job: &ObservedJob) -> JobUpdate {
        JobUpdate::of(job, self.state().progress.get(uid(job)).copied())
    }

    /// The number of the newest change, whenever there is one.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The position after all changes that there are.
    pub fn end(&self) -> FeedPosition {
        self.position(*self.newest.borrow())
    }

    /// The position after a change.
    pub fn position(&self, number: u64) -> FeedPosition {
        let epoch = self.epoch.clone();
        FeedPosition { epoch, number }
    }

    /// The changes after a position, or `None` if some of them have been discarded.
    pub fn after(&self, position: &FeedPosition) -> Option<Vec<Arc<Change>>> {
        let state = self.state();
        let newest = *self.newest.borrow();
        let is_known = position.epoch == self.epoch && position.number <= newest;
        let missed = usize::try_from(newest.checked_sub(position.number)?).ok()?;
        let first = state.changes.len().checked_sub(missed)?;
        is_known.then(|| state.changes.range(first..).cloned().collect())
    }

    /// Reads the changes after a position and moves it behind them, or returns `None` if some of them have
    /// been discarded.
    pub fn advance(&self, position: &mut FeedPosition) -> Option<Vec<Arc<Change>>> {
        let changes = self.after(position)?;
        if let Some(last) = changes.last() {
            *position = self.position(last.number);
        }
        Some(changes)
    }

    /// Counts a follower, for whom the progress of the jobs is read until it is dropped.
    pub fn follow(self: &Arc<Self>, cluster: &Arc<dyn Cluster>) -> Follower {
        let mut state = self.state();
        state.readers.followers += 1;
        if state.readers.progress == ProgressReader::Stopped {
            state.readers.progress = ProgressReader::Running;
            tokio::spawn(reader::read(self.clone(), cluster.clone()));
        }
        Follower(self.clone())
    }

    /// Whether to read progress: only while somebody follows the feed.
    fn wants_progress(&self) -> bool {
        let mut state = self.state();
        let is_followed = state.readers.followers > 0;
        if !is_followed {
            state.readers.progress = ProgressReader::Stopped;
        }
        is_followed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who follows the feed.
#[derive(Debug)]
pub struct Follower(Arc<Feed>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.state().readers.followers -= 1;
    }
}

fn uid(job: &ObservedJob) -> &str {
    job.metadata.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(name: &str, suspend: bool) -> ObservedJob {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "team-a", "uid": name},
            "spec": {"runPolicy": {"suspend": suspend}},
        }))
        .unwrap()
    }

    fn numbers(changes: Option<Vec<Arc<Change>>>) -> Option<Vec<u64>> {
        changes.map(|changes| changes.iter().map(|change| change.number).collect())
    }

    #[test]
    fn only_what_answers_show_is_a_change() {
        let feed = Feed::default();
        let begin = feed.end();
        let (held, runs) = (job("a", true), job("a", false));
        feed.changed(None, &held);
        feed.changed(Some(&held), &held);
        feed.changed(Some(&held), &runs);
        feed.deleted(&runs);
        assert_eq!(numbers(feed.after(&begin)), Some(vec![1, 2, 3]));
        assert_eq!(numbers(feed.after(&feed.position(2))), Some(vec![3]));
        assert_eq!(numbers(feed.after(&feed.end())), Some(vec![]));
    }

    #[test]
    fn a_position_that_is_too_old_or_of_another_process_gives_nothing() {
        let feed = Feed::default();
        let begin = feed.end();
        for _ in 0..=MAX_KEPT {
            feed.changed(None, &job("a", false));
        }
        assert_eq!(numbers(feed.after(&begin)), None);
        assert_eq!(feed.after(&feed.position(1)).unwrap().len(), MAX_KEPT);
        assert_eq!(numbers(feed.after(&feed.position(u64::MAX))), None);
        assert_eq!(numbers(feed.after(&Feed::default().position(2000))), None);
    }

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position = Feed::default().position(7);
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "-", "7", "a-b", "a-"] {
            assert_eq!(text.parse::<FeedPosition>(), Err(InvalidPosition), "{text}");
        }
    }
}
