//! A job in the stream of all jobs: what a list shows, its model and its progress.

use schemars::JsonSchema;
use serde::Serialize;

use super::{ListedJob, ObservedJob, Progress};
use crate::keys::MODEL_ID_ANNOTATION;

/// A job of `GET /events`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobUpdate {
    #[serde(flatten)]
    pub job: ListedJob,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
}

impl JobUpdate {
    /// A job and the progress that is known of it.
    pub fn of(job: &ObservedJob, progress: Option<Progress>) -> Self {
        Self {
            job: ListedJob {
                progress,
                ..ListedJob::from(job)
            },
            model_id: job.annotation(MODEL_ID_ANNOTATION).map(str::to_string),
        }
    }
}

/// The progress of a job of `GET /events`. It has no status, which may be newer by now.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobProgress {
    pub name: String,
    pub namespace: String,
    pub progress: Progress,
}

impl JobProgress {
    /// The progress of a job.
    pub fn of(job: &ObservedJob, progress: Progress) -> Self {
        Self {
            name: job.name().to_string(),
            namespace: job.namespace().to_string(),
            progress,
        }
    }
}

/// A job of `GET /events` that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeletedJob {
    pub name: String,
    pub namespace: String,
}

impl From<&ObservedJob> for DeletedJob {
    fn from(job: &ObservedJob) -> Self {
        Self {
            name: job.name().to_string(),
            namespace: job.namespace().to_string(),
        }
    }
}
