//! `POST /train`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde_json::Value;
use tracing::info;

use super::app::App;
use super::authorized::Authorized;
use super::body::JsonBody;
use super::heavy::Load;
use super::problem::Problem;
use super::{idempotency, measured};
use crate::cluster::Created;
use crate::finding::Finding;
use crate::job::JobSummary;
use crate::manifest;

/// The maximum number of `Warning` headers. A preview has all warnings.
const MAX_WARNING_HEADERS: usize = 16;

pub(super) async fn submit(
    State(app): State<App>,
    authorized: Authorized,
    headers: HeaderMap,
    JsonBody { value, load }: JsonBody,
) -> Result<Response, Problem> {
    let framework = measured::framework(&app, &value);
    let answer = create(&app, &authorized, &headers, value, &load).await;
    measured::submission(framework, &answer);
    answer
}

async fn create(
    app: &App,
    authorized: &Authorized,
    headers: &HeaderMap,
    body: Value,
    load: &Load,
) -> Result<Response, Problem> {
    let owner = authorized.principal.name();
    let submission = idempotency::submission(headers, &body, owner)?;
    let (checked, plan) = app.plan(body, load, authorized).await?;
    let warnings = || checked.warnings.iter().chain(&plan.warnings);
    let mut job = manifest::manifest(&checked.request, &plan);
    manifest::check_size(&job, checked.request.job_kind).map_err(|too_large| vec![too_large])?;
    manifest::record_warnings(&mut job, warnings());
    authorized.own(&mut job);
    let created = idempotency::create(app, authorized, &checked.request, job, submission).await?;
    Ok(accepted(&created, warnings()))
}

/// The response for a created job, with its warnings as `Warning` headers.
fn accepted<'a>(created: &Created, findings: impl Iterator<Item = &'a Finding>) -> Response {
    let message = findings.map(|finding| format!("{} {}", finding.code, finding.detail));
    // Temporary conditions of the cluster, such as a lack of slots, are not part of the body.
    let message: Vec<String> = message.collect();
    let summary = JobSummary::created(&created.job, &message);
    info!(
        job = summary.name,
        framework = summary.framework,
        "job created"
    );
    let warnings = warning_headers(message.into_iter().chain(created.warnings.iter().cloned()));
    let location = [(header::LOCATION, format!("/train/{}", summary.name))];
    (StatusCode::CREATED, location, warnings, Json(summary)).into_response()
}

/// `Warning` headers (RFC 7234, 5.5), each with a quoted sentence.
pub(super) fn warning_headers(
    warnings: impl Iterator<Item = String>,
) -> AppendHeaders<Vec<(HeaderName, HeaderValue)>> {
    let header = |text: String| {
        let quoted = text.replace(['\\', '"'], "'");
        let ascii: String = quoted
            .chars()
            .map(|c| {
                if c.is_ascii() && !c.is_control() {
                    c
                } else {
                    '?'
                }
            })
            .collect();
        let value = HeaderValue::from_str(&format!("299 - \"{ascii}\"")).ok()?;
        Some((header::WARNING, value))
    };
    AppendHeaders(
        warnings
            .take(MAX_WARNING_HEADERS)
            .filter_map(header)
            .collect(),
    )
}
