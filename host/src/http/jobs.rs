//! What is asked of a job that is there.

use axum::Json;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::problem::Problem;
use super::{App, wants_yaml, yaml};
use crate::cluster::{self, Wish};
use crate::job::{JobDetails, JobSummary};

/// The job that is meant: its name in the path, its namespace in the query.
pub(super) struct JobReference {
    namespace: Option<String>,
    name: String,
}

impl JobReference {
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Debug, Deserialize)]
struct NamespaceQuery {
    namespace: Option<String>,
}

impl FromRequestParts<App> for JobReference {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let Path(name) = Path::from_request_parts(parts, app)
            .await
            .map_err(IntoResponse::into_response)?;
        let Query(NamespaceQuery { namespace }) = Query::from_request_parts(parts, app)
            .await
            .map_err(IntoResponse::into_response)?;
        if let Some(namespace) = &namespace {
            let allowed = app.policy.namespaces.check(namespace);
            allowed.map_err(|refused| Problem::from(refused).into_response())?;
        }
        Ok(Self { namespace, name })
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ViewQuery {
    view: Option<View>,
}

/// How much is told of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum View {
    /// The specification's five keys.
    Basic,
    Full,
}

pub(super) async fn status(
    State(app): State<App>,
    JobReference { namespace, name }: JobReference,
    Query(query): Query<ViewQuery>,
) -> Result<Response, Problem> {
    if query.view == Some(View::Full) {
        let inspection = app.cluster.inspect(namespace.as_deref(), &name).await?;
        let progress = cluster::progress(app.cluster.as_ref(), &inspection.job).await;
        return Ok(Json(JobDetails::of(inspection, progress)).into_response());
    }
    let job = app.cluster.get(namespace.as_deref(), &name).await?;
    Ok(Json(JobSummary::of(&job)).into_response())
}

pub(super) async fn manifest(
    State(app): State<App>,
    JobReference { namespace, name }: JobReference,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let manifest = app.cluster.manifest(namespace.as_deref(), &name).await?;
    match wants_yaml(&headers) {
        true => yaml(&manifest),
        false => Ok(Json(manifest).into_response()),
    }
}

pub(super) async fn delete(
    State(app): State<App>,
    JobReference { namespace, name }: JobReference,
) -> Result<StatusCode, Problem> {
    app.cluster.delete(namespace.as_deref(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn suspend(
    State(app): State<App>,
    job: JobReference,
) -> Result<Json<JobSummary>, Problem> {
    set_running(&app, &job, Wish::Suspend).await
}

pub(super) async fn resume(
    State(app): State<App>,
    job: JobReference,
) -> Result<Json<JobSummary>, Problem> {
    set_running(&app, &job, Wish::Resume).await
}

async fn set_running(
    app: &App,
    job: &JobReference,
    wish: Wish,
) -> Result<Json<JobSummary>, Problem> {
    let namespace = job.namespace.as_deref();
    let job = app.cluster.set_running(namespace, &job.name, wish).await?;
    Ok(Json(JobSummary::of(&job)))
}
