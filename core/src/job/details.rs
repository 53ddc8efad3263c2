//! The full view of a job (`?view=full`), with sentences that explain why it waits or failed.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::finding::Finding;
use crate::job_kind::JobKind;
use crate::plan::CheckpointLayout;

use super::queue::{self, QueueDetails, QueueReading};
use super::{JobState, JobSummary, ObservedJob, Progress};
use crate::keys::{
    CHECKPOINT_LAYOUT_ANNOTATION, DATASET_URI_ANNOTATION, MODEL_ID_ANNOTATION, OWNER_ANNOTATION,
    PLUGIN_ANNOTATION, PLUGIN_DIGEST_ANNOTATION, PLUGIN_VERSION_ANNOTATION, WARNINGS_ANNOTATION,
};
use crate::pytorch_job::ConditionType;

/// A job, its pods and its events.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub job: ObservedJob,
    pub pods: Vec<PodDetails>,
    /// Oldest first.
    pub events: Vec<JobEvent>,
    /// Reasons to wait that only the cluster knows.
    pub notes: Vec<String>,
    /// What was read about its queue. None if it names none.
    pub queue: Option<QueueReading>,
}

/// Kubernetes' reason for a container in which the kernel killed a process for lack of memory.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// One pod of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PodDetails {
    pub name: String,
    /// Type and index, such as `master-0`.
    pub replica: String,
    /// The node that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// As in Kubernetes: `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`. On the local
    /// cluster also `Waiting`, for a failed replica that is about to restart.
    pub phase: String,
    /// How often its container was restarted.
    pub restarts: u32,
    /// Exit code of the container that ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it waits or ended, as in Kubernetes: `Unschedulable`, `ImagePullBackOff`, `OOMKilled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<Time>,
    /// When a failed replica restarts. Local cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub restarts_at: Option<Time>,
}

impl PodDetails {
    /// Whether it failed, or is about to because of a disruption.
    pub fn has_failed(&self) -> bool {
        let is_disrupted = self
            .reason
            .as_deref()
            .is_some_and(|r| disruption(r).is_some());
        self.phase == "Failed" || is_disrupted || self.exit_code.is_some_and(|code| code != 0)
    }
}

/// Something that happened to a job or to one of its pods.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobEvent {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub time: Option<Time>,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub event_type: String,
    pub reason: String,
    pub message: String,
    /// Kind and name, such as `Pod/meta-demo-001-master-0`.
    pub object: String,
    pub count: i32,
}

/// The answer of `GET /train/{job_name}?view=full`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct JobDetails {
    #[serde(flatten)]
    pub summary: JobSummary,
    pub namespace: String,
    /// Why the job waits or failed, one sentence per reason; empty if there is nothing to explain.
    pub explanation: Vec<String>,
    /// Whether a user has suspended it, or its queue has not admitted it yet.
    pub suspended: bool,
    /// Its place in the queue that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueDetails>,
    /// The caller that submitted it, on a service with an access file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The latest progress that `train.py` reported; absent until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub created_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub completed_at: Option<Time>,
    pub conditions: Vec<ConditionDetails>,
    /// By replica type.
    pub replicas: BTreeMap<String, ReplicaCounts>,
    pub pods: Vec<PodDetails>,
    pub events: Vec<JobEvent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CheckpointLayout>")]
    pub checkpoint: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginDetails>,
    /// The warnings of the submission.
    #[schemars(with = "Vec<Finding>")]
    pub warnings: Value,
}

/// A condition of a job, in the spelling of this API.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConditionDetails {
    #[serde(rename = "type")]
    pub condition_type: ConditionType,
    pub status: String,
    pub reason: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_transition_time: Option<Time>,
}

/// The desired and current numbers of replicas of a type.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReplicaCounts {
    pub desired: u32,
    pub active: i32,
    pub succeeded: i32,
    pub failed: i32,
}

/// The plugin that planned a job.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PluginDetails {
    pub name: String,
    pub version: String,
    pub digest: String,
}

