//! The TrainJob and the ClusterTrainingRuntime of trainer.kubeflow.org/v1alpha1: the part of the
//! types that this host writes. [`crate::job::ObservedJob`] is what it reads.
//!
//! Source: kubeflow/trainer v2.3.0, pkg/apis/trainer/v1alpha1/{trainjob,trainingruntime}_types.go,
//! and kubernetes-sigs/jobset v0.12.0, api/jobset/v1alpha2/jobset_types.go.

use k8s_openapi::api::batch::v1::JobTemplateSpec;
use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

pub const API_VERSION: &str = "trainer.kubeflow.org/v1alpha1";
pub const KIND: &str = "TrainJob";
pub const RUNTIME_KIND: &str = "ClusterTrainingRuntime";

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainJob {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub metadata: ObjectMeta,
    pub spec: TrainJobSpec,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainJobSpec {
    pub runtime_ref: RuntimeRef,
    /// Always present: without it, Kubeflow sets no `PET_` variables.
    pub trainer: Trainer,
    pub runtime_patches: Vec<RuntimePatch>,
    /// Seconds that the job may be active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// The ClusterTrainingRuntime of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuntimeRef {
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trainer {
    pub image: String,
    pub num_nodes: u32,
    pub num_proc_per_node: u32,
    pub command: Vec<String>,
    pub env: Vec<EnvVar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources_per_node: Option<ResourceRequirements>,
}

/// What a job changes in its runtime.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimePatch {
    pub manager: &'static str,
    pub training_runtime_spec: RuntimeSpec,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTrainingRuntime {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub metadata: ObjectMeta,
    pub spec: RuntimeSpec,
}

/// The specification of a runtime, or a patch of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ml_policy: Option<MlPolicy>,
    /// The gang scheduler of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_group_policy: Option<Value>,
    pub template: JobSetTemplate,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MlPolicy {
    pub num_nodes: u32,
    pub torch: TorchPolicy,
}

/// Has Kubeflow set the `PET_` variables of torchrun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TorchPolicy {}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobSetTemplate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ObjectMeta>,
    pub spec: JobSetSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSetSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_policy: Option<SuccessPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_policy: Option<StartupPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,
    pub replicated_jobs: Vec<ReplicatedJob>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SuccessPolicy {
    pub operator: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartupPolicy {
    pub startup_policy_order: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    #[serde(rename = "enableDNSHostnames")]
    pub enable_dns_hostnames: bool,
    pub publish_not_ready_addresses: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// Restarts of all pods together.
    pub max_restarts: u32,
    /// The first one that fits a failure counts. If none does, the JobSet restarts.
    pub rules: Vec<FailureRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureRule {
    pub name: &'static str,
    pub action: &'static str,
    /// The reason in the condition of the failed Job.
    pub on_job_failure_reasons: Vec<&'static str>,
    /// Regular expressions for the message in that condition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_job_failure_message_patterns: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplicatedJob {
    pub name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    pub template: JobTemplateSpec,
}
