//! Caches jobs. A watch for each scope keeps the cache current, so that reads need no calls to the
//! API server.

mod jobs;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tracing::{info, warn};

use super::error::CallError;
use super::owner::{Controller, MasterPod};
use super::resource::WatchedJob;
use jobs::{Jobs, Key, key};

use crate::cluster::Feed;
use crate::cluster::changes::{Changes, JobWatch};
use crate::job::{self, JobPosition, ObservedJob, PodDetails, Prefix};
use crate::job_kind::JobKind;
use crate::keys::{
    CHECKPOINT_PREFIX_ANNOTATION, HELD_ANNOTATION, MODEL_ID_ANNOTATION, SUBMISSION_ANNOTATION,
};

/// The duration of a watch before it is renewed, in seconds. A silently dead connection is noticed
/// five seconds after that at the latest.
pub(super) const WATCH_SECONDS: u32 = 60;

/// The maximum number of replicas per job whose failures are kept. They usually have the same
/// cause.
const MAX_FAILURES: usize = 16;

/// The annotations that responses need, besides those of failures.
const KEPT_ANNOTATIONS: [&str; 3] = [
    CHECKPOINT_PREFIX_ANNOTATION,
    HELD_ANNOTATION,
    MODEL_ID_ANNOTATION,
];

/// The cached jobs of all watched namespaces.
#[derive(Debug, Default)]
pub(super) struct Cache {
    jobs: RwLock<Jobs>,
    changes: Changes,
    /// For each watch: why it is not synced, or None if it is.
    unknown: RwLock<BTreeMap<Watch, String>>,
    /// Failures of replicas until they are recorded in the job.
    failures: Mutex<BTreeMap<Controller, Vec<PodDetails>>>,
    /// The TrainJobs whose masters run now, and since when.
    masters: Mutex<BTreeMap<Controller, Option<Time>>>,
    /// For each watch: when the API server last responded to it, or when it started.
    contacts: Mutex<BTreeMap<Watch, Instant>>,
}

/// The objects that one watch reports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watch {
    pub(super) scope: Scope,
    pub(super) kind: JobKind,
}

/// A namespace, or all namespaces.
pub(super) type Scope = Option<String>;

impl Cache {
    /// Creates an empty cache that these watches will fill.
    pub(super) fn of(watches: &[Watch]) -> Arc<Self> {
        let cache = Self::default();
        cache.expect(watches);
        Arc::new(cache)
    }

    /// Expects these watches instead of the earlier ones.
    pub(super) fn expect(&self, watches: &[Watch]) {
        let mut unknown = self.unknown();
        let mut contacts = self.contacts_mut();
        unknown.retain(|watch, _| watches.contains(watch));
        contacts.retain(|watch, _| watches.contains(watch));
        for watch in watches {
            let why = || "the first list is not complete".to_string();
            if !contacts.contains_key(watch) {
                unknown.insert(watch.clone(), why());
                contacts.insert(watch.clone(), Instant::now());
            }
        }
    }

