//! `POST /train/preview`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::app::App;
use super::authorized::Authorized;
use super::body::JsonBody;
use super::problem::Problem;
use super::query::Query;
use super::representation::{wants_yaml, yaml};
use crate::manifest;
use crate::preview::Preview;

#[derive(Debug, Deserialize)]
pub(super) struct PreviewQuery {
    dry_run: Option<DryRun>,
}

/// The extent of a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DryRun {
    /// Includes a server-side dry run by the cluster.
    Server,
}

pub(super) async fn preview(
    State(app): State<App>,
    authorized: Authorized,
    Query(query): Query<PreviewQuery>,
    headers: HeaderMap,
    JsonBody { value, load }: JsonBody,
) -> Result<Response, Problem> {
    let (checked, plan) = app.plan(value, &load, &authorized).await?;
    authorized.take_turn(&app, &checked.request).await?;
    let request = &checked.request;
    let mut preview = Preview::of(request, &plan, &checked.warnings);
    let job = manifest::manifest(request, &plan);
    manifest::check_size(&job, request.job_kind).map_err(|too_large| vec![too_large])?;
    if query.dry_run == Some(DryRun::Server) {
        let tried = app.cluster.try_create(job).await;
        let tried = tried.map_err(|error| authorized.visible_part(&app, error))?;
        preview.add_queue_warnings(tried.warnings);
    }
    match wants_yaml(&headers) {
        true => yaml(&preview.manifest),
        false => Ok(Json(preview).into_response()),
    }
}
