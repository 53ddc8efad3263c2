//! How replicas failed, written into the job while their pods are there.
//!
//! The operator deletes the pods of a job that reaches its backoff limit, for most of them are being
//! started again at that moment (kubeflow/trainer v1.9.4, pkg/controller.v1/common/job.go), and with
//! them goes the exit code. So each is kept in an annotation of the job: it is there for whichever
//! service is asked, for as long as the job.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tracing::warn;

use super::cache::{Scope, WATCH_SECONDS};
use super::calls::Calls;
use super::fault::CallError;
use super::pods;
use crate::job::{ObservedJob, PodDetails};

/// Own annotations: how the replica of this name failed last, as JSON.
const FAILURE_ANNOTATION_PREFIX: &str = "trainer.deepfinery/failure.";
/// The pods of jobs that this host made.
const OWN_PODS: &str = "app.kubernetes.io/managed-by=trainer";
/// Most replicas of a job whose failures are kept. They share one cause more often than not.
const MAX_REPLICAS: usize = 16;

/// What has been kept already, so that nothing is written twice.
#[derive(Default)]
struct Kept {
    /// By the pod's uid: how often its container had been started again.
    pods: BTreeMap<String, u32>,
    /// By the job's namespace and name.
    replicas: BTreeMap<(String, String), BTreeSet<String>>,
}

/// Keeps the failures of a scope for as long as it is polled.
pub(super) async fn keep(client: Client, calls: Calls, scope: Scope) {
    let pods: Api<Pod> = match &scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let config = watcher::Config::default().labels(OWN_PODS);
    let config = config.timeout(WATCH_SECONDS);
    let mut events = watch(pods, config).default_backoff().boxed();
    let mut kept = Kept::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => kept.look_at(&pod, &calls).await,
            Ok(Event::Delete(pod)) => kept.forget(&pod),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                let cause = &CallError::from(error) as &dyn std::error::Error;
                warn!(cause, "the watch of pods was interrupted");
            }
        }
    }
}

impl Kept {
    async fn look_at(&mut self, pod: &Pod, calls: &Calls) {
        let details = pods::details(pod);
        let (Some(job), true) = (pods::job(pod), details.exit_code.is_some_and(|c| c != 0)) else {
            return;
        };
        if !self.is_news(pod, &job, &details) {
            return;
        }
        let (namespace, name) = job;
        let key = format!("{FAILURE_ANNOTATION_PREFIX}{}", details.replica);
        let value = serde_json::to_string(&details).unwrap_or_default();
        if let Err(error) = calls.annotate(&namespace, &name, &key, &value).await {
            let cause = &error as &dyn std::error::Error;
            warn!(
                job = name,
                cause, "how a replica failed cannot be kept in its job"
            );
        }
    }

    fn is_news(&mut self, pod: &Pod, job: &(String, String), details: &PodDetails) -> bool {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if self.pods.get(&uid) == Some(&details.restarts) {
            return false;
        }
        self.pods.insert(uid, details.restarts);
        let replicas = self.replicas.entry(job.clone()).or_default();
        replicas.contains(&details.replica)
            || (replicas.len() < MAX_REPLICAS && replicas.insert(details.replica.clone()))
    }

    fn forget(&mut self, pod: &Pod) {
        if let Some(uid) = &pod.metadata.uid {
            self.pods.remove(uid);
        }
        if let Some(job) = pods::job(pod) {
            self.replicas.remove(&job);
        }
    }
}

/// The failures that a job remembers of pods that are gone.
pub(super) fn of_gone(job: &ObservedJob, there: &[PodDetails]) -> Vec<PodDetails> {
    let annotations = job.metadata.annotations.iter().flatten();
    let failures = annotations.filter(|(key, _)| key.starts_with(FAILURE_ANNOTATION_PREFIX));
    let failures = failures.filter_map(|(_, value)| serde_json::from_str(value).ok());
    failures
        .filter(|gone: &PodDetails| there.iter().all(|pod| pod.replica != gone.replica))
        .map(|gone| PodDetails {
            phase: "Failed".to_string(),
            ..gone
        })
        .collect()
}
