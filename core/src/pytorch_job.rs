//! The PyTorchJob of kubeflow.org/v1: the part of the type that this host reads and writes.
//!
//! Source: kubeflow/trainer v1.9.4, pkg/apis/kubeflow.org/v1/{common_types,pytorch_types}.go.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const API_VERSION: &str = "kubeflow.org/v1";
pub const KIND: &str = "PyTorchJob";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PyTorchJob {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: PyTorchJobSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PyTorchJobStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PyTorchJobSpec {
    /// Processes per replica, as a string. With the operator's default `auto`, WORLD_SIZE would
    /// count pods.
    pub nproc_per_node: String,
    pub run_policy: RunPolicy,
    pub pytorch_replica_specs: ReplicaSpecs,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunPolicy {
    pub clean_pod_policy: CleanPodPolicy,
    /// Restarts across all replicas after which the job fails.
    pub backoff_limit: u32,
    /// Seconds after which a finished job is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<u32>,
    /// Seconds that the job may be active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How a gang scheduler starts the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling_policy: Option<JobSchedulingPolicy>,
}

/// `runPolicy.schedulingPolicy` of a PyTorchJob. The training operator makes a PodGroup of it if it
/// runs with `--gang-scheduler-name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSchedulingPolicy {
    /// The number of pods that start together: all of them.
    pub min_available: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_timeout_seconds: Option<u32>,
}

/// Which pods are deleted when the job ends. The CRD accepts any string, so a typo goes unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CleanPodPolicy {
    All,
    /// Those that still run or wait. Finished pods stay, so their logs can be read.
    Running,
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReplicaSpecs {
    pub master: ReplicaSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<ReplicaSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSpec {
    pub replicas: u32,
    pub restart_policy: RestartPolicy,
    pub template: PodTemplateSpec,
}

/// What happens to a replica whose process exited. The CRD accepts any string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
    ExitCode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReplicaType {
    Master,
    Worker,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PyTorchJobStatus {
    /// Absent until the operator has seen the job.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    #[serde(default)]
    pub replica_statuses: BTreeMap<ReplicaType, ReplicaStatus>,
    /// No operator sets this, but the specification's table reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub condition_type: ConditionType,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    Created,
    Running,
    Restarting,
    // A TrainJob calls it `Complete`.
    #[serde(alias = "Complete")]
    Succeeded,
    Suspended,
    Failed,
    /// A type that this host does not know.
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    #[serde(default, skip_serializing_if = "is_zero")]
    pub active: i32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub succeeded: i32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: i32,
}

fn is_zero(count: &i32) -> bool {
    *count == 0
}

impl PyTorchJob {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
}

impl PyTorchJobStatus {
    /// Whether the job has finished.
    pub fn has_ended(&self) -> bool {
        self.end().is_some()
    }

    /// The condition that ended the job.
    pub fn end(&self) -> Option<&Condition> {
        let ends = [ConditionType::Succeeded, ConditionType::Failed];
        ends.into_iter().find_map(|end| self.is_true(end))
    }

    /// The condition of a type, if it is true.
    pub fn is_true(&self, condition_type: ConditionType) -> Option<&Condition> {
        let mut conditions = self.conditions.iter();
        conditions.find(|c| c.condition_type == condition_type && c.status == "True")
    }
}
