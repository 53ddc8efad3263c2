//! Converts errors to HTTP responses: problem documents (RFC 9457). Nothing else does.
//!
//! `detail` is always a string, because older clients read it. Causes that are not the caller's
//! fault are logged here, once, with the request's id, and never sent.

mod conversions;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tower_http::request_id::RequestId;
use tracing::{error, warn};

use crate::access_rules::Forbidden;
use crate::finding::{Code, Finding, Kind, TYPE_PREFIX};
use crate::plugin::Plugins;
use crate::request::schema::quote_text;
use crate::suggestion::did_you_mean;

/// The maximum length of other `detail` texts, and of `instance`. JSON may need six bytes for a
/// character.
const MAX_DETAIL_BYTES: usize = 16 * 1024;
const MAX_INSTANCE_BYTES: usize = 1024;
const MEDIA_TYPE: &str = "application/problem+json";

/// An error response.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    kind: Kind,
    detail: String,
    errors: Vec<Finding>,
    header: Option<(&'static str, Cow<'static, str>)>,
    /// Logged, but not sent.
    cause: Option<String>,
}

impl Problem {
    fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(kind.status());
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            kind,
            detail,
            errors: Vec::new(),
            header: None,
            cause: None,
        }
    }

    fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.header = Some((name, value.into()));
        self
    }

    fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unauthorized, detail)
            .with_header("www-authenticate", "X-TRAINER-TOKEN realm=\"trainer\"")
    }

    pub(super) fn forbidden(refused: &Forbidden) -> Self {
        let kind = match refused {
            Forbidden::Namespace { .. } => Kind::NamespaceNotAllowed,
            Forbidden::Role { .. } | Forbidden::NotOwner { .. } => Kind::Forbidden,
        };
        Self::new(kind, refused.to_string())
    }

    pub(super) fn media_type(given: &str) -> Self {
        let detail = match given {
            "" => "the Content-Type header is missing; send application/json".to_string(),
            given => format!(
                "unsupported Content-Type {}; send application/json",
                quote_text(given)
            ),
        };
        Self::new(Kind::MediaType, detail)
    }

    pub(super) fn too_large(allowed: usize) -> Self {
        let detail = format!("the body is too large; at most {allowed} bytes are allowed");
        Self::new(Kind::TooLarge, detail)
    }

    /// A temporary overload.
    pub(super) fn busy(what: &str) -> Self {
        Self::new(Kind::Busy, format!("{what}; try again in a second"))
            .with_header("retry-after", "1")
    }

    pub(super) fn body_cut_off() -> Self {
        let detail = "the connection closed before the body was complete";
        Self::new(Kind::InvalidRequest, detail)
    }

    pub(super) fn key_reused(job: &str) -> Self {
        let detail = format!(
            "this Idempotency-Key was already used with a different request (job {job}); use a new \
             key for a new request"
        );
        Self::new(Kind::KeyReused, detail)
    }

    pub(super) fn too_many_streams(detail: String) -> Self {
        Self::new(Kind::Busy, detail).with_header("retry-after", "5")
    }

    /// An invalid query parameter.
    pub(super) fn parameter(name: &str, detail: impl std::fmt::Display) -> Self {
        vec![Finding::new(Code::Query, "", format!("{name}: {detail}"))].into()
    }

    pub(super) fn crowded() -> Self {
        let detail = "too many connections at once; try again in a second";
        Self::new(Kind::Busy, detail).with_header("retry-after", "1")
    }

    pub(super) fn slow_body(limit: Duration) -> Self {
        let detail = format!("the body did not arrive within {} seconds", limit.as_secs());
        Self::new(Kind::SlowBody, detail).with_header("connection", "close")
    }

    pub(super) fn unreadable_path() -> Self {
        let detail = "the path contains percent-encoded bytes that are not UTF-8";
        Self::new(Kind::InvalidRequest, detail)
    }

    pub(super) fn foreign_host(host: &str) -> Self {
        let detail = format!(
            "without a token this service only accepts an IP address or localhost as Host, not \
             {host:?}; add the name to TRAINER_ALLOWED_HOSTS, or set TRAINER_API_TOKEN"
        );
        Self::new(Kind::ForeignHost, detail)
    }

    pub(super) fn no_such_route(method: &Method, path: &str) -> Self {
        let detail = format!("no such route: {method} {path}; submit jobs with POST /train");
        Self::new(Kind::NoSuchRoute, detail)
    }

    pub(super) fn no_such_method(method: &Method, path: &str) -> Self {
        let detail = format!("method {method} is not allowed on {path}; see the Allow header");
        Self::new(Kind::NoSuchMethod, detail)
    }

    pub(super) fn no_such_framework(name: &str, plugins: &Plugins) -> Self {
        let known: Vec<&str> = plugins.all().map(|p| p.identity.name.as_str()).collect();
        let hint = did_you_mean(name, known.iter().copied());
        let detail = format!(
            "unknown framework {name}; known: {}{hint}",
            known.join(", ")
        );
        Self::new(Kind::NoSuchFramework, detail)
    }

    pub(super) fn internal(error: impl Error) -> Self {
        let detail = "internal error; the cause is in the log of this service";
        Self::new(Kind::Internal, detail).because(chain(&error))
    }

    /// The outcome of a submission, for metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self.kind {
            Kind::Busy => "busy",
            _ if self.status.is_client_error() => "refused",
            _ => "failed",
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The last part of the type.
    pub(super) fn kind(&self) -> &'static str {
        self.kind.as_str()
    }

    /// The codes of the findings, for the audit log.
    pub(super) fn codes(&self) -> Vec<String> {
        self.errors
            .iter()
            .map(|finding| finding.code.clone())
            .collect()
    }

    fn document(&self, instance: &str) -> Value {
        let mut document = Map::new();
        document.insert(
            "type".into(),
            format!("{TYPE_PREFIX}{}", self.kind.as_str()).into(),
        );
        document.insert("title".into(), self.kind.title().into());
        document.insert("status".into(), self.status.as_u16().into());
        document.insert("detail".into(), self.detail.as_str().into());
        let instance = &instance[..instance.floor_char_boundary(MAX_INSTANCE_BYTES)];
        document.insert("instance".into(), instance.into());
        if !self.errors.is_empty() {
            document.insert("errors".into(), json!(self.errors));
        }
        Value::Object(document)
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

/// Converts every error response to a problem document, wherever it was created, and logs those
/// that are not the caller's fault.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let id = id.as_ref().and_then(|id| id.header_value().to_str().ok());
    let instance = id.unwrap_or_default().to_string();
    let mut response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        // The readiness probe has its own body.
        None if status == StatusCode::SERVICE_UNAVAILABLE => return response,
        None => adopted(status, &mut response).await,
    };
    log(&problem);
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if let Some((name, value)) = &problem.header
        && let Ok(value) = HeaderValue::from_str(value)
    {
        parts.headers.insert(*name, value);
    }
    let document = problem.document(&instance).to_string();
    Response::from_parts(parts, Body::from(document))
}

/// The problem for an error response of axum, whose text is meant for the caller.
async fn adopted(status: StatusCode, response: &mut Response) -> Problem {
    /// Longer than any rejection of axum.
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
        true => Kind::InvalidRequest,
        false => Kind::Internal,
    };
    Problem {
        status,
        ..Problem::new(kind, detail)
    }
}

/// The response when a handler panicked.
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
            kind = ?problem.kind,
            cause,
            "a request failed"
        );
    } else if problem.cause.is_some() {
        warn!(
            status = problem.status.as_u16(),
            kind = ?problem.kind,
            cause,
            "a request failed"
        );
    }
}

/// Joins an error and all its sources into one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
