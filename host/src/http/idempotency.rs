//! `Idempotency-Key`: repeating a submission does not create a second job.
//!
//! The key is stored in the job, so every host finds it, also after a restart. Of concurrent
//! submissions the cluster creates one; the others find that the name is taken, and then that the
//! job has their key.

use axum::http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::app::App;
use super::authorized::Authorized;
use super::problem::Problem;
use crate::cluster::{ClusterError, Created};
use crate::job::Submission;
use crate::pytorch_job::PyTorchJob;
use crate::request::JobRequest;

/// draft-ietf-httpapi-idempotency-key-header.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The key of a request, if it has one.
pub(super) fn submission(
    headers: &HeaderMap,
    body: &Value,
    owner: Option<&str>,
) -> Result<Option<Submission>, Problem> {
    let key = headers.get(IDEMPOTENCY_KEY);
    let submission = key.map(|key| Submission::new(key.as_bytes(), body));
    let submission = submission.transpose()?;
    Ok(match owner {
        Some(owner) => submission.map(|submission| submission.of_owner(owner)),
        None => submission,
    })
}

/// Creates a job, or returns the job that the same submission created before.
pub(super) async fn create(
    app: &App,
    authorized: &Authorized,
    request: &JobRequest,
    mut job: PyTorchJob,
    submission: Option<Submission>,
) -> Result<Created, Problem> {
    let Some(submission) = submission else {
        let _turn = authorized.take_turn(app, request).await?;
        return Ok(app.create(job, authorized).await?);
    };
    let namespace = job.namespace().to_string();
    if let Some(created) = created_before(app, &namespace, &submission).await? {
        return Ok(created);
    }
    submission.mark(&mut job);
    let _turn = authorized.take_turn(app, request).await?;
    match app.create(job, authorized).await {
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
