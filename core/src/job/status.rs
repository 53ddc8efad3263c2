//! The state of a PyTorchJob as the specification defines it: the five keys of its answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ObservedJob, failures::describe_failures};
use crate::keys::{FRAMEWORK_LABEL, RUN_ID_LABEL};
use crate::pytorch_job::{Condition, ConditionType, PyTorchJobStatus};

/// The maximum number of warnings in the answer to a submission. A preview has all of them.
const MAX_WARNINGS: usize = 8;

/// The state of a job, as the specification names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    Submitted,
    Running,
    Succeeded,
    Failed,
}

impl JobState {
    /// Every one.
    pub const ALL: [Self; 4] = [
        Self::Submitted,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
    ];

    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Derives the state from the job's conditions by the specification's table. The order of the
    /// conditions is irrelevant, because the operator appends and flips them.
    pub fn of(job: &ObservedJob) -> Self {
        let status = &job.status;
        match deciding_condition(status) {
            Some((state, ..)) => state,
            None if active(status) > 0 => Self::Running,
            None => Self::Submitted,
        }
    }

    /// Whether the state never changes again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The first row of the table whose condition is true, with the default for an empty message.
fn deciding_condition(status: &PyTorchJobStatus) -> Option<(JobState, &Condition, &'static str)> {
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
    let mut rows = rows.into_iter();
    rows.find_map(|(of, state, default)| Some((state, status.is_true(of)?, default)))
}

/// The specification's `TrainingJobStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobSummary {
    pub name: String,
    pub status: JobState,
    pub detail: String,
    pub framework: String,
    pub run_id: String,
}

impl JobSummary {
    /// The answer to a submission, with its first warnings.
    pub fn created(job: &ObservedJob, warnings: &[String]) -> Self {
        let mut detail = "PyTorchJob created".to_string();
        for warning in warnings.iter().take(MAX_WARNINGS) {
            detail.push_str("; warning: ");
            detail.push_str(warning);
        }
        if let Some(more @ 1..) = warnings.len().checked_sub(MAX_WARNINGS) {
            detail.push_str(&format!("; and {more} more warnings"));
        }
        Self::with(job, JobState::Submitted, &detail)
    }

    /// Summarizes a job from its conditions.
    pub fn of(job: &ObservedJob) -> Self {
        let state = JobState::of(job);
        let detail = match (deciding_condition(&job.status), state) {
            (Some((_, condition, default)), _) if condition.message.is_empty() => default,
            (Some((_, condition, _)), _) => &condition.message,
            (None, JobState::Running) => "PyTorchJob pods active",
            (None, _) => "PyTorchJob submitted",
        };
        match describe_failures(job).filter(|_| state == JobState::Failed) {
            Some(failures) => {
                let detail = detail.trim_end_matches('.');
                Self::with(job, state, &format!("{detail}: {failures}"))
            }
            None => Self::with(job, state, detail),
        }
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

/// The number of running pods. The operator counts them by replica type; the specification uses a
/// total.
fn active(status: &PyTorchJobStatus) -> i32 {
    let replicas = status.replica_statuses.values();
    status.active.unwrap_or(0) + replicas.map(|replica| replica.active).sum::<i32>()
}
