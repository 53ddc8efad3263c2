//! Writes a line to the audit log for each request that wants to change something.

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use jiff::Timestamp;
use tower_http::request_id::RequestId;

use super::app::App;
use super::authorized::Authorized;
use super::openapi::operations::Operation;
use super::problem::Problem;
use crate::audit::{Entry, Outcome};

/// A change that somebody wants, before it is answered.
pub(super) struct Attempt {
    operation: &'static str,
    /// The job or framework in the path.
    name: Option<String>,
    request_id: String,
}

/// The longest name that a line repeats. Valid names are shorter.
const MAX_NAME: usize = 253;

/// The change that a request wants, if it wants one. A preview changes nothing.
pub(super) fn attempt(
    app: &App,
    request: &Request,
    operation: Option<&'static Operation>,
) -> Option<Attempt> {
    app.audit.as_ref()?;
    let changes = !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    let operation = operation.filter(|operation| changes && operation.id != "previewJob")?;
    let id = request.extensions().get::<RequestId>();
    let id = id.and_then(|id| id.header_value().to_str().ok());
    Some(Attempt {
        operation: operation.id,
        name: named(operation, request.uri().path()),
        request_id: id.unwrap_or_default().to_string(),
    })
}

/// The part of a path that stands in place of the parameter of its operation.
fn named(operation: &Operation, path: &str) -> Option<String> {
    let parts = operation.path.split('/').zip(path.split('/'));
    let mut named = parts.filter(|(known, _)| known.starts_with('{'));
    let (_, name) = named.next()?;
    Some(name.chars().take(MAX_NAME).collect())
}

/// The line of a change that has been answered.
pub(super) fn entry(
    attempt: Attempt,
    caller: Option<&str>,
    authorized: Option<&Authorized>,
    answer: &Result<Response, Problem>,
) -> Entry {
    let subject = authorized.map(Authorized::subject).unwrap_or_default();
    let problem = match answer {
        Ok(response) => response.extensions().get::<Problem>(),
        Err(problem) => Some(problem),
    };
    let status = match (answer, problem) {
        (_, Some(problem)) => problem.status(),
        (Ok(response), None) => response.status(),
        (Err(problem), None) => problem.status(),
    };
    Entry {
        time: Timestamp::now().to_string(),
        who: caller.map(str::to_string),
        operation: attempt.operation.to_string(),
        namespace: subject.namespace,
        name: subject.name.or(attempt.name),
        request_id: attempt.request_id,
        status: status.as_u16(),
        outcome: match status {
            status if status.is_client_error() => Outcome::Refused,
            status if status.is_server_error() => Outcome::Failed,
            _ => Outcome::Done,
        },
        problem: problem.map(|problem| problem.kind().to_string()),
        codes: problem.map(Problem::codes).unwrap_or_default(),
        rules: subject.rules,
    }
}
