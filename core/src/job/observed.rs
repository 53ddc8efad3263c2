//! A PyTorchJob as read from a cluster. It has only the members that answers need, so that a cache
//! of ten thousand jobs is small and jobs that other programs created can be read too.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer, Serialize};

use crate::pytorch_job::{PyTorchJob, PyTorchJobStatus};

/// The parts of a job that answers need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedJob {
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ObservedSpec,
    #[serde(default)]
    pub status: PyTorchJobStatus,
}

/// The metadata that is read. Most of the rest is `managedFields`, which is larger than the job.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadMetadata {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    uid: Option<String>,
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let read = ReadMetadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        annotations: read.annotations,
        creation_timestamp: read.creation_timestamp,
        deletion_timestamp: read.deletion_timestamp,
        labels: read.labels,
        name: read.name,
        namespace: read.namespace,
        resource_version: read.resource_version,
        uid: read.uid,
        ..ObjectMeta::default()
    })
}

/// The parts of a job's spec that answers need.
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
    /// Set by a user, or by Kueue while the job waits in its queue.
    pub suspend: bool,
}

/// The desired number of replicas of a type. The operator treats a missing number as one.
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
