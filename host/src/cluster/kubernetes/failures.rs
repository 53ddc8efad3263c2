//! What failures of replicas do to their job: a permanent one ends it, and all of them are written into
//! it when it has failed.
//!
//! The kubelet starts a failed container again whatever it exited with, and the operator fails a job when
//! there were as many restarts as its backoff limit. So the limit is taken down to nothing when a restart
//! cannot help: the operator fails the job at the next restart, which the image ends at once. The limit
//! of a TrainJob is in its runtime and stays.
//!
//! When a job reaches its backoff limit, the operator deletes its pods, because most of them are
//! just being restarted (kubeflow/trainer v1.9.4, pkg/controller.v1/common/job.go), and their exit
//! codes are lost. So each failure is recorded in an annotation of the job, where every service can
//! read it as long as the job exists.
//!
//! The watch of pods also reports when the master of a TrainJob runs, which the job itself does not show.
//!
//! Of this nothing is written before the job has failed. The operator deletes the pods first and writes the
//! job's status after that: a write of ours in between is a conflict to it, upon which it finds a job
//! that has neither ended nor pods, and starts them all over again, five times in a run of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use serde_json::Value;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::cache::{Cache, Scope, WATCH_SECONDS};
use super::calls::Calls;
use super::curves::Curves;
use super::error::CallError;
use super::owner::{self, Controller, MasterPod};
use super::pods;
use crate::job::{self, ObservedJob, PodDetails, Restart};
use crate::job_kind::JobKind;
use crate::pytorch_job::ConditionType;

/// Selects the pods of jobs that this service created.
const OWN_PODS: &str = "app.kubernetes.io/managed-by=trainer";

/// Records the failures of a scope while it is polled.
pub(super) async fn keep(
    client: Client,
    calls: Calls,
    cache: Arc<Cache>,
    curves: Arc<Curves>,
    scope: Scope,
) {
    let pods: Api<Pod> = match &scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let config = watcher::Config::default().labels(OWN_PODS);
    let config = config.timeout(WATCH_SECONDS);
    let mut events = watch(pods, config).default_backoff().boxed();
    let mut ends = JoinSet::new();
    // The jobs that are to fail.
    let mut given_up = BTreeSet::new();
    loop {
        tokio::select! {
            Some(event) = events.next() => {
                let Some((job, failure)) = look_at(event, &cache, &scope) else { continue };
                if failure.is_of_master {
                    curves.read_failed(&job);
                }
                let is_useless = failure.restart == Restart::IsUseless;
                let has_limit = job.kind == JobKind::PyTorchJob;
                if is_useless && has_limit && given_up.insert(job.clone()) {
                    tokio::spawn(give_up(calls.clone(), job.clone(), failure.restarts));
                }
                if failure.is_first {
                    ends.spawn(end(calls.clone(), cache.clone(), job));
                }
            }
            Some(Ok((job, failed))) = ends.join_next() => {
                given_up.remove(&job);
                let failures = cache.take_failures(&job);
                if let Some(failed) = failed {
                    write(&calls, &failed, &failures).await;
                }
            }
            else => return,
        }
    }
}

/// A failure of a replica.
struct Failure {
    restart: Restart,
    /// How often the pod was started again.
    restarts: u32,
    /// Whether it is the first one of its job.
    is_first: bool,
    /// Whether the master failed, which writes the metrics.
    is_of_master: bool,
}

/// Processes an event of the watch. Returns the job and its failure, if it is one.
fn look_at(
    event: Result<Event<Pod>, watcher::Error>,
    cache: &Cache,
    scope: &Scope,
) -> Option<(Controller, Failure)> {
    match event {
        // Remaining pods of a job that finished earlier are ignored.
        Ok(Event::InitApply(pod)) if owner::job(&pod).is_some_and(|job| has_ended(cache, &job)) => {
            None
        }
        Ok(Event::InitApply(pod) | Event::Apply(pod)) => take_in(&pod, cache),
        Ok(Event::Delete(pod)) => {
            note_master(&pod, cache, |_| MasterPod::NotRunning);
            None
        }
        Ok(Event::Init) => {
            cache.forget_masters(scope);
            None
        }
        Ok(Event::InitDone) => None,
        Err(error) => {
            let cause = &CallError::from(error) as &dyn std::error::Error;
            warn!(cause, "the watch of pods was interrupted");
            None
        }
    }
}

