//! Runs jobs on Kubernetes, as PyTorchJobs with the Kubeflow training operator or as TrainJobs with
//! Kubeflow Trainer.
//!
//! Writes are calls to the API server. Reads come from a [`cache`] that a watch keeps current, with
//! a live read for a job that is not in it. No other state is kept: the object in the cluster is the
//! only record.

mod cache;
mod calls;
mod creation;
mod curves;
mod error;
mod failures;
mod kinds;
mod log;
mod measured;
mod owner;
mod pods;
mod prefixes;
mod queues;
mod readiness;
mod resource;
mod resume;
mod settings;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kube::config::KubeConfigOptions;
use kube::core::Status;
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::warn;

use super::{Cluster, ClusterError, Created, Feed, JobWatch, LogStream, RunState, WritingJob};
use crate::job::{
    Inspection, JobEvent, JobPosition, LogSelection, Metrics, ObservedJob, PodDetails, Submission,
};
use crate::job_kind::JobKind;
use crate::keys::IDEMPOTENCY_LABEL;
use crate::metadata::{check_namespace, is_dns_subdomain};
use crate::pytorch_job::PyTorchJob;
use crate::request::AllowedNamespaces;
use cache::Cache;
use calls::{Calls, CreateMode};
use curves::Curves;
use error::CallError;
use kinds::Kinds;
use owner::Controller;
use prefixes::Creations;
pub use settings::KubernetesSettings;
use watches::Watches;

/// The maximum number of pods whose events are read per response. Failing pods come first.
const MAX_PODS_WITH_EVENTS: usize = 8;

/// A Kubernetes cluster.
pub struct KubernetesCluster {
    calls: Calls,
    cache: Arc<Cache>,
    creations: Creations,
    curves: Arc<Curves>,
    kinds: Kinds,
    runtimes: Vec<String>,
    /// They end when the cluster is dropped.
    _watches: Watches,
}

impl KubernetesCluster {
    /// Starts watching the cluster, which need not be reachable yet.
    ///
    /// # Errors
    ///
    /// If there is no configuration for a cluster.
    pub async fn connect(settings: KubernetesSettings) -> Result<Self, ClusterError> {
        let configuration = match settings.context {
            Some(context) => {
                let options = KubeConfigOptions {
                    context: Some(context),
                    ..KubeConfigOptions::default()
                };
                Config::from_kubeconfig(&options).await.map_err(unusable)?
            }
            None => Config::infer().await.map_err(unusable)?,
        };
        // The HTTP client must not retry creations by itself.
        let mut once = configuration.clone();
        once.default_retry = false;
        let scopes = match &settings.namespaces {
            AllowedNamespaces::All => vec![None],
            AllowedNamespaces::Only(names) => {
                let home = BTreeSet::from([settings.default_namespace.clone()]);
                names.union(&home).cloned().map(Some).collect()
            }
        };
        let kinds = Kinds::new(settings.job_kind);
        let (cache, watches) = Watches::start(scopes, &kinds, &configuration, &once)?;
        let calls = Calls::new(Client::try_from(once).map_err(unusable)?);
        Ok(Self {
            curves: Curves::new(calls.clone(), cache.clone()),
            calls,
            cache,
            creations: Creations::default(),
            kinds,
            runtimes: settings.runtimes,
            _watches: watches,
        })
    }

    /// The client of the API server, for reviews of tokens.
    pub fn client(&self) -> Client {
        self.calls.client().clone()
    }

    /// A job as read from the API server now, of whichever kind it is.
    async fn live<T: DeserializeOwned>(&self, namespace: &str, name: &str) -> Result<T, CallError> {
        let kinds = self.kinds.read();
        let (last, others) = kinds.split_last().unwrap_or((&JobKind::PyTorchJob, &[]));
        for kind in others {
            match self.calls.get(*kind, namespace, name).await {
                Err(error) if error.status().is_some_and(Status::is_not_found) => {}
                found => return found,
            }
        }
        self.calls.get(*last, namespace, name).await
    }