impl JobDetails {
    /// Builds the details of a job.
    pub fn of(inspection: Inspection, progress: Option<Progress>) -> Self {
        let queue = inspection.queue.as_ref();
        let queue = queue.and_then(|reading| queue::explain(&inspection.job, reading));
        let (queue, of_queue) = queue.unzip();
        let explanation = explain(&inspection, of_queue);
        let Inspection {
            job, pods, events, ..
        } = inspection;
        let text = |key| job.annotation(key).map(str::to_string);
        let json = |key| serde_json::from_str(job.annotation(key)?).ok();
        let plugin = text(PLUGIN_ANNOTATION).map(|name| PluginDetails {
            name,
            version: text(PLUGIN_VERSION_ANNOTATION).unwrap_or_default(),
            digest: text(PLUGIN_DIGEST_ANNOTATION).unwrap_or_default(),
        });
        Self {
            summary: JobSummary::of(&job),
            namespace: job.namespace().to_string(),
            explanation,
            suspended: job.spec.run_policy.suspend,
            queue,
            owner: text(OWNER_ANNOTATION),
            progress,
            created_at: job.metadata.creation_timestamp.clone(),
            started_at: job.status.start_time.clone(),
            completed_at: job.status.completion_time.clone(),
            conditions: conditions(&job),
            replicas: replicas(&job),
            pods,
            events,
            model_id: text(MODEL_ID_ANNOTATION),
            dataset_uri: text(DATASET_URI_ANNOTATION),
            checkpoint: json(CHECKPOINT_LAYOUT_ANNOTATION),
            plugin,
            warnings: json(WARNINGS_ANNOTATION).unwrap_or_else(|| Value::Array(Vec::new())),
        }
    }
}

fn conditions(job: &ObservedJob) -> Vec<ConditionDetails> {
    let conditions = job.status.conditions.iter().cloned();
    conditions
        .map(|condition| ConditionDetails {
            condition_type: condition.condition_type,
            status: condition.status,
            reason: condition.reason,
            message: condition.message,
            last_transition_time: condition.last_transition_time,
        })
        .collect()
}

fn replicas(job: &ObservedJob) -> BTreeMap<String, ReplicaCounts> {
    let desired = job.spec.pytorch_replica_specs.iter();
    desired
        .map(|(kind, desired)| {
            let statuses = job.status.replica_statuses.iter();
            let mut statuses = statuses.filter(|(of, _)| format!("{of:?}") == *kind);
            let is = statuses.next().map(|(_, is)| *is).unwrap_or_default();
            let counts = ReplicaCounts {
                desired: desired.replicas,
                active: is.active,
                succeeded: is.succeeded,
                failed: is.failed,
            };
            (kind.clone(), counts)
        })
        .collect()
}

/// Why the job waits or failed. `of_queue` are the sentences about its queue, if it names one.
fn explain(inspection: &Inspection, of_queue: Option<Vec<String>>) -> Vec<String> {
    let Inspection {
        job,
        pods,
        events,
        notes,
        ..
    } = inspection;
    let state = JobSummary::of(job).status;
    if state == JobState::Succeeded {
        let ended = pods.iter().filter(|pod| pod.phase == "Succeeded");
        return problems(&ended.cloned().collect::<Vec<_>>());
    }
    let names_no_queue = of_queue.is_none();
    let mut sentences = of_queue.unwrap_or_default();
    if names_no_queue && job.spec.run_policy.suspend && state != JobState::Failed {
        sentences.push(format!(
            "The job is suspended. Resume it with POST /train/{}/resume.",
            job.name()
        ));
    }
    sentences.extend(problems(pods));
    sentences.extend(refused_pods(events));
    sentences.extend(notes.iter().cloned());
    if sentences.is_empty() && state == JobState::Submitted && is_untouched(job) {
        let operator = match job.kind {
            JobKind::PyTorchJob => "The training operator",
            JobKind::TrainJob => "Kubeflow Trainer",
        };
        sentences.push(format!("{operator} has not picked up the job yet."));
    }
    sentences
}

/// Whether nothing in the cluster has written to the status of a job.
fn is_untouched(job: &ObservedJob) -> bool {
    job.status.conditions.is_empty() && job.status.replica_statuses.is_empty()
}