/// Takes in whether the master of a TrainJob runs.
fn note_master(pod: &Pod, cache: &Cache, state: impl Fn(MasterPod) -> MasterPod) {
    if let (Some(master), Some(job)) = (owner::master(pod), owner::job(pod)) {
        cache.note_master(&job, state(master));
    }
}

fn take_in(pod: &Pod, cache: &Cache) -> Option<(Controller, Failure)> {
    note_master(pod, cache, |master| master);
    let details = pods::details(pod);
    if !details.has_failed() {
        return None;
    }
    let job = owner::job(pod)?;
    let failure = Failure {
        restart: pods::restart(pod),
        restarts: details.restarts,
        is_of_master: owner::is_master(pod),
        is_first: cache.add_failure(&job, details),
    };
    Some((job, failure))
}

/// Has the operator fail a job at its next restart, unless it does so of itself.
async fn give_up(calls: Calls, job: Controller, restarts: u32) {
    let name = &job.name;
    match limit_restarts(&calls, &job, restarts).await {
        Ok(()) => info!(job = name, "a restart cannot fix the failure of a job"),
        Err(error) if error.status().is_some_and(|status| status.is_not_found()) => {}
        Err(error) => {
            let cause = &error as &dyn std::error::Error;
            warn!(
                job = name,
                cause, "a job cannot be kept from useless restarts"
            );
        }
    }
}

async fn limit_restarts(calls: &Calls, job: &Controller, restarts: u32) -> Result<(), CallError> {
    let found: Value = calls.get(job.kind, &job.namespace, &job.name).await?;
    let limit = found["spec"]["runPolicy"]["backoffLimit"].as_u64();
    match limit {
        // The operator is about to write the job's status.
        Some(limit) if limit <= u64::from(restarts) + 1 => Ok(()),
        _ => calls.limit_restarts(job).await,
    }
}

fn has_ended(cache: &Cache, job: &Controller) -> bool {
    let found = cache.get(&job.namespace, &job.name);
    found.is_some_and(|found| is_it(&found, job) && found.status.has_ended())
}

fn is_it(found: &ObservedJob, job: &Controller) -> bool {
    found.kind == job.kind && found.id_of_pods() == job.id
}

/// Waits until a job finishes, and returns it if it failed.
async fn end(
    calls: Calls,
    cache: Arc<Cache>,
    job: Controller,
) -> (Controller, Option<Arc<ObservedJob>>) {
    let found = calls.get::<ObservedJob>(job.kind, &job.namespace, &job.name);
    let found = found.await.ok();
    let Some(found) = found.filter(|found| is_it(found, &job)) else {
        return (job, None);
    };
    let mut watch = cache.watch_job(Arc::new(found));
    let is_over = |seen: &Option<Arc<ObservedJob>>| {
        let still = seen.as_ref().filter(|seen| is_it(seen, &job));
        still.is_none_or(|seen| seen.status.has_ended())
    };
    let seen = watch.wait_for(is_over).await.ok();
    let failed = seen.and_then(|seen| {
        let seen = seen.as_ref().filter(|seen| is_it(seen, &job));
        seen.filter(|seen| has_failed(seen)).cloned()
    });
    (job, failed)
}

fn has_failed(job: &ObservedJob) -> bool {
    job.status.is_true(ConditionType::Failed).is_some()
}

async fn write(calls: &Calls, job: &ObservedJob, failures: &[PodDetails]) {
    let annotations = failures.iter().map(job::failure_annotation).collect();
    if let Err(error) = calls.annotate(job, &annotations).await {
        let cause = &error as &dyn std::error::Error;
        let job = job.name();
        warn!(
            job,
            cause, "cannot record the failures of replicas in the job"
        );
    }
}

/// The pods of a job, including failed pods that are gone, as recorded in the job. The operator may
/// restart a replica while it marks the job as failed; such a pod is ignored.
pub(super) fn remembered(job: &ObservedJob, there: Vec<PodDetails>) -> Vec<PodDetails> {
    let failures = job::failures(job).into_iter();
    let failures = failures.map(|gone| (gone.replica.clone(), gone));
    let mut failures: BTreeMap<String, PodDetails> = failures.collect();
    let mut pods = Vec::new();
    for pod in there {
        if pod.exit_code.is_some() || pod.has_failed() {
            failures.remove(&pod.replica);
        }
        if !failures.contains_key(&pod.replica) {
            pods.push(pod);
        }
    }
    pods.extend(failures.into_values());
    pods
}