    /// A job from the cache. Name and namespace become parts of a path, so they are checked.
    fn cached(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ObservedJob>>, ClusterError> {
        match is_dns_subdomain(name) && check_namespace(namespace).is_ok() {
            true => Ok(self.cache.get(namespace, name)),
            false => Err(not_found(name)),
        }
    }

    /// The pods of a job, and the events of the job and of failing pods. What cannot be read is
    /// reported as a note.
    async fn surroundings(
        &self,
        job: &ObservedJob,
    ) -> (Vec<PodDetails>, Vec<JobEvent>, Vec<String>) {
        let namespace = job.namespace();
        let mut notes = Vec::new();
        let listed = self.calls.pods(&Controller::of(job)).await;
        let pods_there = noted("pods", listed, &mut notes);
        let there = pods_there.iter().map(pods::details).collect();
        let mut pods = failures::remembered(job, there);
        pods.sort_by(|one, other| natural(&one.replica).cmp(&natural(&other.replica)));
        let mut events = Vec::new();
        for (kind, name) in owner::objects(job) {
            let of_object = self.calls.events(namespace, kind, &name).await;
            events.extend(noted("events", of_object, &mut notes));
        }
        let troubled = pods.iter().filter(|pod| pod.reason.is_some());
        for pod in troubled.take(MAX_PODS_WITH_EVENTS) {
            let of_pod = self.calls.events(namespace, "Pod", &pod.name).await;
            events.extend(noted("events", of_pod, &mut notes));
        }
        let events = events.into_iter();
        let events = events.filter(|event| pods::is_about(event, job, &pods_there));
        let mut events: Vec<JobEvent> = events.map(pods::event).collect();
        events.sort_by(|one, other| one.time.cmp(&other.time));
        notes.dedup();
        (pods, events, notes)
    }
}

#[async_trait]
impl Cluster for KubernetesCluster {
    async fn create(&self, job: PyTorchJob) -> Result<Created, ClusterError> {
        self.submit(job, CreateMode::Create).await
    }

