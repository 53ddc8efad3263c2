//! `Idempotency-Key`: a submission that is sent again creates nothing again.
//!
//! The job carries the key, so every host and every restart finds it there. Of submissions that
//! race, the cluster creates one; the others find its name taken, and then that it is theirs.

use axum::http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::app::App;
use super::problem::Problem;
use crate::cluster::{ClusterError, Created};
use crate::job::Submission;
use crate::pytorch_job::PyTorchJob;

/// draft-ietf-httpapi-idempotency-key-header.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The key that a request came with, if any.
pub(super) fn submission(headers: &HeaderMap, body: &Value) -> Result<Option<Submission>, Problem> {
    let key = headers.get(IDEMPOTENCY_KEY);
    let submission = key.map(|key| Submission::new(key.as_bytes(), body));
    Ok(submission.transpose()?)
}

/// Creates a job, or finds that it was created by the same submission before.
pub(super) async fn create(
    app: &App,
    mut job: PyTorchJob,
    submission: Option<Submission>,
) -> Result<Created, Problem> {
    let Some(submission) = submission else {
        return Ok(app.create(job).await?);
    };
    let namespace = job.namespace().to_string();
    if let Some(created) = created_before(app, &namespace, &submission).await? {
        return Ok(created);
    }
    submission.mark(&mut job);
    match app.create(job).await {
        Err(taken @ ClusterError::AlreadyExists { .. }) => {
            let created = created_before(app, &namespace, &submission).await?;
            created.ok_or_else(|| taken.into())
        }
        created => Ok(created?),
    }
}

async fn created_before(
    app: &App,
    namespace: &str,
    submission: &Submission,
) -> Result<Option<Created>, Problem> {
    let created = app.cluster.submitted(namespace, submission).await?;
    match created {
        Some(created) if !submission.has_request_of(&created.job) => {
            Err(Problem::key_reused(created.job.name()))
        }
        created => Ok(created),
    }
}
