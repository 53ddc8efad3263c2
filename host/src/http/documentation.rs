//! `GET /openapi.json` and `GET /docs`: the documentation of this API.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use serde_json::Value;

use super::app::App;
use crate::explain::Framework;
use crate::http::openapi;
use crate::plugin::Plugin;

/// The page loads nothing and has no scripts.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

fn document(app: &App) -> Value {
    let plugins = app.plugins.current();
    let frameworks: Vec<Framework> = plugins.all().map(Plugin::framework).collect();
    openapi::document(&frameworks)
}

pub(super) async fn openapi(State(app): State<App>) -> Json<Value> {
    Json(document(&app))
}

pub(super) async fn docs(State(app): State<App>) -> Response {
    let page = Html(openapi::page(&document(&app)));
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], page).into_response()
}
