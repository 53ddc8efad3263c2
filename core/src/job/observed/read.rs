//! The JSON of a PyTorchJob or a TrainJob, and what is taken from it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

use super::{DesiredReplicas, ObservedJob, ObservedRunPolicy, ObservedSpec};
use crate::job_kind::JobKind;
use crate::keys::NODE;
use crate::pytorch_job::{Condition, PyTorchJobStatus, ReplicaStatus, ReplicaType};

/// A job of either kind. A member that only one kind has is missing from the other.
#[derive(Deserialize)]
pub(super) struct ReadJob {
    #[serde(default)]
    kind: String,
    metadata: ReadMetadata,
    #[serde(default)]
    spec: ReadSpec,
    #[serde(default)]
    status: ReadStatus,
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

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadSpec {
    run_policy: ObservedRunPolicy,
    pytorch_replica_specs: BTreeMap<String, DesiredReplicas>,
    suspend: bool,
    trainer: Option<ReadTrainer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadTrainer {
    num_nodes: u32,
}

impl Default for ReadTrainer {
    fn default() -> Self {
        Self { num_nodes: 1 }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadStatus {
    conditions: Vec<Condition>,
    replica_statuses: BTreeMap<ReplicaType, ReplicaStatus>,
    active: Option<i32>,
    start_time: Option<Time>,
    completion_time: Option<Time>,
    jobs_status: Vec<ReadJobStatus>,
}

/// The Jobs of a TrainJob. Each number counts Jobs, not pods: the only Job is ready if all its pods
/// are, and active if one of them runs or waits.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ReadJobStatus {
    name: String,
    ready: i32,
}

impl From<ReadJob> for ObservedJob {
    fn from(read: ReadJob) -> Self {
        let kind = match read.kind == JobKind::TrainJob.name() {
            true => JobKind::TrainJob,
            false => JobKind::PyTorchJob,
        };
        let (spec, status) = match kind {
            JobKind::PyTorchJob => of_pytorch_job(read.spec, read.status),
            JobKind::TrainJob => of_train_job(&read.spec, read.status),
        };
        Self {
            kind,
            metadata: read.metadata.into(),
            spec,
            status,
        }
    }
}

impl From<ReadMetadata> for ObjectMeta {
    fn from(read: ReadMetadata) -> Self {
        Self {
            annotations: read.annotations,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            labels: read.labels,
            name: read.name,
            namespace: read.namespace,
            resource_version: read.resource_version,
            uid: read.uid,
            ..Self::default()
        }
    }
}

fn of_pytorch_job(spec: ReadSpec, status: ReadStatus) -> (ObservedSpec, PyTorchJobStatus) {
    let spec = ObservedSpec {
        run_policy: spec.run_policy,
        pytorch_replica_specs: spec.pytorch_replica_specs,
    };
    let status = PyTorchJobStatus {
        conditions: status.conditions,
        replica_statuses: status.replica_statuses,
        active: status.active,
        start_time: status.start_time,
        completion_time: status.completion_time,
    };
    (spec, status)
}

fn of_train_job(spec: &ReadSpec, status: ReadStatus) -> (ObservedSpec, PyTorchJobStatus) {
    let num_nodes = spec.trainer.as_ref().map_or(1, |trainer| trainer.num_nodes);
    let workers = num_nodes.saturating_sub(1);
    let kinds = [("Master", 1), ("Worker", workers)];
    let kinds = kinds.into_iter().filter(|(_, replicas)| *replicas > 0);
    let desired = kinds.map(|(kind, replicas)| (kind.to_string(), DesiredReplicas { replicas }));
    let is_taken_up = !status.jobs_status.is_empty();
    let mut jobs = status.jobs_status.iter();
    let is_ready = jobs.any(|job| job.name == NODE && job.ready > 0);
    let mut observed = PyTorchJobStatus {
        conditions: status.conditions,
        ..PyTorchJobStatus::default()
    };
    let end = observed.end().cloned();
    observed.completion_time = end.and_then(|end| end.last_transition_time);
    // The numbers of Jobs are not updated any more when the job has ended.
    let runs = is_ready && !observed.has_ended() && !spec.suspend;
    let counted = |replicas: u32| ReplicaStatus {
        active: match runs {
            true => i32::try_from(replicas).unwrap_or(i32::MAX),
            false => 0,
        },
        ..ReplicaStatus::default()
    };
    if is_taken_up {
        let statuses = &mut observed.replica_statuses;
        statuses.insert(ReplicaType::Master, counted(1));
        if workers > 0 {
            statuses.insert(ReplicaType::Worker, counted(workers));
        }
    }
    let spec = ObservedSpec {
        run_policy: ObservedRunPolicy {
            suspend: spec.suspend,
        },
        pytorch_replica_specs: desired.collect(),
    };
    (spec, observed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::job::{JobState, JobSummary};

    fn job(spec: &Value, status: &Value) -> ObservedJob {
        serde_json::from_value(json!({
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": "run", "namespace": "a", "uid": "1"},
            "spec": spec,
            "status": status,
        }))
        .unwrap()
    }

    fn condition(kind: &str, status: &str) -> Value {
        json!({
            "type": kind, "status": status, "reason": "R", "message": format!("{kind}!"),
            "lastTransitionTime": "2026-11-28T10:00:00Z",
        })
    }

    /// Kubeflow counts Jobs.
    fn counts(active: i32, ready: i32) -> Value {
        json!([{"name": "node", "active": active, "ready": ready, "failed": 0}])
    }

    #[test]
    fn a_train_job_runs_when_its_pods_do_and_its_end_comes_first() {
        let four = json!({"trainer": {"numNodes": 4}});
        let suspended = json!({"trainer": {"numNodes": 4}, "suspend": true});
        let resumed = condition("Suspended", "False");
        let (complete, failed) = (condition("Complete", "True"), condition("Failed", "True"));
        let cases = [
            (&four, json!({}), JobState::Submitted),
            (
                &four,
                json!({"jobsStatus": counts(1, 0)}),
                JobState::Submitted,
            ),
            (
                &four,
                json!({"jobsStatus": counts(1, 1)}),
                JobState::Running,
            ),
            (
                &four,
                json!({"conditions": [resumed], "jobsStatus": counts(1, 1)}),
                JobState::Running,
            ),
            (
                &suspended,
                json!({"jobsStatus": counts(1, 1)}),
                JobState::Submitted,
            ),
            (
                &four,
                json!({"conditions": [resumed, complete], "jobsStatus": counts(1, 1)}),
                JobState::Succeeded,
            ),
            (
                &four,
                json!({"conditions": [failed], "jobsStatus": counts(1, 1)}),
                JobState::Failed,
            ),
            (
                &suspended,
                json!({"conditions": [failed, condition("Suspended", "True")]}),
                JobState::Failed,
            ),
        ];
        for (spec, status, expected) in cases {
            assert_eq!(JobState::of(&job(spec, &status)), expected, "{status}");
        }
    }

    #[test]
    fn a_train_job_has_the_replicas_and_the_times_of_a_pytorch_job() {
        let status = json!({"conditions": [condition("Complete", "True")]});
        let job = job(&json!({"trainer": {"numNodes": 3}}), &status);
        assert_eq!(job.kind, JobKind::TrainJob);
        let names = crate::job::replica_names(&job);
        assert_eq!(names, ["master-0", "worker-0", "worker-1"]);
        assert!(job.status.completion_time.is_some());
        assert_eq!(JobSummary::of(&job).detail, "Complete!");
    }

    #[test]
    fn a_train_job_runs_as_soon_as_its_master_does() {
        let mut waits = job(&json!({}), &json!({"jobsStatus": counts(1, 0)}));
        assert_eq!(JobState::of(&waits), JobState::Submitted);
        waits.set_master_active(None);
        assert_eq!(JobState::of(&waits), JobState::Running);
        let mut suspended = job(&json!({"suspend": true}), &json!({}));
        suspended.set_master_active(None);
        assert_eq!(JobState::of(&suspended), JobState::Submitted);
    }
}
