//! Resolves the job of a request: its name is in the path, its namespace in the query.
//!
//! Without a namespace, changes apply only to the default namespace. Reads fall back to the only
//! other namespace with such a job, and report it. Neither can access namespaces that are not
//! allowed on this service.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::app::App;
use super::problem::Problem;
use super::query::Query;
use super::submit::warning_headers;
use crate::cluster::ClusterError;

/// The name in the path of a request.
pub(super) struct Name(pub(super) String);

impl FromRequestParts<App> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let name = Path::from_request_parts(parts, app).await;
        let Path(name) = name.map_err(|_| Problem::unreadable_path())?;
        Ok(Self(name))
    }
}

/// The job of a request that changes or deletes a job.
pub(super) struct NamedJob {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Other namespaces with a job of this name, if the request has no namespace.
    elsewhere: Vec<String>,
}

/// The job of a request that reads a job.
pub(super) struct FoundJob {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The default namespace, if the job was found in another one.
    missing_in: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamespaceQuery {
    namespace: Option<String>,
}

impl NamedJob {
    /// Adds namespaces that have such a job to a "not found" error.
    pub(super) fn explain(&self, error: ClusterError) -> ClusterError {
        match error {
            ClusterError::NotFound { name } if !self.elsewhere.is_empty() => {
                ClusterError::Elsewhere {
                    name,
                    namespace: self.namespace.clone(),
                    namespaces: self.elsewhere.clone(),
                }
            }
            error => error,
        }
    }
}

impl FoundJob {
    fn of(job: NamedJob) -> Result<Self, ClusterError> {
        let NamedJob {
            namespace,
            name,
            elsewhere,
        } = job;
        match <[String; 1]>::try_from(elsewhere) {
            Ok([only]) => Ok(Self {
                namespace: only,
                name,
                missing_in: Some(namespace),
            }),
            Err(none) if none.is_empty() => Ok(Self {
                namespace,
                name,
                missing_in: None,
            }),
            Err(namespaces) => Err(ClusterError::Ambiguous { name, namespaces }),
        }
    }

    /// A response, with a warning if the job was found in an unexpected namespace.
    pub(super) fn answer(&self, answer: impl IntoResponse) -> Response {
        let Some(missing_in) = &self.missing_in else {
            return answer.into_response();
        };
        let Self {
            namespace, name, ..
        } = self;
        let told =
            format!("job {name} does not exist in namespace {missing_in}, but in {namespace}");
        let mut response = (warning_headers([told].into_iter()), answer).into_response();
        let location = HeaderValue::from_str(&format!("/train/{name}?namespace={namespace}"));
        if let Ok(location) = location {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LOCATION, location);
        }
        response
    }
}

impl FromRequestParts<App> for NamedJob {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Name(name) = Name::from_request_parts(parts, app).await?;
        let Query(NamespaceQuery { namespace }) = Query::from_request_parts(parts, app).await?;
        let allowed = &app.policy.namespaces;
        if let Some(namespace) = namespace {
            allowed.check(&namespace)?;
            return Ok(Self {
                namespace,
                name,
                elsewhere: Vec::new(),
            });
        }
        let namespace = app.policy.default_namespace.clone();
        let mut elsewhere = app.cluster.namespaces_of(&name);
        elsewhere.retain(|other| allowed.check(other).is_ok());
        if elsewhere.contains(&namespace) {
            elsewhere.clear();
        }
        Ok(Self {
            namespace,
            name,
            elsewhere,
        })
    }
}

impl FromRequestParts<App> for FoundJob {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let named = NamedJob::from_request_parts(parts, app).await?;
        Ok(Self::of(named)?)
    }
}
