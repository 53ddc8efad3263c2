//! What the specification says of a PyTorchJob's state: the five keys of its answers.

use serde::{Deserialize, Serialize};

use super::{ConditionType, FRAMEWORK_LABEL, ObservedJob, PyTorchJobStatus, RUN_ID_LABEL};

/// The specification's words for the state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    Submitted,
    Running,
    Succeeded,
    Failed,
}

/// The specification's `TrainingJobStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobSummary {
    pub name: String,
    pub status: JobState,
    pub detail: String,
    pub framework: String,
    pub run_id: String,
}

impl JobSummary {
    /// The answer to a submission.
    pub fn created(job: &ObservedJob) -> Self {
        Self::with(job, JobState::Submitted, "PyTorchJob created")
    }

    /// The state that the job's conditions tell, by the specification's table from its first row
    /// on. The last condition in the list says nothing: the operator appends and flips them.
    pub fn of(job: &ObservedJob) -> Self {
        let status = &job.status;
        let rows = [
            (
                ConditionType::Succeeded,
                JobState::Succeeded,
                "PyTorchJob completed",
            ),
            (ConditionType::Failed, JobState::Failed, "PyTorchJob failed"),
            (
                ConditionType::Running,
                JobState::Running,
                "PyTorchJob pods active",
            ),
        ];
        for (condition_type, state, default) in rows {
            if let Some(condition) = status.is_true(condition_type) {
                let detail = match condition.message.as_str() {
                    "" => default,
                    message => message,
                };
                return Self::with(job, state, detail);
            }
        }
        if active(status) > 0 {
            return Self::with(job, JobState::Running, "PyTorchJob pods active");
        }
        Self::with(job, JobState::Submitted, "PyTorchJob submitted")
    }

    fn with(job: &ObservedJob, status: JobState, detail: &str) -> Self {
        let label = |key| job.label(key).unwrap_or_default().to_string();
        Self {
            name: job.name().to_string(),
            status,
            detail: detail.to_string(),
            framework: label(FRAMEWORK_LABEL),
            run_id: label(RUN_ID_LABEL),
        }
    }
}

/// Pods that run. The operator counts them by replica type; the specification reads a total.
fn active(status: &PyTorchJobStatus) -> i32 {
    let replicas = status.replica_statuses.values();
    status.active.unwrap_or(0) + replicas.map(|replica| replica.active).sum::<i32>()
}