    /// Keeps the jobs of a watch current while it is polled.
    pub(super) async fn follow(self: Arc<Self>, of: Watch, client: Client) {
        let jobs: Api<WatchedJob> = match &of.scope {
            Some(namespace) => Api::namespaced_with(client, namespace, &of.kind),
            None => Api::all_with(client, &of.kind),
        };
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut events = watch(jobs, config)
            .modify(|WatchedJob(job)| trim(job))
            .default_backoff()
            .boxed();
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(WatchedJob(job))) => {
                    listed.insert(key(&job), self.completed(job));
                }
                Ok(Event::InitDone) => self.replace(&of, std::mem::take(&mut listed)),
                Ok(Event::Apply(WatchedJob(job))) => self.store(job),
                Ok(Event::Delete(WatchedJob(job))) => self.forget(&job),
                Err(error) => self.interrupted(&of, &error.into()),
            }
        }
    }

    fn replace(&self, of: &Watch, listed: BTreeMap<Key, Arc<ObservedJob>>) {
        let namespace = of.scope.as_deref().unwrap_or("all of them");
        let kind = of.kind.name();
        info!(namespace, kind, jobs = listed.len(), "job cache synced");
        let mut jobs = self.jobs_mut();
        let before = jobs.take(|job| of.has(job));
        self.publish_differences(&before, &listed, of);
        for (_, job) in listed {
            jobs.insert(job);
        }
        drop(jobs);
        self.unknown().remove(of);
    }

    /// The jobs of a watch that have changed while the watch was interrupted.
    fn publish_differences(
        &self,
        before: &BTreeMap<Key, Arc<ObservedJob>>,
        listed: &BTreeMap<Key, Arc<ObservedJob>>,
        of: &Watch,
    ) {
        for (key, job) in listed {
            self.changes
                .publish(before.get(key).map(AsRef::as_ref), job);
        }
        for (_, gone) in before.iter().filter(|(key, _)| !listed.contains_key(*key)) {
            self.changes.publish_deletion(gone);
        }
        // A job that was read from the API server itself may have been in neither.
        let followed = self.changes.followed_jobs();
        for job in followed.iter().filter(|job| of.has(job)) {
            if !listed.contains_key(&key(job)) {
                self.changes.publish_deletion(job);
            }
        }
    }

    /// The changes of all jobs.
    pub(super) fn feed(&self) -> &Arc<Feed> {
        self.changes.feed()
    }

    /// The current state of a job, and its changes.
    pub(super) fn watch_job(&self, job: Arc<ObservedJob>) -> JobWatch {
        let jobs = self.jobs();
        // A read may be older than what the watch has reported since.
        let job = jobs.get(&key(&job)).cloned().unwrap_or(job);
        self.changes.follow(job)
    }

    /// Handles the end of a watch. The cache is kept, and the watch resumes at its last position.
    fn interrupted(&self, of: &Watch, error: &CallError) {
        let namespace = of.scope.as_deref().unwrap_or("all of them");
        let cause = error as &dyn std::error::Error;
        warn!(namespace, cause, "the watch of jobs was interrupted");
        self.waits(of, error);
    }

    /// Records why a watch is not synced yet.
    pub(super) fn waits(&self, of: &Watch, why: &dyn std::error::Error) {
        if let Some(known) = self.unknown().get_mut(of) {
            *known = chain(why);
        }
    }

    /// A job of a namespace, of either kind.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<ObservedJob>> {
        self.jobs().named(namespace, name).cloned()
    }

    /// All jobs with a name, in any namespace.
    pub(super) fn named(&self, name: &str) -> Vec<Arc<ObservedJob>> {
        self.jobs().of_name(name).cloned().collect()
    }

    /// The newest jobs of every watched namespace, or those after a position.
    pub(super) fn after(
        &self,
        position: Option<&JobPosition>,
        limit: usize,
    ) -> Vec<Arc<ObservedJob>> {
        let jobs = self.jobs();
        jobs.after(position).take(limit).cloned().collect()
    }

    /// Another job that writes to a prefix.
    pub(super) fn writer(
        &self,
        prefix: &Prefix,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<ObservedJob>> {
        self.jobs().writer(prefix, namespace, name).cloned()
    }

    /// Stores a job that the watch reports.
    pub(super) fn store(&self, job: ObservedJob) {
        let mut job = self.completed(job);
        let mut jobs = self.jobs_mut();
        if let Some(before) = jobs.get(&key(&job)) {
            keep_end(before, &mut job);
        }
        let before = jobs.insert(job.clone());
        self.changes.publish(before.as_deref(), &job);
    }

    /// A job, completed with the state that only its pods show.
    fn completed(&self, mut job: ObservedJob) -> Arc<ObservedJob> {
        self.add_failures_to(&mut job);
        if job.kind == JobKind::TrainJob
            && let Some(started) = self.masters_mut().get(&Controller::of(&job))
        {
            job.set_master_active(started.clone());
        }
        Arc::new(job)
    }

    /// Forgets which masters of a scope run. The list of pods that follows shows it.
    pub(super) fn forget_masters(&self, scope: &Scope) {
        let mut masters = self.masters_mut();
        masters.retain(|job, _| scope.as_ref().is_some_and(|of| *of != job.namespace));
    }

    /// Takes in whether the master of a TrainJob runs.
    pub(super) fn note_master(&self, of: &Controller, pod: MasterPod) {
        let changed = {
            let mut masters = self.masters_mut();
            let before = masters.remove(of);
            match pod {
                MasterPod::Running(started) => {
                    masters.insert(of.clone(), started);
                    before.is_none()
                }
                // The job itself shows that it has ended or restarts.
                MasterPod::NotRunning => false,
            }
        };
        let known = self.get(&of.namespace, &of.name).filter(|_| changed);
        if let Some(known) = known.filter(|known| known.id_of_pods() == of.id) {
            self.store((*known).clone());
        }
    }

    /// Removes a deleted job, unless another job with its name already exists.
    pub(super) fn forget(&self, job: &ObservedJob) {
        let mut jobs = self.jobs_mut();
        let known = jobs.get(&key(job));
        if known.is_some_and(|known| known.metadata.uid == job.metadata.uid) {
            jobs.remove(&key(job));
            self.changes.publish_deletion(job);
        }
    }

    /// Records that the API server has responded to a watch.
    pub(super) fn note_contact(&self, of: &Watch) {
        self.contacts_mut().insert(of.clone(), Instant::now());
    }

    /// How long ago the API server last responded to the watches of each scope.
    pub(super) fn ages(&self) -> BTreeMap<String, Duration> {
        let mut ages = BTreeMap::new();
        for (watch, contact) in self.contacts_mut().iter() {
            let name = watch.scope.clone().unwrap_or_else(|| "*".to_string());
            let age: &mut Duration = ages.entry(name).or_default();
            *age = contact.elapsed().max(*age);
        }
        ages
    }

    /// Why the cache is not synced, if so.
    pub(super) fn not_known(&self) -> Option<String> {
        let unknown = self.unknown();
        let (watch, why) = unknown.first_key_value()?;
        let scope = match &watch.scope {
            Some(namespace) => format!("of namespace {namespace}"),
            None => "of all namespaces".to_string(),
        };
        Some(format!("the job cache {scope} is not synced: {why}"))
    }

    /// Records the latest failure of a replica. Returns whether it is the job's first failure.
    pub(super) fn add_failure(&self, of: &Controller, failed: PodDetails) -> bool {
        let mut failures = self.failures_mut();
        let is_first = !failures.contains_key(of);
        let of_job = failures.entry(of.clone()).or_default();
        of_job.retain(|known| known.replica != failed.replica);
        if of_job.len() < MAX_FAILURES {
            of_job.push(failed);
        }
        is_first
    }

    /// Takes the recorded failures of a job.
    pub(super) fn take_failures(&self, of: &Controller) -> Vec<PodDetails> {
        self.failures_mut().remove(of).unwrap_or_default()
    }

    /// A failed job shows the failures of its replicas immediately, not only after they are
    /// recorded in it.
    fn add_failures_to(&self, job: &mut ObservedJob) {
        let failures = self.failures_mut();
        if failures.is_empty() {
            return;
        }
        let Some(of_job) = failures.get(&Controller::of(job)) else {
            return;
        };
        let annotations = job.metadata.annotations.get_or_insert_default();
        annotations.extend(of_job.iter().map(job::failure_annotation));
    }

    fn failures_mut(&self) -> MutexGuard<'_, BTreeMap<Controller, Vec<PodDetails>>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn masters_mut(&self) -> MutexGuard<'_, BTreeMap<Controller, Option<Time>>> {
        self.masters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> RwLockReadGuard<'_, Jobs> {
        self.jobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs_mut(&self) -> RwLockWriteGuard<'_, Jobs> {
        self.jobs.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown(&self) -> RwLockWriteGuard<'_, BTreeMap<Watch, String>> {
        self.unknown.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn contacts_mut(&self) -> MutexGuard<'_, BTreeMap<Watch, Instant>> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    fn has(&self, job: &ObservedJob) -> bool {
        let is_in = self
            .scope
            .as_deref()
            .is_none_or(|scope| scope == job.namespace());
        is_in && job.kind == self.kind
    }
}

/// Keeps the end of a TrainJob that clients may have seen: Kubeflow Trainer 2.3.0 takes it back and
/// runs the job again if somebody deletes its JobSet (kubeflow/trainer#3779).
fn keep_end(before: &ObservedJob, job: &mut Arc<ObservedJob>) {
    let is_same = before.metadata.uid == job.metadata.uid && job.kind == JobKind::TrainJob;
    if is_same && before.status.has_ended() && !job.status.has_ended() {
        Arc::make_mut(job).status = before.status.clone();
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Removes members that no response needs. With ten thousand jobs they would use most of the
/// memory.
fn trim(job: &mut ObservedJob) {
    let is_train_job = job.kind == JobKind::TrainJob;
    let mut annotations = job.metadata.annotations.take().unwrap_or_default();
    annotations.retain(|key, _| {
        job::is_failure_annotation(key)
            || KEPT_ANNOTATIONS.contains(&key.as_str())
            || (is_train_job && key == SUBMISSION_ANNOTATION)
    });
    job.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
}

#[cfg(test)]
mod tests;
