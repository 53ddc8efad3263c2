//! Keeps the metrics of a run in an annotation of its job. They are in the log of the first replica,
//! which is gone when its pod is.
//!
//! The log is read when the job ends or is suspended, and when the first replica fails: the operator
//! may delete the pods of a failed job before the job shows that it has failed. As with failures,
//! nothing is written before the job has ended (see [`super::failures`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::core::Status;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::warn;

use super::cache::Cache;
use super::calls::Calls;
use super::error::CallError;
use super::log::open_from;
use super::owner::Controller;
use crate::cluster::{Change, FeedPosition, News};
use crate::job::{
    JobState, LogEnd, LogSelection, MAX_KEPT_POINTS, Metrics, ObservedJob, Recorder, kept_metrics,
    metrics_annotation, replica_names,
};
use crate::keys::FRAMEWORK_LABEL;

/// The maximum number of jobs whose metrics are read at the same time.
const MOST_READS: usize = 4;
/// The time limit for reading a log. What was read until then is kept.
const LONGEST_READ: Duration = Duration::from_secs(30);
/// The time limit before a job is suspended. A suspension does not wait longer for its metrics.
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// How long ago a job may have ended when the service starts.
const RECENT: SignedDuration = SignedDuration::from_mins(10);

/// Reads the metrics of jobs and writes them into the jobs.
pub(super) struct Curves {
    calls: Calls,
    cache: Arc<Cache>,
    places: Semaphore,
    /// What was read when the first replica of a job failed, until the job ends.
    held: Mutex<BTreeMap<Controller, Metrics>>,
    /// The jobs whose logs are being read for that.
    reading: Mutex<BTreeSet<Controller>>,
}

impl Curves {
    pub(super) fn new(calls: Calls, cache: Arc<Cache>) -> Arc<Self> {
        Arc::new(Self {
            calls,
            cache,
            places: Semaphore::new(MOST_READS),
            held: Mutex::default(),
            reading: Mutex::default(),
        })
    }

