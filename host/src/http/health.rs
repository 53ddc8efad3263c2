//! Liveness, readiness and metrics.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::app::App;
use super::{measured, problem, query};
use crate::measure;

/// The specification's health check.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Liveness: the process responds.
pub(super) async fn livez() -> &'static str {
    "ok"
}

/// Readiness: plugins are loaded, the cluster is reachable, and the service is not shutting down.
pub(super) async fn readyz(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let mut checks = vec![
        Check::of("plugins", plugins(&app)),
        Check::of("plugin folder", Ok(app.plugins.watching().to_string())),
        Check::of("cluster", cluster(&app).await),
        Check::of("serving", serving(&app)),
    ];
    if let Some(access) = &app.access {
        checks.push(Check::of("access", Ok(access.state())));
    }
    let ready = checks.iter().all(|check| check.ok);
    let (status, word) = match ready {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    match query::has_flag(query.as_deref(), "verbose") {
        true => (status, Json(json!({ "status": word, "checks": checks }))).into_response(),
        false => (status, word).into_response(),
    }
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

impl Check {
    fn of(name: &'static str, result: Result<String, String>) -> Self {
        let ok = result.is_ok();
        let (Ok(detail) | Err(detail)) = result;
        Self { name, ok, detail }
    }
}

fn plugins(app: &App) -> Result<String, String> {
    let plugins = app.plugins.current();
    let mut lines = Vec::new();
    for plugin in plugins.all() {
        let identity = &plugin.identity;
        let rests = match plugin.resting() {
            Some(rest) => format!(", out of service for another {} s", rest.as_secs() + 1),
            None => String::new(),
        };
        lines.push(format!("{} {}{rests}", identity.name, identity.version));
    }
    let is_empty = lines.is_empty();
    for refused in plugins.refused() {
        let serving = match &refused.serving {
            Some(digest) => format!("; still serving {digest}"),
            None => String::new(),
        };
        lines.push(format!(
            "refused {}: {}{serving}",
            refused.source,
            refused.why()
        ));
    }
    let pulling = plugins.pulling().iter();
    lines.extend(pulling.map(|source| format!("pulling {source}")));
    match is_empty {
        true => Err(format!("no plugin is loaded; {}", lines.join("; "))),
        false => Ok(lines.join("; ")),
    }
}

/// Metrics in Prometheus format.
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    measured::cluster(app.cluster.as_ref());
    let media_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (media_type, measure::metrics().render())
}

async fn cluster(app: &App) -> Result<String, String> {
    let ready = app.cluster.ready().await;
    ready.map_err(|error| problem::chain(&error))
}

fn serving(app: &App) -> Result<String, String> {
    match *app.draining.borrow() {
        true => Err("shutting down".to_string()),
        false => Ok("serving".to_string()),
    }
}
