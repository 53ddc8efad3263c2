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
use super::authorized::{Authorized, JobProblem};
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
    fn of(located: Located) -> Result<Self, ClusterError> {
        let Located {
            namespace,
            name,
            elsewhere,
        } = located;
        match (<[String; 1]>::try_from(elsewhere), namespace) {
            (Ok([only]), missing_in) => Ok(Self {
                namespace: only,
                name,
                missing_in,
            }),
            (Err(none), Some(namespace)) if none.is_empty() => Ok(Self {
                namespace,
                name,
                missing_in: None,
            }),
            (Err(none), None) if none.is_empty() => Err(ClusterError::NotFound { name }),
            (Err(namespaces), _) => Err(ClusterError::Ambiguous { name, namespaces }),
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
        let message =
            format!("job {name} does not exist in namespace {missing_in}, but in {namespace}");
        let mut response = (warning_headers([message].into_iter()), answer).into_response();
        let location = HeaderValue::from_str(&format!("/train/{name}?namespace={namespace}"));
        if let Ok(location) = location {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LOCATION, location);
        }
        response
    }
}

/// Where the job of a request can be.
struct Located {
    name: String,
    /// The namespace of the request, or the caller's default; none if the caller has several and
    /// the default namespace is not one of them.
    namespace: Option<String>,
    /// Other namespaces with a job of this name, if the request has no namespace.
    elsewhere: Vec<String>,
}

impl Located {
    async fn of(parts: &mut Parts, app: &App, authorized: &Authorized) -> Result<Self, Problem> {
        let Name(name) = Name::from_request_parts(parts, app).await?;
        let Query(NamespaceQuery { namespace }) = Query::from_request_parts(parts, app).await?;
        if let Some(namespace) = namespace {
            authorized.note(&namespace, Some(&name));
            authorized.check_namespace(app, &namespace)?;
            return Ok(Self {
                name,
                namespace: Some(namespace),
                elsewhere: Vec::new(),
            });
        }
        let is_visible = |other: &str| authorized.may_see(app, other);
        let mut elsewhere = app.cluster.namespaces_of(&name, &is_visible);
        let namespace = authorized.default_namespace(app);
        if namespace
            .as_ref()
            .is_some_and(|own| elsewhere.contains(own))
        {
            elsewhere.clear();
        }
        Ok(Self {
            name,
            namespace,
            elsewhere,
        })
    }
}

impl FromRequestParts<App> for NamedJob {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Ok(authorized) = Authorized::from_request_parts(parts, app).await;
        let located = Located::of(parts, app, &authorized).await?;
        let Some(namespace) = located.namespace else {
            let known = authorized.visible(app).join(", ");
            let detail = format!("required, because you have several namespaces: {known}");
            return Err(Problem::parameter("namespace", detail));
        };
        let job = Self {
            namespace,
            name: located.name,
            elsewhere: located.elsewhere,
        };
        match authorized.check_job(app, &job.namespace, &job.name).await {
            Ok(()) => Ok(job),
            Err(JobProblem::Cluster(error)) => Err(job.explain(error).into()),
            Err(JobProblem::Refused(problem)) => Err(problem),
        }
    }
}

impl FromRequestParts<App> for FoundJob {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Ok(authorized) = Authorized::from_request_parts(parts, app).await;
        let job = Self::of(Located::of(parts, app, &authorized).await?)?;
        match authorized.check_job(app, &job.namespace, &job.name).await {
            Ok(()) => Ok(job),
            Err(JobProblem::Cluster(error)) => Err(error.into()),
            Err(JobProblem::Refused(problem)) => Err(problem),
        }
    }
}
