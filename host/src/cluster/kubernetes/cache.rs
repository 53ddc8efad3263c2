//! Caches jobs. A watch for each scope keeps the cache current, so that reads need no calls to the
//! API server.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tracing::{info, warn};

use super::error::CallError;
use super::resource::WatchedJob;
use crate::cluster::Feed;
use crate::cluster::changes::{Changes, JobWatch};
use crate::job::{self, ObservedJob, PodDetails, Prefix};
use crate::keys::{CHECKPOINT_PREFIX_ANNOTATION, HELD_ANNOTATION, MODEL_ID_ANNOTATION};

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

/// By name and then namespace, because lookups are by name.
type Key = (String, String);

/// The cached jobs of all watched namespaces.
#[derive(Debug, Default)]
pub(super) struct Cache {
    jobs: RwLock<BTreeMap<Key, Arc<ObservedJob>>>,
    changes: Changes,
    /// For each scope: why it is not synced, or None if it is.
    unknown: RwLock<BTreeMap<Scope, String>>,
    /// Failures of replicas by the uid of their job, until they are recorded in the job.
    failures: Mutex<BTreeMap<String, Vec<PodDetails>>>,
    /// For each scope: when the API server last responded to its watch, or when the watch started.
    heard: Mutex<BTreeMap<Scope, Instant>>,
}

/// A namespace, or all namespaces.
pub(super) type Scope = Option<String>;

impl Cache {
    /// Creates an empty cache for these scopes.
    pub(super) fn of(scopes: &[Scope]) -> Arc<Self> {
        let cache = Self::default();
        let not_yet = |scope: &Scope| (scope.clone(), "the first list is not complete".to_string());
        cache.unknown().extend(scopes.iter().map(not_yet));
        for scope in scopes {
            cache.heard(scope);
        }
        Arc::new(cache)
    }

