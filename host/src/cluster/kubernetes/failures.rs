//! How replicas failed, written into the job when it has failed.
//!
//! The operator deletes the pods of a job that reaches its backoff limit, for most of them are being
//! started again at that moment (kubeflow/trainer v1.9.4, pkg/controller.v1/common/job.go), and with
//! them goes the exit code. So each is kept in an annotation of the job: it is there for whichever
//! service is asked, for as long as the job.
//!
//! Nothing is written before the job has failed. The operator deletes the pods first and writes the
//! job's status after that: a write of ours in between is a conflict to it, upon which it finds a job
//! that has neither ended nor pods, and starts them all over again, five times in a run of the tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tokio::task::JoinSet;
use tracing::warn;

use super::cache::{Cache, Scope, WATCH_SECONDS};
use super::calls::Calls;
use super::fault::CallError;
use super::pods;
use crate::job::{ConditionType, ObservedJob, PodDetails};

/// Own annotations: how the replica of this name failed last, as JSON.
const FAILURE_ANNOTATION_PREFIX: &str = "trainer.deepfinery/failure.";
/// The pods of jobs that this host made.
const OWN_PODS: &str = "app.kubernetes.io/managed-by=trainer";
/// Most replicas of a job whose failures are kept. They share one cause more often than not.
const MAX_REPLICAS: usize = 16;

/// A job's namespace and name.
type Job = (String, String);

/// Keeps the failures of a scope for as long as it is polled.
pub(super) async fn keep(client: Client, calls: Calls, cache: Arc<Cache>, scope: Scope) {
    let pods: Api<Pod> = match &scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let config = watcher::Config::default().labels(OWN_PODS);
    let config = config.timeout(WATCH_SECONDS);
    let mut events = watch(pods, config).default_backoff().boxed();
    let mut seen = Seen::default();
    let mut ends = JoinSet::new();
    loop {
        tokio::select! {
            Some(event) = events.next() => {
                let job = seen.look_at(event, &cache);
                let end = job.map(|job| end(calls.clone(), cache.clone(), job));
                end.map(|end| ends.spawn(end));
            }
            Some(Ok((job, failed))) = ends.join_next() => {
                let failures = seen.failures.remove(&job).unwrap_or_default();
                if failed {
                    write(&calls, &job, &failures).await;
                }
            }
            else => return,
        }
    }
}

/// How replicas failed, of each job that has not ended since.
#[derive(Default)]
struct Seen {
    failures: BTreeMap<Job, BTreeMap<String, PodDetails>>,
}

impl Seen {
    /// Takes in what the watch tells. Gives a job whose first failure it is.
    fn look_at(&mut self, event: Result<Event<Pod>, watcher::Error>, cache: &Cache) -> Option<Job> {
        match event {
            // The pods that are still there of a job that ended some time ago stay.
            Ok(Event::InitApply(pod))
                if pods::job(&pod).is_some_and(|job| has_ended(cache, &job)) =>
            {
                None
            }
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => self.take_in(&pod),
            Ok(Event::Delete(_) | Event::Init | Event::InitDone) => None,
            Err(error) => {
                let cause = &CallError::from(error) as &dyn std::error::Error;
                warn!(cause, "the watch of pods was interrupted");
                None
            }
        }
    }

    fn take_in(&mut self, pod: &Pod) -> Option<Job> {
        let details = pods::details(pod);
        if details.exit_code.is_none_or(|code| code == 0) {
            return None;
        }
        let job = pods::job(pod)?;
        let is_first = !self.failures.contains_key(&job);
        let replicas = self.failures.entry(job.clone()).or_default();
        if replicas.len() < MAX_REPLICAS || replicas.contains_key(&details.replica) {
            replicas.insert(details.replica.clone(), details);
        }
        is_first.then_some(job)
    }
}

fn has_ended(cache: &Cache, (namespace, name): &Job) -> bool {
    let job = cache.get(namespace, name);
    job.is_some_and(|job| job.status.has_ended())
}

/// Waits for the end of a job, and tells whether it has failed.
async fn end(calls: Calls, cache: Arc<Cache>, job: Job) -> (Job, bool) {
    let (namespace, name) = &job;
    let Ok(found) = calls.get::<ObservedJob>(namespace, name).await else {
        return (job, false);
    };
    let mut sight = cache.sight(Arc::new(found));
    let end = sight.wait_for(|job| job.as_ref().is_none_or(|job| job.status.has_ended()));
    let failed = end
        .await
        .is_ok_and(|job| job.as_ref().is_some_and(|job| has_failed(job)));
    (job, failed)
}

fn has_failed(job: &ObservedJob) -> bool {
    job.status.is_true(ConditionType::Failed).is_some()
}

async fn write(calls: &Calls, (namespace, name): &Job, failures: &BTreeMap<String, PodDetails>) {
    let annotation = |(replica, details)| {
        let value = serde_json::to_string(details).unwrap_or_default();
        (format!("{FAILURE_ANNOTATION_PREFIX}{replica}"), value)
    };
    let annotations = failures.iter().map(annotation).collect();
    if let Err(error) = calls.annotate(namespace, name, &annotations).await {
        let cause = &error as &dyn std::error::Error;
        warn!(
            job = name,
            cause, "how its replicas failed cannot be kept in the job"
        );
    }
}

/// The pods of a job, those that failed and are gone as the job remembers them. The operator may start
/// a replica once more while it writes that the job has failed: such a pod tells nothing.
pub(super) fn remembered(job: &ObservedJob, there: Vec<PodDetails>) -> Vec<PodDetails> {
    let annotations = job.metadata.annotations.iter().flatten();
    let failures = annotations.filter(|(key, _)| key.starts_with(FAILURE_ANNOTATION_PREFIX));
    let failures = failures.filter_map(|(_, value)| serde_json::from_str(value).ok());
    let failures = failures.map(|gone: PodDetails| (gone.replica.clone(), gone));
    let mut failures: BTreeMap<String, PodDetails> = failures.collect();
    let mut pods = Vec::new();
    for pod in there {
        if pod.exit_code.is_some() {
            failures.remove(&pod.replica);
        }
        if !failures.contains_key(&pod.replica) {
            pods.push(pod);
        }
    }
    let gone = failures.into_values().map(|gone| PodDetails {
        phase: "Failed".to_string(),
        ..gone
    });
    pods.extend(gone);
    pods
}
