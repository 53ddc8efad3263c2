//! The one place where errors become HTTP: problem documents (RFC 9457).
//!
//! `detail` is always a string, which is what clients of the service before this one read. Causes
//! that are not the caller's are logged here, once, with the request's id, and never sent.

use std::any::Any;
use std::error::Error;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tower_http::request_id::RequestId;
use tracing::{error, warn};

use crate::cluster::ClusterError;
use crate::fault::{Fault, nearest};
use crate::plugin::{CallError, PlanError, Plugins};

const MEDIA_TYPE: &str = "application/problem+json";

/// An answer that is no success.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    /// The last part of the `type`: `urn:trainer:problem:<kind>`.
    kind: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<Fault>,
    header: Option<(HeaderName, &'static str)>,
    /// What is logged and not sent.
    cause: Option<String>,
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            title,
            detail: detail.into(),
            errors: Vec::new(),
            header: None,
            cause: None,
        }
    }

    fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub(super) fn unauthorized(detail: &str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Unauthorized",
            detail,
        )
        .with_header(
            header::WWW_AUTHENTICATE,
            "X-TRAINER-TOKEN realm=\"trainer\"",
        )
    }

    pub(super) fn media_type(given: &str) -> Self {
        let detail = match given {
            "" => "the Content-Type header is missing; send application/json".to_string(),
            given => format!("Content-Type {given:?} cannot be read; send application/json"),
        };
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, "media-type", "Unsupported media type", detail)
    }

    pub(super) fn too_large(allowed: usize) -> Self {
        let detail = format!("the body is larger than the {allowed} bytes allowed");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "Body too large",
            detail,
        )
    }

    pub(super) fn body_cut_off() -> Self {
        let detail = "the body ended before it was complete";
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-request",
            "Invalid request",
            detail,
        )
    }

    pub(super) fn no_such_route(method: &Method, path: &str) -> Self {
        let detail = format!("there is nothing at {method} {path}; POST /train submits a job");
        Self::new(StatusCode::NOT_FOUND, "no-such-route", "Not found", detail)
    }

    pub(super) fn no_such_method(method: &Method, path: &str) -> Self {
        let detail = format!("{path} does not take {method}; see the Allow header");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "no-such-method", "Method not allowed", detail)
    }

    pub(super) fn no_such_framework(name: &str, plugins: &Plugins) -> Self {
        let known: Vec<&str> = plugins.all().map(|p| p.identity.name.as_str()).collect();
        let hint = nearest(known.iter().copied(), name)
            .map(|near| format!(", did you mean {near}?"))
            .unwrap_or_default();
        let detail = format!(
            "framework {name} is not loaded here; known: {}{hint}",
            known.join(", ")
        );
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-framework",
            "Framework not found",
            detail,
        )
    }

    pub(super) fn internal(error: impl Error) -> Self {
        let detail = "an unexpected error in this service; its log has the cause";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "internal", "Internal error", detail).because(chain(&error))
    }

    fn document(&self, instance: &str) -> Value {
        let mut document = Map::new();
        document.insert(
            "type".into(),
            format!("urn:trainer:problem:{}", self.kind).into(),
        );
        document.insert("title".into(), self.title.into());
        document.insert("status".into(), self.status.as_u16().into());
        document.insert("detail".into(), self.detail.as_str().into());
        document.insert("instance".into(), instance.into());
        if !self.errors.is_empty() {
            document.insert("errors".into(), json!(self.errors));
        }
        Value::Object(document)
    }
}

