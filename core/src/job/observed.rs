//! A job as read from a cluster. It has only the members that answers need, so that a cache of ten
//! thousand jobs is small and jobs that other programs created can be read too.
//!
//! A PyTorchJob and a TrainJob are read into the same type, which has the shape of a PyTorchJob.

mod read;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

use super::PodDetails;
use crate::job_kind::JobKind;
use crate::keys::SUBMISSION_ANNOTATION;
use crate::pytorch_job::{PyTorchJob, PyTorchJobStatus, ReplicaStatus, ReplicaType};
use read::ReadJob;

/// The parts of a job that answers need.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "ReadJob")]
pub struct ObservedJob {
    pub kind: JobKind,
    pub metadata: ObjectMeta,
    pub spec: ObservedSpec,
    pub status: PyTorchJobStatus,
}

/// The parts of a job's spec that answers need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedSpec {
    pub run_policy: ObservedRunPolicy,
    /// By replica type: `Master`, `Worker`.
    pub pytorch_replica_specs: BTreeMap<String, DesiredReplicas>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ObservedRunPolicy {
    /// Set by a user, or by Kueue while the job waits in its queue.
    pub suspend: bool,
}

/// The desired number of replicas of a type. The operator treats a missing number as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DesiredReplicas {
    pub replicas: u32,
}

impl Default for DesiredReplicas {
    fn default() -> Self {
        Self { replicas: 1 }
    }
}

impl ObservedJob {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = self.metadata.labels.as_ref()?;
        labels.get(key).map(String::as_str)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(key).map(String::as_str)
    }

    /// What the pods of the job know it by. The owner of a pod of a PyTorchJob is the job itself. That
    /// of a TrainJob is a Job, but our pods have the id of the submission; other programs set none.
    pub fn id_of_pods(&self) -> &str {
        match self.kind {
            JobKind::PyTorchJob => self.metadata.uid.as_deref().unwrap_or_default(),
            JobKind::TrainJob => self.annotation(SUBMISSION_ANNOTATION).unwrap_or_default(),
        }
    }

    /// Takes in that the master of a TrainJob runs, which the job itself does not say: it counts a
    /// pod that waits for a node as active, and as ready only when all pods are.
    pub fn set_master_active(&mut self, started_at: Option<Time>) {
        let is_over = self.status.has_ended() || self.spec.run_policy.suspend;
        if self.kind != JobKind::TrainJob || is_over {
            return;
        }
        let replicas = &mut self.status.replica_statuses;
        replicas.entry(ReplicaType::Master).or_default().active = 1;
        self.status.start_time = self.status.start_time.take().or(started_at);
    }

    /// Takes in the pods of a TrainJob, which does not count them itself.
    pub fn count_pods(&mut self, pods: &[PodDetails]) {
        if self.kind != JobKind::TrainJob {
            return;
        }
        let started = pods.iter().filter_map(|pod| pod.started_at.clone());
        let started = started.min_by_key(|time| time.0);
        let is_active = |pod: &&PodDetails| pod.phase == "Running";
        let mut masters = pods.iter().filter(|pod| pod.replica == MASTER);
        // Workers that wait for their master do not train.
        let trains = !self.spec.run_policy.suspend && masters.any(|pod| is_active(&pod));
        for (kind, prefix) in [
            (ReplicaType::Master, "master-"),
            (ReplicaType::Worker, "worker-"),
        ] {
            let of_kind: Vec<&PodDetails> = pods
                .iter()
                .filter(|pod| pod.replica.starts_with(prefix))
                .collect();
            if of_kind.is_empty() {
                continue;
            }
            let in_phase = |phase: &str| {
                let there = of_kind.iter().filter(|pod| pod.phase == phase);
                i32::try_from(there.count()).unwrap_or(i32::MAX)
            };
            let counted = ReplicaStatus {
                active: if trains { in_phase("Running") } else { 0 },
                succeeded: in_phase("Succeeded"),
                failed: in_phase("Failed"),
            };
            self.status.replica_statuses.insert(kind, counted);
        }
        self.status.start_time = started.or(self.status.start_time.take());
    }
}

/// The name of the first replica.
const MASTER: &str = "master-0";

impl From<&PyTorchJob> for ObservedJob {
    fn from(job: &PyTorchJob) -> Self {
        let specs = &job.spec.pytorch_replica_specs;
        let desired = |kind: &str, replicas| (kind.to_string(), DesiredReplicas { replicas });
        let master = desired("Master", specs.master.replicas);
        let worker = specs.worker.as_ref();
        let worker = worker.map(|worker| desired("Worker", worker.replicas));
        Self {
            kind: JobKind::PyTorchJob,
            metadata: job.metadata.clone(),
            spec: ObservedSpec {
                run_policy: ObservedRunPolicy {
                    suspend: job.spec.run_policy.suspend.unwrap_or(false),
                },
                pytorch_replica_specs: [Some(master), worker].into_iter().flatten().collect(),
            },
            status: job.status.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_set_which_field_is_not_read() {
        let job: ObservedJob = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "run",
                "labels": {"team": "vision"},
                "creationTimestamp": "2026-11-27T23:08:41Z",
                "managedFields": [{"manager": "trainer", "fieldsV1": {"f:spec": {}}}],
            },
        }))
        .unwrap();
        assert_eq!(job.name(), "run");
        assert_eq!(job.label("team"), Some("vision"));
        assert!(job.metadata.creation_timestamp.is_some());
        assert_eq!(job.metadata.managed_fields, None);
    }

    #[test]
    fn a_job_of_another_tool_is_read() {
        let job: ObservedJob = serde_json::from_value(serde_json::json!({
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {"name": "elastic", "namespace": "team-a"},
            "spec": {
                "elasticPolicy": {"rdzvBackend": "c10d", "minReplicas": 1},
                "pytorchReplicaSpecs": {"Worker": {"template": {"spec": {"containers": []}}}},
            },
            "status": {"conditions": [
                {"type": "Created", "status": "True"},
                {"type": "OfALaterOperator", "status": "True"},
            ]},
        }))
        .unwrap();
        let workers = job.spec.pytorch_replica_specs["Worker"];
        assert_eq!(workers.replicas, 1);
        assert!(!job.spec.run_policy.suspend);
        assert_eq!(job.status.conditions.len(), 2);
    }
}
