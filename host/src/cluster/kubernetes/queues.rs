//! Kueue: reads the place of a job in its queue, and suspends and resumes a queued job.
//!
//! A queued job is suspended through its Workload, because Kueue starts every job that has quota and
//! suspends every one that has none.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::core::ObjectList;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::warn;

use super::KubernetesCluster;
use super::calls::Calls;
use super::error::CallError;
use crate::cluster::{ClusterError, RunState};
use crate::job::ObservedJob;
use crate::job::queue::{
    self, ClusterQueue, KIND_IS_NOT_MANAGED, LocalQueue, LocalQueues, QueueReading, Queueing,
    Workload,
};
use crate::keys::HELD_ANNOTATION;

const GROUP: &str = "kueue.x-k8s.io";
/// The version that this code is written for. Its members that are read are those of v1beta1.
const VERSION: &str = "v1beta2";
/// Kueue's label of a Workload: the uid of its job.
const JOB_UID_LABEL: &str = "kueue.x-k8s.io/job-uid";
/// The maximum number of Workloads that are read to find a position.
const MAX_WORKLOADS: usize = 500;
/// How often and when to look again for the Workload of a job that was just created.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The longest time that a submission waits for warnings about its queue.
const WARNING_TIME: Duration = Duration::from_secs(2);

/// Kueue, as the API server serves it.
struct Kueue<'a> {
    calls: &'a Calls,
    version: String,
}

impl<'a> Kueue<'a> {
    /// None if the API server does not serve Kueue's objects.
    async fn find(calls: &'a Calls) -> Result<Option<Self>, CallError> {
        let group: APIGroup = match calls.read(&format!("/apis/{GROUP}")).await {
            Ok(group) => group,
            Err(error) if error.status().is_some_and(|status| status.code == 404) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let served = group
            .versions
            .iter()
            .any(|served| served.version == VERSION);
        let version = match (served, group.preferred_version) {
            (false, Some(preferred)) => preferred.version,
            _ => VERSION.to_string(),
        };
        Ok(Some(Self { calls, version }))
    }

    fn path(&self, namespace: &str, plural: &str) -> String {
        let version = &self.version;
        format!("/apis/{GROUP}/{version}/namespaces/{namespace}/{plural}")
    }

    async fn list<T: DeserializeOwned + Clone>(
        &self,
        namespace: &str,
        plural: &str,
        query: &str,
    ) -> Result<ObjectList<T>, CallError> {
        let path = self.path(namespace, plural);
        self.calls.read(&format!("{path}?{query}")).await
    }

    /// The Workload of a job.
    async fn workload(&self, job: &ObservedJob) -> Result<Option<Workload>, CallError> {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let query = format!("labelSelector={JOB_UID_LABEL}%3D{uid}");
        let listed: ObjectList<Workload> = self.list(job.namespace(), "workloads", &query).await?;
        let mut workloads = listed.items.into_iter();
        Ok(workloads.find(|workload| workload.is_of(uid)))
    }

    /// The Workloads of a namespace, unless there are very many.
    async fn workloads(&self, namespace: &str) -> Result<Option<Vec<Workload>>, CallError> {
        let query = format!("limit={MAX_WORKLOADS}");
        let listed: ObjectList<Workload> = self.list(namespace, "workloads", &query).await?;
        let more = listed.metadata.continue_.unwrap_or_default();
        Ok(more.is_empty().then_some(listed.items))
    }

    async fn local_queues(&self, namespace: &str, name: &str) -> Result<LocalQueues, CallError> {
        let listed: ObjectList<LocalQueue> = self.list(namespace, "localqueues", "").await?;
        let queues = listed.items;
        if let Some(found) = queues.iter().find(|queue| queue.metadata.name == name) {
            return Ok(LocalQueues::Found(found.clone()));
        }
        let known = queues.into_iter().map(|queue| queue.metadata.name);
        Ok(LocalQueues::Missing {
            known: known.collect(),
        })
    }

    /// The quotas of a queue. None where they cannot be read: a right to read objects of the whole
    /// cluster is not a matter of course.
    async fn cluster_queue(&self, queues: &LocalQueues) -> Option<ClusterQueue> {
        let LocalQueues::Found(queue) = queues else {
            return None;
        };
        let version = &self.version;
        let name = &queue.spec.cluster_queue;
        let path = format!("/apis/{GROUP}/{version}/clusterqueues/{name}");
        self.calls.read(&path).await.ok()
    }

    async fn queueing(&self, job: &ObservedJob) -> Result<Queueing, CallError> {
        let Some(name) = queue::queue_of(job) else {
            return Ok(Queueing::default());
        };
        let workload = self.workload(job).await?;
        let queues = self.local_queues(job.namespace(), name).await;
        let queues = known_or(queues, LocalQueues::Unknown, "local queues");
        let waits = workload.as_ref().is_some_and(Workload::is_waiting);
        let (workloads, cluster_queue) = match waits {
            true => (
                known_or(self.workloads(job.namespace()).await, None, "workloads"),
                self.cluster_queue(&queues).await,
            ),
            false => (None, None),
        };
        Ok(Queueing {
            workload,
            workloads,
            queue: queues,
            cluster_queue,
            preemptor: None,
        })
    }

    async fn set_active(
        &self,
        namespace: &str,
        workload: &str,
        state: RunState,
    ) -> Result<(), CallError> {
        let path = format!("{}/{workload}", self.path(namespace, "workloads"));
        let patch = json!({"spec": {"active": state == RunState::Resume}});
        let patched: Value = self.calls.merge(&path, &patch).await?;
        drop(patched);
        Ok(())
    }
}

/// The result of a read, or what stands for one that failed.
fn known_or<T>(read: Result<T, CallError>, otherwise: T, what: &str) -> T {
    read.unwrap_or_else(|error| {
        let cause = &error as &dyn std::error::Error;
        warn!(what, cause, "the queue of a job cannot be read completely");
        otherwise
    })
}

impl KubernetesCluster {
    /// What Kueue knows of a job. None if it names no queue.
    pub(super) async fn queue_of(&self, job: &ObservedJob) -> Option<QueueReading> {
        queue::queue_of(job)?;
        Some(match self.read_queue(job).await {
            Ok(Some(queueing)) => QueueReading::Read(Box::new(queueing)),
            Ok(None) => QueueReading::NotInstalled,
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                warn!(job = job.name(), cause, "the queue of a job cannot be read");
                QueueReading::Unreadable
            }
        })
    }

