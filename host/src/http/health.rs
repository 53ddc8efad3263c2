//! Is the service alive, and can it take jobs.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::App;

/// The specification's health check.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The process answers.
pub(super) async fn livez() -> &'static str {
    "ok"
}

#[derive(Debug, Deserialize)]
pub(super) struct ReadyQuery {
    verbose: Option<String>,
}

/// Jobs can be taken: plugins are loaded, the cluster is there, the service is not about to end.
pub(super) async fn readyz(State(app): State<App>, Query(query): Query<ReadyQuery>) -> Response {
    let checks = [
        Check::of("plugins", plugins(&app)),
        Check::of("cluster", cluster(&app).await),
        Check::of("serving", serving(&app)),
    ];
    let ready = checks.iter().all(|check| check.ok);
    let (status, word) = match ready {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    match query.verbose {
        Some(_) => (status, Json(json!({ "status": word, "checks": checks }))).into_response(),
        None => (status, word).into_response(),
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
    let loaded: Vec<String> = app
        .plugins
        .all()
        .map(|plugin| format!("{} {}", plugin.identity.name, plugin.identity.version))
        .collect();
    let refused = app.plugins.refused().iter().map(|refused| {
        let file = refused.file.file_name().unwrap_or_default();
        format!("; refused {}: {}", file.display(), refused.error)
    });
    let detail = loaded.join(", ") + &refused.collect::<String>();
    match loaded.is_empty() {
        true => Err(format!("none is loaded{detail}")),
        false => Ok(detail),
    }
}

async fn cluster(app: &App) -> Result<String, String> {
    match app.cluster.ready().await {
        Ok(()) => Ok("reachable".to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn serving(app: &App) -> Result<String, String> {
    match *app.draining.borrow() {
        true => Err("about to end".to_string()),
        false => Ok("serving".to_string()),
    }
}
