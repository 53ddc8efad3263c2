//! Lists frameworks and refused plugins, and rolls back to an earlier version.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::app::App;
use super::authorized::Authorized;
use super::problem::Problem;
use super::reference::Name;
use crate::plugin::{Plugin, Refused, Reload};
use crate::request::RequestPolicy;

/// A framework that requests can use.
#[derive(Debug, Serialize)]
struct FrameworkView<'a> {
    name: &'a str,
    version: &'a str,
    summary: &'a str,
    digest: &'a str,
    /// Source of the plugin.
    source: &'a str,
    /// Set while the plugin is out of service after repeated failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    out_of_service_seconds: Option<u64>,
    args_schema: &'a Value,
}

impl<'a> FrameworkView<'a> {
    fn of(plugin: &'a Plugin) -> Self {
        Self {
            name: &plugin.identity.name,
            version: &plugin.identity.version,
            summary: &plugin.summary,
            digest: &plugin.identity.digest,
            source: &plugin.source,
            out_of_service_seconds: plugin.resting().map(|rest| rest.as_secs() + 1),
            args_schema: &plugin.args_schema,
        }
    }
}

/// The image of jobs that name none, with its packages if they are known.
#[derive(Debug, Serialize)]
struct ImageView<'a> {
    image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    packages: Option<Value>,
}

impl<'a> ImageView<'a> {
    fn default_of(policy: &'a RequestPolicy) -> Self {
        let packages = policy.images.packages(&policy.default_image);
        Self {
            image: &policy.default_image,
            packages: packages.map(|packages| json!(*packages)),
        }
    }
}

/// A source whose plugin was refused.
#[derive(Debug, Serialize)]
struct RefusedView<'a> {
    source: &'a str,
    reason: String,
    /// The digest of the version that is served instead.
    serving: Option<&'a str>,
}

impl<'a> RefusedView<'a> {
    fn of(refused: &'a Refused) -> Self {
        Self {
            source: &refused.source,
            reason: refused.why(),
            serving: refused.serving.as_deref(),
        }
    }
}

pub(super) async fn all(State(app): State<App>) -> Response {
    let plugins = app.plugins.current();
    let frameworks: Vec<_> = plugins.all().map(FrameworkView::of).collect();
    let refused: Vec<_> = plugins.refused().iter().map(RefusedView::of).collect();
    let default_image = ImageView::default_of(&app.policy);
    let answer = json!({
        "frameworks": frameworks,
        "refused": refused,
        "default_image": default_image,
    });
    Json(answer).into_response()
}

pub(super) async fn one(State(app): State<App>, Name(name): Name) -> Result<Response, Problem> {
    let plugins = app.plugins.current();
    let plugin = plugins.get(&name);
    let plugin = plugin.ok_or_else(|| Problem::no_such_framework(&name, &plugins))?;
    Ok(Json(FrameworkView::of(plugin)).into_response())
}

/// Looks at every source again, what was refused before too.
pub(super) async fn reload(State(app): State<App>) -> Result<Response, Problem> {
    let registry = app.plugins.clone();
    tokio::task::spawn_blocking(move || registry.reload(Reload::RetryRefused))
        .await
        .map_err(Problem::internal)?;
    Ok(all(State(app)).await)
}

pub(super) async fn roll_back(
    State(app): State<App>,
    authorized: Authorized,
    Name(framework): Name,
) -> Result<Response, Problem> {
    authorized.note("", Some(&framework));
    let registry = app.plugins.clone();
    // It waits for a reload that is under way.
    let served = tokio::task::spawn_blocking(move || registry.roll_back(&framework))
        .await
        .map_err(Problem::internal)??;
    one(State(app), Name(served)).await
}