    async fn read_queue(&self, job: &ObservedJob) -> Result<Option<Queueing>, CallError> {
        let Some(kueue) = Kueue::find(&self.calls).await? else {
            return Ok(None);
        };
        let mut queueing = kueue.queueing(job).await?;
        queueing.preemptor = self.preemptor(job, queueing.workload.as_ref());
        Ok(Some(queueing))
    }

    /// The job for which Kueue has stopped another one. Kueue names it by its uid.
    fn preemptor(&self, job: &ObservedJob, workload: Option<&Workload>) -> Option<String> {
        let message = workload?.preemption()?;
        let jobs = self.cache.after(None, usize::MAX);
        let names = |other: &&std::sync::Arc<ObservedJob>| {
            let uid = other.metadata.uid.as_deref();
            uid.is_some_and(|uid| message.contains(uid))
        };
        let preemptor = jobs.iter().find(names)?;
        let name = preemptor.name();
        Some(match preemptor.namespace() == job.namespace() {
            true => format!("job {name}"),
            false => format!("job {name} of namespace {}", preemptor.namespace()),
        })
    }

    /// Suspends or resumes a job that names a queue. None if Kueue does not manage it: then it is
    /// suspended like any other job.
    pub(super) async fn set_running_in_queue(
        &self,
        job: &ObservedJob,
        state: RunState,
    ) -> Result<Option<ObservedJob>, ClusterError> {
        let action = "suspending or resuming the job in its Kueue queue";
        if queue::queue_of(job).is_none() {
            return Ok(None);
        }
        let kueue = Kueue::find(&self.calls).await;
        let kueue = kueue.map_err(|error| error.doing(action))?;
        let workload = match &kueue {
            Some(kueue) => self.workload(kueue, job, state).await?,
            None => None,
        };
        if let (Some(kueue), Some(workload)) = (&kueue, &workload) {
            let name = &workload.metadata.name;
            let set = kueue.set_active(job.namespace(), name, state).await;
            set.map_err(|error| error.doing(action))?;
        }
        let held = match state {
            RunState::Suspend => Value::from("true"),
            RunState::Resume => Value::Null,
        };
        let patch = json!({"metadata": {"annotations": {HELD_ANNOTATION: held}}});
        let patched = self
            .calls
            .patch(job.kind, job.namespace(), job.name(), patch)
            .await;
        let patched = patched.map_err(|error| error.doing(action))?;
        Ok(workload.is_some().then_some(patched))
    }

    /// The Workload of a job. A suspended job that Kueue manages has one after a moment.
    async fn workload(
        &self,
        kueue: &Kueue<'_>,
        job: &ObservedJob,
        state: RunState,
    ) -> Result<Option<Workload>, ClusterError> {
        let action = "reading the Kueue Workload of the job";
        for _ in 0..LOOKS {
            let workload = kueue.workload(job).await;
            let workload = workload.map_err(|error| error.doing(action))?;
            let is_there = workload.is_some();
            let cannot_come = !job.spec.run_policy.suspend || state == RunState::Resume;
            if is_there || cannot_come {
                return Ok(workload);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(None)
    }

    /// What the author of a job should know about its queue at once.
    pub(super) async fn queue_warnings(&self, job: &ObservedJob, manifest: &Value) -> Vec<String> {
        let Some(name) = queue::queue_of(job) else {
            return Vec::new();
        };
        let warnings = self.warnings_of(name, job, manifest);
        match tokio::time::timeout(WARNING_TIME, warnings).await {
            Ok(Ok(warnings)) => warnings,
            Ok(Err(error)) => {
                let cause = &error as &dyn std::error::Error;
                warn!(job = job.name(), cause, "the queue of a job cannot be read");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    async fn warnings_of(
        &self,
        name: &str,
        job: &ObservedJob,
        manifest: &Value,
    ) -> Result<Vec<String>, CallError> {
        let Some(kueue) = Kueue::find(&self.calls).await? else {
            return Ok(vec![queue::unmanaged(name, "the cluster has no Kueue")]);
        };
        // Kueue's webhook suspends each job that it manages when it is created.
        if !job.spec.run_policy.suspend {
            return Ok(vec![queue::unmanaged(name, KIND_IS_NOT_MANAGED)]);
        }
        let queues = kueue.local_queues(job.namespace(), name).await?;
        let quota = kueue.cluster_queue(&queues).await;
        let pods = queue::pod_sets(manifest);
        let never = quota.and_then(|quota| queue::would_never_start(name, &quota, &pods));
        let missing = queue::missing_queue(name, job.namespace(), &queues);
        let stopped = queue::stopped_queue(name, &queues);
        Ok([missing, stopped, never].into_iter().flatten().collect())
    }
}