    /// Keeps the jobs of a scope current while it is polled.
    pub(super) async fn follow(self: Arc<Self>, scope: Scope, client: Client) {
        let jobs: Api<WatchedJob> = match &scope {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
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
                    listed.insert(key(&job), Arc::new(job));
                }
                Ok(Event::InitDone) => self.replace(&scope, std::mem::take(&mut listed)),
                Ok(Event::Apply(WatchedJob(job))) => self.tell(job),
                Ok(Event::Delete(WatchedJob(job))) => self.forget(&job),
                Err(error) => self.interrupted(&scope, &error.into()),
            }
        }
    }

    fn replace(&self, scope: &Scope, listed: BTreeMap<Key, Arc<ObservedJob>>) {
        let namespace = scope.as_deref().unwrap_or("all of them");
        info!(namespace, jobs = listed.len(), "job cache synced");
        let mut jobs = self.jobs_mut();
        let is_listed = |namespace: &str| scope.as_deref().is_none_or(|scope| scope == namespace);
        let (before, others) = std::mem::take(&mut *jobs)
            .into_iter()
            .partition(|((_, namespace), _)| is_listed(namespace));
        self.tell_differences(&before, &listed, is_listed);
        *jobs = others;
        jobs.extend(listed);
        drop(jobs);
        self.unknown().remove(scope);
    }

    /// What has changed of the jobs of a scope while there was no watch.
    fn tell_differences(
        &self,
        before: &BTreeMap<Key, Arc<ObservedJob>>,
        listed: &BTreeMap<Key, Arc<ObservedJob>>,
        is_listed: impl Fn(&str) -> bool,
    ) {
        for (key, job) in listed {
            self.changes.tell(before.get(key).map(AsRef::as_ref), job);
        }
        for (_, gone) in before.iter().filter(|(key, _)| !listed.contains_key(*key)) {
            self.changes.tell_gone(gone);
        }
        // A job that was read from the API server itself may have been in neither.
        let followed = self.changes.followed_jobs();
        for job in followed.iter().filter(|job| is_listed(job.namespace())) {
            if !listed.contains_key(&key(job)) {
                self.changes.tell_gone(job);
            }
        }
    }

    /// The changes of all jobs.
    pub(super) fn feed(&self) -> &Arc<Feed> {
        self.changes.feed()
    }

    /// The current state of a job, and its changes.
    pub(super) fn sight(&self, job: Arc<ObservedJob>) -> JobWatch {
        let jobs = self.jobs();
        // A read may be older than what the watch has reported since.
        let job = jobs.get(&key(&job)).cloned().unwrap_or(job);
        self.changes.follow(job)
    }

    /// Handles the end of a watch. The cache is kept, and the watch resumes at its last position.
    fn interrupted(&self, scope: &Scope, error: &CallError) {
        let namespace = scope.as_deref().unwrap_or("all of them");
        let cause = error as &dyn std::error::Error;
        warn!(namespace, cause, "the watch of jobs was interrupted");
        let mut unknown = self.unknown();
        if let Some(why) = unknown.get_mut(scope) {
            *why = error.to_string();
        }
    }

    /// A job of a namespace.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<ObservedJob>> {
        let key = (name.to_string(), namespace.to_string());
        self.jobs().get(&key).cloned()
    }

    /// All jobs with a name, in any namespace.
    pub(super) fn named(&self, name: &str) -> Vec<Arc<ObservedJob>> {
        let first = (name.to_string(), String::new());
        let jobs = self.jobs();
        let from = jobs.range((Bound::Included(first), Bound::Unbounded));
        let same = from.take_while(|((of, _), _)| of == name);
        same.map(|(_, job)| job.clone()).collect()
    }

    /// All jobs of a namespace, or of every watched one.
    pub(super) fn all(&self, namespace: Option<&str>) -> Vec<Arc<ObservedJob>> {
        let jobs = self.jobs();
        let jobs = jobs.values();
        jobs.filter(|job| namespace.is_none_or(|namespace| job.namespace() == namespace))
            .cloned()
            .collect()
    }

    /// Another job that writes to a prefix.
    pub(super) fn writer(
        &self,
        prefix: &Prefix,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<ObservedJob>> {
        let jobs = self.jobs();
        let mut jobs = jobs.values();
        jobs.find(|job| prefix.is_taken_by(job, namespace, name))
            .cloned()
    }

    /// Takes in what the watch tells of a job.
    pub(super) fn tell(&self, mut job: ObservedJob) {
        self.add_failures_to(&mut job);
        let job = Arc::new(job);
        let mut jobs = self.jobs_mut();
        let before = jobs.insert(key(&job), job.clone());
        self.changes.tell(before.as_deref(), &job);
    }

    /// Removes a deleted job, unless another job with its name already exists.
    pub(super) fn forget(&self, job: &ObservedJob) {
        let mut jobs = self.jobs_mut();
        let known = jobs.get(&key(job));
        if known.is_some_and(|known| known.metadata.uid == job.metadata.uid) {
            jobs.remove(&key(job));
            self.changes.tell_gone(job);
        }
    }

    /// Records that the API server has responded to the watch of a scope.
    pub(super) fn heard(&self, scope: &Scope) {
        self.heard_mut().insert(scope.clone(), Instant::now());
    }

    /// How long ago the API server last responded to each watch.
    pub(super) fn ages(&self) -> BTreeMap<String, Duration> {
        let name = |scope: &Scope| scope.clone().unwrap_or_else(|| "*".to_string());
        let heard = self.heard_mut();
        heard
            .iter()
            .map(|(scope, heard)| (name(scope), heard.elapsed()))
            .collect()
    }

    /// Why the cache is not synced, if so.
    pub(super) fn not_known(&self) -> Option<String> {
        let unknown = self.unknown();
        let (scope, why) = unknown.first_key_value()?;
        let scope = match scope {
            Some(namespace) => format!("of namespace {namespace}"),
            None => "of all namespaces".to_string(),
        };
        Some(format!("the job cache {scope} is not synced: {why}"))
    }

    /// Records the latest failure of a replica. Returns whether it is the job's first failure.
    pub(super) fn add_failure(&self, uid: &str, failed: PodDetails) -> bool {
        let mut failures = self.failures_mut();
        let is_first = !failures.contains_key(uid);
        let of_job = failures.entry(uid.to_string()).or_default();
        of_job.retain(|known| known.replica != failed.replica);
        if of_job.len() < MAX_FAILURES {
            of_job.push(failed);
        }
        is_first
    }

    /// Takes the recorded failures of a job.
    pub(super) fn take_failures(&self, uid: &str) -> Vec<PodDetails> {
        self.failures_mut().remove(uid).unwrap_or_default()
    }

    /// A failed job shows the failures of its replicas immediately, not only after they are
    /// recorded in it.
    fn add_failures_to(&self, job: &mut ObservedJob) {
        let failures = self.failures_mut();
        let uid = job.metadata.uid.as_ref();
        let Some(of_job) = uid.and_then(|uid| failures.get(uid)) else {
            return;
        };
        let annotations = job.metadata.annotations.get_or_insert_default();
        annotations.extend(of_job.iter().map(job::failure_annotation));
    }

    fn failures_mut(&self) -> MutexGuard<'_, BTreeMap<String, Vec<PodDetails>>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Arc<ObservedJob>>> {
        self.jobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, Arc<ObservedJob>>> {
        self.jobs.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown(&self) -> RwLockWriteGuard<'_, BTreeMap<Scope, String>> {
        self.unknown.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard_mut(&self) -> MutexGuard<'_, BTreeMap<Scope, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(job: &ObservedJob) -> Key {
    (job.name().to_string(), job.namespace().to_string())
}

/// Removes members that no response needs. With ten thousand jobs they would use most of the
/// memory.
fn trim(job: &mut ObservedJob) {
    let mut annotations = job.metadata.annotations.take().unwrap_or_default();
    annotations.retain(|key, _| {
        job::is_failure_annotation(key) || KEPT_ANNOTATIONS.contains(&key.as_str())
    });
    job.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{FeedPosition, News};
    use serde_json::json;

    fn job(namespace: &str, name: &str, suspend: bool) -> Arc<ObservedJob> {
        let job = json!({
            "metadata": {"name": name, "namespace": namespace, "uid": name},
            "spec": {"runPolicy": {"suspend": suspend}},
        });
        Arc::new(serde_json::from_value(job).unwrap())
    }

    fn listed(jobs: &[Arc<ObservedJob>]) -> BTreeMap<Key, Arc<ObservedJob>> {
        jobs.iter().map(|job| (key(job), job.clone())).collect()
    }

    fn news(cache: &Cache, since: &FeedPosition) -> Vec<String> {
        let changes = cache.feed().after(since).unwrap();
        let news = changes.iter().map(|change| match &change.news {
            News::Status(update) => format!("{} is there", update.job.summary.name),
            News::Progress(progress) => format!("{} advances", progress.name),
            News::Deleted(job) => format!("{} is gone", job.name),
        });
        news.collect()
    }

    #[test]
    fn the_feed_has_what_differs_between_two_lists_of_a_scope() {
        let scope = Some("a".to_string());
        let cache = Cache::of(&[scope.clone(), Some("b".to_string())]);
        let other = job("b", "other", false);
        cache.replace(&Some("b".to_string()), listed(&[other]));
        let begin = cache.feed().end();
        let (one, two) = (job("a", "one", false), job("a", "two", false));
        cache.replace(&scope, listed(&[one, two.clone()]));
        assert_eq!(news(&cache, &begin), ["one is there", "two is there"]);
        let begin = cache.feed().end();
        cache.replace(&scope, listed(&[two.clone(), job("a", "new", true)]));
        assert_eq!(news(&cache, &begin), ["new is there", "one is gone"]);
        let begin = cache.feed().end();
        cache.forget(&two);
        assert_eq!(news(&cache, &begin), ["two is gone"]);
        assert_eq!(cache.all(None).len(), 2);
    }
}
