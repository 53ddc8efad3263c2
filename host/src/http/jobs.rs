//! Operations on an existing job.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use super::app::App;
use super::problem::Problem;
use super::query::Query;
use super::reference::{FoundJob, NamedJob};
use super::representation::{wants_yaml, yaml};
use crate::cluster::{self, RunState};
use crate::job::{JobDetails, JobSummary};

#[derive(Debug, Deserialize)]
pub(super) struct ViewQuery {
    view: Option<View>,
}

/// Level of detail of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum View {
    /// The specification's five keys.
    Basic,
    Full,
}

pub(super) async fn status(
    State(app): State<App>,
    job: FoundJob,
    Query(query): Query<ViewQuery>,
) -> Result<Response, Problem> {
    if query.view == Some(View::Full) {
        let inspection = app.cluster.inspect(&job.namespace, &job.name).await?;
        let progress = cluster::progress(app.cluster.as_ref(), &inspection.job).await;
        return Ok(job.answer(Json(JobDetails::of(inspection, progress))));
    }
    let found = app.cluster.get(&job.namespace, &job.name).await?;
    Ok(job.answer(Json(JobSummary::of(&found))))
}

pub(super) async fn manifest(
    State(app): State<App>,
    job: FoundJob,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let manifest = app.cluster.manifest(&job.namespace, &job.name).await?;
    match wants_yaml(&headers) {
        true => Ok(job.answer(yaml(&manifest)?)),
        false => Ok(job.answer(Json(manifest))),
    }
}

pub(super) async fn request(State(app): State<App>, job: FoundJob) -> Result<Response, Problem> {
    let manifest = app.cluster.manifest(&job.namespace, &job.name).await?;
    Ok(job.answer(Json(app.request_of(&manifest).await?)))
}

pub(super) async fn delete(State(app): State<App>, job: NamedJob) -> Result<StatusCode, Problem> {
    let deleted = app.cluster.delete(&job.namespace, &job.name).await;
    deleted.map_err(|error| job.explain(error))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn suspend(
    State(app): State<App>,
    job: NamedJob,
) -> Result<Json<JobSummary>, Problem> {
    set_running(&app, &job, RunState::Suspend).await
}

pub(super) async fn resume(
    State(app): State<App>,
    job: NamedJob,
) -> Result<Json<JobSummary>, Problem> {
    set_running(&app, &job, RunState::Resume).await
}

async fn set_running(
    app: &App,
    job: &NamedJob,
    state: RunState,
) -> Result<Json<JobSummary>, Problem> {
    let changed = app.cluster.set_running(&job.namespace, &job.name, state);
    let changed = changed.await.map_err(|error| job.explain(error))?;
    Ok(Json(JobSummary::of(&changed)))
}