/// The problems of the pods. Pods with the same problem share a sentence.
pub(super) fn problems(pods: &[PodDetails]) -> Vec<String> {
    let mut problems: Vec<(String, Vec<&str>)> = Vec::new();
    for pod in pods {
        let Some(problem) = problem(pod) else {
            continue;
        };
        match problems.iter_mut().find(|(same, _)| *same == problem) {
            Some((_, replicas)) => replicas.push(&pod.replica),
            None => problems.push((problem, vec![&pod.replica])),
        }
    }
    let sentence = |(problem, replicas): &(String, Vec<&str>)| match replicas.as_slice() {
        [one] => format!("{one} {problem}"),
        [first, rest @ ..] => {
            format!(
                "{} of {} replicas ({first} and {} more): {problem}",
                replicas.len(),
                pods.len(),
                rest.len()
            )
        }
        [] => String::new(),
    };
    problems.iter().map(sentence).collect()
}

fn problem(pod: &PodDetails) -> Option<String> {
    let message = match &pod.message {
        Some(message) => format!(": {message}"),
        None => String::new(),
    };
    let reason = pod.reason.as_deref();
    if let Some(what) = reason.and_then(disruption) {
        let reason = reason.unwrap_or_default();
        return Some(format!("{what} ({reason}){message}"));
    }
    match (pod.phase.as_str(), reason, pod.exit_code) {
        (_, Some(OUT_OF_MEMORY), Some(0)) => Some(format!(
            "exited with code 0, but the kernel killed one of its processes for lack of memory \
             ({OUT_OF_MEMORY}), so its results may be incomplete"
        )),
        ("Succeeded", ..) => None,
        (_, reason, Some(code)) if code != 0 => {
            let reason = reason.map(|reason| format!(" ({reason})"));
            let again = match (pod.phase.as_str(), pod.restarts) {
                ("Failed" | "Waiting", _) | (_, 0) => String::new(),
                (_, times) => format!(", restarted {times} times so far"),
            };
            let reason = reason.unwrap_or_default();
            Some(format!("exited with code {code}{reason}{message}{again}"))
        }
        ("Running", None, _) => None,
        ("Pending", None, _) => Some("waits to start".to_string()),
        ("Pending", Some(reason), _) => Some(format!("waits: {reason}{message}")),
        (phase, reason, _) => {
            let reason = reason.map(|reason| format!(": {reason}"));
            Some(format!("is {phase}{}{message}", reason.unwrap_or_default()))
        }
    }
}

/// Describes a disruption of a pod by Kubernetes' reason for it, from `status.reason` or the
/// condition `DisruptionTarget`.
fn disruption(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "Evicted" => "was evicted by its node, which ran short of a resource",
        "EvictionByEvictionAPI" => "was evicted, for example because its node was drained",
        "PreemptionByScheduler" | "Preempting" | "Preempted" | "PreemptionByKubeScheduler" => {
            "was preempted by a pod of higher priority"
        }
        "DeletionByTaintManager" | "TaintManagerEviction" => {
            "was removed from its node, which has a taint that it does not tolerate, for example \
             because the node is not ready"
        }
        "DeletionByPodGC" => "was removed because its node no longer exists",
        "NodeLost" => "was lost because its node no longer responds",
        "TerminationByKubelet" | "NodeShutdown" | "Shutdown" | "Terminated" => {
            "was stopped by its node, which is shutting down or ran short of a resource"
        }
        "DeadlineExceeded" => "exceeded its deadline",
        _ => return None,
    })
}

/// Reports pods or other objects of the job that admission, for example a quota, prevents the operator
/// from creating. Only events show this (kubeflow/trainer v1.9.4, pkg/core/pod.go `FailedCreatePod`;
/// v2.3.0, pkg/controller/trainjob_controller.go; Kubernetes, pkg/controller/job).
fn refused_pods(events: &[JobEvent]) -> Option<String> {
    let is_of_job = |event: &JobEvent| event.object.starts_with("Job/");
    let created = |event: &&JobEvent| match event.reason.as_str() {
        "SuccessfulCreate" | "FailedCreate" => is_of_job(event),
        "TrainJobResourcesCreationFailed" => true,
        reason => reason.ends_with("CreatePod"),
    };
    let latest = events.iter().rev().find(created)?;
    let what = match latest.reason.as_str() {
        "FailedCreatePod" | "FailedCreate" => "pods",
        "TrainJobResourcesCreationFailed" => "objects",
        _ => return None,
    };
    let message = &latest.message;
    Some(format!(
        "The {what} of the job cannot be created: {message}"
    ))
}

#[cfg(test)]
mod tests;
