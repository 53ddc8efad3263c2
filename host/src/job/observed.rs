//! A PyTorchJob as a cluster tells it, whoever wrote it: only what answers are made of, so that a
//! cache of ten thousand is small and a job of somebody else's making is read too.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::{PyTorchJob, PyTorchJobStatus};

/// What answers say of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedJob {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ObservedSpec,
    #[serde(default)]
    pub status: PyTorchJobStatus,
}

/// The part of a job's spec that answers need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObservedSpec {
    pub run_policy: ObservedRunPolicy,
    /// By replica type: `Master`, `Worker`.
    pub pytorch_replica_specs: BTreeMap<String, DesiredReplicas>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedRunPolicy {
    /// Set by a person, or by Kueue for as long as the job waits in its queue.
    pub suspend: bool,
}

/// How many replicas of a type there should be. The operator reads a missing number as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl From<&PyTorchJob> for ObservedJob {
    fn from(job: &PyTorchJob) -> Self {
        let specs = &job.spec.pytorch_replica_specs;
        let desired = |kind: &str, replicas| (kind.to_string(), DesiredReplicas { replicas });
        let master = desired("Master", specs.master.replicas);
        let worker = specs.worker.as_ref();
        let worker = worker.map(|worker| desired("Worker", worker.replicas));
        Self {
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