    /// Keeps the metrics of jobs that end, while it is polled.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut newest = self.cache.feed().newest();
        let mut position = self.cache.feed().end();
        let mut writes = JoinSet::new();
        while newest.changed().await.is_ok() {
            for job in self.ended(&mut position) {
                writes.spawn(self.clone().keep_ended(job));
            }
            while writes.try_join_next().is_some() {}
        }
    }

    /// The jobs that have ended since a position.
    fn ended(&self, position: &mut FeedPosition) -> Vec<Arc<ObservedJob>> {
        let feed = self.cache.feed();
        let mut jobs = match feed.advance(position) {
            Some(changes) => self.changed(&changes),
            // There were more changes than the feed keeps.
            None => {
                *position = feed.end();
                self.cache.after(None, usize::MAX)
            }
        };
        let now = Timestamp::now();
        jobs.retain(|job| is_own(job) && has_ended_recently(job, now));
        jobs
    }

    /// The jobs whose status has changed. Forgets those that were deleted.
    fn changed(&self, changes: &[Arc<Change>]) -> Vec<Arc<ObservedJob>> {
        let mut jobs = Vec::new();
        for change in changes {
            match &change.news {
                News::Status(update) => {
                    jobs.extend(self.cache.get(&change.namespace, &update.job.summary.name));
                }
                News::Progress(_) => {}
                News::Deleted(gone) => self.forget(&gone.namespace, &gone.name),
            }
        }
        jobs
    }

    async fn keep_ended(self: Arc<Self>, job: Arc<ObservedJob>) {
        let held = self.held().remove(&Controller::of(&job));
        self.keep(&job, held.unwrap_or_default()).await;
    }

    /// Keeps the metrics of a job whose pods are about to be deleted.
    pub(super) async fn keep_suspended(&self, job: &Arc<ObservedJob>) {
        if is_own(job) && JobState::of(job) == JobState::Running {
            let _late =
                tokio::time::timeout(LONGEST_DELAY, self.keep(job, Metrics::default())).await;
        }
    }

    async fn keep(&self, job: &Arc<ObservedJob>, held: Metrics) {
        let Err(error) = self.write(job, held).await else {
            return;
        };
        // The job was deleted, or there is a newer one with its name.
        let is_gone = |status: &Status| matches!(status.code, 404 | 409);
        if !error.status().is_some_and(is_gone) {
            let cause = &error as &dyn std::error::Error;
            let job = job.name();
            warn!(job, cause, "cannot keep the metrics of a job");
        }
    }

    /// Writes what the job has kept, what was read before, and what its log has now.
    async fn write(&self, job: &Arc<ObservedJob>, held: Metrics) -> Result<(), CallError> {
        // The semaphore is never closed.
        let _place = self.places.acquire().await;
        let mut recorder = Recorder::new(MAX_KEPT_POINTS);
        recorder.add(self.kept(job).await?);
        recorder.add(held);
        self.read_log(job, &mut recorder).await;
        let Some(annotation) = metrics_annotation(&recorder.take()) else {
            return Ok(());
        };
        let annotations = BTreeMap::from([annotation]);
        self.calls.annotate(job, &annotations).await
    }

    /// The metrics that a job has kept.
    pub(super) async fn kept(&self, job: &ObservedJob) -> Result<Metrics, CallError> {
        let found = self.calls.get(job.kind, job.namespace(), job.name());
        let found: ObservedJob = found.await?;
        Ok(kept_metrics(&found))
    }

    /// Reads the log of a job whose first replica has failed.
    pub(super) fn read_failed(self: &Arc<Self>, failed: &Controller) {
        let job = self.cache.get(&failed.namespace, &failed.name);
        let Some(job) = job.filter(|job| Controller::of(job) == *failed && is_own(job)) else {
            return;
        };
        if self.reading().insert(failed.clone()) {
            tokio::spawn(self.clone().hold(job, failed.clone()));
        }
    }

    /// Reads the log of a job, and holds its metrics until the job ends.
    async fn hold(self: Arc<Self>, job: Arc<ObservedJob>, failed: Controller) {
        let place = self.places.acquire().await;
        let mut recorder = Recorder::new(MAX_KEPT_POINTS);
        recorder.add(self.held().get(&failed).cloned().unwrap_or_default());
        self.read_log(&job, &mut recorder).await;
        drop(place);
        self.reading().remove(&failed);
        self.held().insert(failed.clone(), recorder.take());
        // The job may have ended while its log was read.
        let now = self.cache.get(&failed.namespace, &failed.name);
        match now.filter(|now| Controller::of(now) == failed) {
            Some(now) if now.status.has_ended() => self.keep_ended(now).await,
            Some(_) => {}
            None => self.forget(&failed.namespace, &failed.name),
        }
    }

    /// Reads what there is of the log of the first replica.
    async fn read_log(&self, job: &Arc<ObservedJob>, recorder: &mut Recorder) {
        let Some(first) = replica_names(job).into_iter().next() else {
            return;
        };
        let selection = LogSelection::whole(LogEnd::Now);
        let watch = self.cache.watch_job(job.clone());
        let read = async {
            let opened = open_from(&self.calls, job, &first, &selection, watch).await;
            let Ok(mut log) = opened else { return };
            while let Some(Ok(lines)) = log.next().await {
                recorder.read(&lines);
            }
        };
        let _late = tokio::time::timeout(LONGEST_READ, read).await;
    }

    fn forget(&self, namespace: &str, name: &str) {
        self.held()
            .retain(|job, _| job.namespace != namespace || job.name != name);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Controller, Metrics>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading(&self) -> MutexGuard<'_, BTreeSet<Controller>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this service has created a job.
fn is_own(job: &ObservedJob) -> bool {
    job.label(FRAMEWORK_LABEL).is_some()
}

fn has_ended_recently(job: &ObservedJob, now: Timestamp) -> bool {
    job.status.end().is_some_and(|end| {
        let time = end.last_transition_time.as_ref();
        time.is_none_or(|time| now.duration_since(time.0) < RECENT)
    })
}