/// Faults of a request, all at once.
impl From<Vec<Fault>> for Problem {
    fn from(errors: Vec<Fault>) -> Self {
        let details: Vec<&str> = errors.iter().map(|fault| fault.detail.as_str()).collect();
        let detail = details.join("; ");
        Self {
            errors,
            ..Self::new(
                StatusCode::BAD_REQUEST,
                "invalid-request",
                "Invalid request",
                detail,
            )
        }
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        let cause = chain(&error);
        match error {
            PlanError::Refused(faults) => faults.into(),
            PlanError::Failed { plugin, error } => {
                let what = match error {
                    CallError::Time { .. } => "took too long",
                    CallError::Stack { .. } | CallError::Exceeded(_) => "used too much memory",
                    CallError::Trap(_) | CallError::Lost => "crashed",
                    CallError::Answer(_) | CallError::Nonsense(_) => "gave an answer of no use",
                };
                let detail = format!(
                    "the plugin of framework {} {what}; nothing is wrong with the request as far \
                     as this service knows",
                    plugin.name
                );
                Self::new(
                    StatusCode::BAD_GATEWAY,
                    "plugin-failed",
                    "Plugin failed",
                    detail,
                )
                .because(cause)
            }
            PlanError::Busy { .. } => {
                let detail = "too many requests at once; try again in a second";
                Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "busy",
                    "Too many requests",
                    detail,
                )
                .with_header(header::RETRY_AFTER, "1")
                .because(cause)
            }
        }
    }
}

impl From<ClusterError> for Problem {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::AlreadyExists { .. } => {
                let (detail, status) = (error.to_string(), StatusCode::BAD_REQUEST);
                Self::new(status, "name-taken", "Job name taken", detail)
            }
            ClusterError::NotFound { .. } => {
                let (detail, status) = (error.to_string(), StatusCode::NOT_FOUND);
                Self::new(status, "no-such-job", "Job not found", detail)
            }
            ClusterError::Internal { .. } => Self::internal(error),
        }
    }
}

impl IntoResponse for Problem {
    /// The body comes from [`finish`], which knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every answer that is no success the form of a problem document, whoever made it, and logs
/// those that are not the caller's fault.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let id = id.as_ref().and_then(|id| id.header_value().to_str().ok());
    let instance = id.unwrap_or_default().to_string();
    let mut response = next.run(request).await;
    let status = response.status();
    let is_health = !status.is_client_error() && response.extensions().get::<Problem>().is_none();
    if status.as_u16() < 400 || (is_health && status == StatusCode::SERVICE_UNAVAILABLE) {
        return response;
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None => adopted(status, &mut response).await,
    };
    log(&problem);
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if let Some((name, value)) = &problem.header {
        parts.headers.insert(name, HeaderValue::from_static(value));
    }
    let document = problem.document(&instance).to_string();
    Response::from_parts(parts, Body::from(document))
}

/// A problem of an answer that the framework below made: its text is for the caller.
async fn adopted(status: StatusCode, response: &mut Response) -> Problem {
    /// More than any rejection of axum's.
    const MAX_TEXT: usize = 4096;
    let body = std::mem::take(response.body_mut());
    let text = axum::body::to_bytes(body, MAX_TEXT)
        .await
        .unwrap_or_default();
    let title = status.canonical_reason().unwrap_or("Error");
    let detail = match String::from_utf8_lossy(&text).trim() {
        "" => title.to_string(),
        text => text.to_string(),
    };
    let kind = match status.is_client_error() {
        true => "invalid-request",
        false => "internal",
    };
    Problem::new(status, kind, title, detail)
}

/// The answer when a handler panicked. That is a fault of this service, and logged as one.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let cause = format!("panic: {}", text.unwrap_or_default());
    Problem::internal(std::io::Error::other(cause)).into_response()
}

fn log(problem: &Problem) {
    let cause = problem.cause.as_deref().unwrap_or(&problem.detail);
    if problem.status.is_server_error() {
        error!(
            status = problem.status.as_u16(),
            kind = problem.kind,
            cause,
            "a request failed"
        );
    } else if problem.cause.is_some() {
        warn!(
            status = problem.status.as_u16(),
            kind = problem.kind,
            cause,
            "a request failed"
        );
    }
}

/// An error and all its sources: each says its own part only.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