    async fn try_create(&self, job: PyTorchJob) -> Result<Created, ClusterError> {
        self.submit(job, CreateMode::DryRun).await
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Arc<ObservedJob>, ClusterError> {
        if let Some(job) = self.cached(namespace, name)? {
            return Ok(job);
        }
        let live = self.live(namespace, name).await;
        live.map(Arc::new)
            .map_err(|error| missing(error, name, "reading the job"))
    }

    async fn inspect(&self, namespace: &str, name: &str) -> Result<Inspection, ClusterError> {
        self.cached(namespace, name)?;
        // The cache does not contain all members of this response.
        let mut job: ObservedJob = self
            .live(namespace, name)
            .await
            .map_err(|error| missing(error, name, "reading the job"))?;
        let (pods, events, notes) = self.surroundings(&job).await;
        job.count_pods(&pods);
        let queue = self.queue_of(&job).await;
        Ok(Inspection {
            job,
            pods,
            events,
            notes,
            queue,
        })
    }

    async fn manifest(&self, namespace: &str, name: &str) -> Result<Value, ClusterError> {
        self.cached(namespace, name)?;
        let mut manifest: Value = self
            .live(namespace, name)
            .await
            .map_err(|error| missing(error, name, "reading the job"))?;
        // Managed fields, which are larger than the job itself.
        if let Some(metadata) = manifest["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        Ok(manifest)
    }

    fn list_after(
        &self,
        position: Option<&JobPosition>,
        limit: usize,
    ) -> Result<Vec<Arc<ObservedJob>>, ClusterError> {
        match self.cache.not_known() {
            Some(why) => Err(ClusterError::Unavailable {
                action: "listing the jobs",
                source: why.into(),
            }),
            None => Ok(self.cache.after(position, limit)),
        }
    }

    fn namespaces_of(&self, name: &str, is_visible: &dyn Fn(&str) -> bool) -> Vec<String> {
        let named = self.cache.named(name);
        let namespaces = named.iter().map(|job| job.namespace());
        let visible = namespaces.filter(|namespace| is_visible(namespace));
        let mut namespaces: Vec<String> = visible.map(str::to_string).collect();
        // One namespace may have a job of each kind.
        namespaces.dedup();
        namespaces
    }

    async fn delete(&self, namespace: &str, name: &str) -> Result<(), ClusterError> {
        let cached = self.cached(namespace, name)?;
        let kind = match &cached {
            Some(job) => job.kind,
            None => self.get(namespace, name).await?.kind,
        };
        self.calls
            .delete(kind, namespace, name)
            .await
            .map_err(|error| missing(error, name, "deleting the job"))?;
        self.creations.forget(&WritingJob::new(namespace, name));
        // A read after a delete must not return the deleted job.
        if let Some(job) = cached {
            self.cache.forget(&job);
        }
        Ok(())
    }

    async fn set_running(
        &self,
        namespace: &str,
        name: &str,
        state: RunState,
    ) -> Result<Arc<ObservedJob>, ClusterError> {
        let job = self.get(namespace, name).await?;
        if job.status.has_ended() {
            let name = name.to_string();
            return Err(ClusterError::Ended { name });
        }
        if state == RunState::Suspend {
            self.curves.keep_suspended(&job).await;
        }
        if let Some(queued) = self.set_running_in_queue(&job, state).await? {
            return Ok(Arc::new(queued));
        }
        match self.calls.set_running(&job, state).await {
            Ok(changed) => Ok(Arc::new(changed)),
            Err(error) => match self.lost_runtime(&job).await {
                Some(lost) => Err(lost),
                None => Err(missing(error, name, "updating the job")),
            },
        }
    }

    async fn follow(&self, namespace: &str, name: &str) -> Result<JobWatch, ClusterError> {
        let job = self.get(namespace, name).await?;
        Ok(self.cache.watch_job(job))
    }

    fn feed(&self) -> &Arc<Feed> {
        self.cache.feed()
    }

    async fn log(
        &self,
        job: &ObservedJob,
        replica: &str,
        selection: &LogSelection,
    ) -> Result<LogStream, ClusterError> {
        let watch = self.follow(job.namespace(), job.name()).await?;
        log::open_from(&self.calls, job, replica, selection, watch).await
    }

    async fn kept_metrics(&self, job: &ObservedJob) -> Result<Metrics, ClusterError> {
        let kept = self.curves.kept(job).await;
        kept.map_err(|error| missing(error, job.name(), "reading the metrics of the job"))
    }

    async fn submitted(
        &self,
        namespace: &str,
        submission: &Submission,
    ) -> Result<Option<Created>, ClusterError> {
        let (label, key) = (IDEMPOTENCY_LABEL, &submission.key_hash);
        for kind in self.kinds.read() {
            let jobs = self.calls.labelled(kind, namespace, label, key).await;
            let mut jobs =
                jobs.map_err(|error| error.doing("looking for an earlier submission"))?;
            if let Some(job) = jobs.pop() {
                let warnings = Vec::new();
                return Ok(Some(Created { job, warnings }));
            }
        }
        Ok(None)
    }

    fn job_kind(&self) -> JobKind {
        self.kinds.created().unwrap_or_default()
    }

    async fn ready(&self) -> Result<String, ClusterError> {
        if let Some(why) = self.cache.not_known() {
            return Err(ClusterError::Unavailable {
                action: "reading the jobs of the cluster",
                source: why.into(),
            });
        }
        let probed = self.calls.probe().await;
        probed.map_err(|error| error.doing("reading the version of the API server"))?;
        self.kinds_and_runtimes().await
    }

    fn watch_ages(&self) -> BTreeMap<String, Duration> {
        self.cache.ages()
    }

    async fn shut_down(&self) {}
}

/// The error for a configuration that cannot be used.
fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClusterError {
    let action = "reading the configuration of the Kubernetes cluster";
    ClusterError::internal(action, error)
}

/// The result of a read, or a note about its failure.
fn noted<T>(what: &str, read: Result<Vec<T>, CallError>, notes: &mut Vec<String>) -> Vec<T> {
    read.unwrap_or_else(|error| {
        let cause = &error as &dyn std::error::Error;
        warn!(what, cause, "the details of a job are incomplete");
        notes.push(format!(
            "The service cannot currently read the {what} of the job."
        ));
        Vec::new()
    })
}

/// Sort key of a replica: type and index, so that `worker-10` comes after `worker-2`.
fn natural(replica: &str) -> (&str, u32) {
    let (kind, index) = replica.rsplit_once('-').unwrap_or((replica, ""));
    (kind, index.parse().unwrap_or(0))
}

fn missing(error: CallError, name: &str, action: &'static str) -> ClusterError {
    match error.status() {
        Some(status) if status.is_not_found() => not_found(name),
        _ => error.doing(action),
    }
}

fn not_found(name: &str) -> ClusterError {
    let name = name.to_string();
    ClusterError::NotFound { name }
}
