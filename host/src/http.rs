//! The HTTP interface: every route on one page, and handlers that read as a sentence.

mod body;
mod documentation;
mod events;
mod frameworks;
mod hardening;
mod health;
mod heavy;
mod idempotency;
mod jobs;
mod list;
mod logs;
mod measured;
mod metrics;
mod origin;
mod problem;
mod query;
mod reference;
mod representation;
mod streams;
mod token;
mod trace_context;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tower_http::request_id::{
    MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::field::Empty;
use tracing::{Span, info};

use crate::cluster::{Cluster, ClusterError, Created};
use crate::fault::Fault;
use crate::job::JobSummary;
use crate::manifest;
use crate::plan::Plan;
use crate::plugin::Registry;
use crate::preview::Preview;
use crate::pytorch_job::PyTorchJob;
use crate::request::{self, Checked, RequestPolicy};
use body::JsonBody;
use heavy::{LargeRequests, Load};
pub use origin::Origin;
use problem::Problem;
use query::Query;
use streams::Streams;
pub use token::{Failures, Token};

/// Carries a request's id, in and out.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest time for an answer. Nothing here waits for a job.
const LONGEST_ANSWER: Duration = Duration::from_secs(30);
/// Most logs that are open at once, those of each replica counted. Each takes two file handles.
const MAX_LOGS: usize = 512;
/// Most event streams that are open at once. Each takes a file handle.
const MAX_EVENT_STREAMS: usize = 4096;
/// Most warnings that become headers. All of them are in a preview.
const MAX_WARNING_HEADERS: usize = 16;

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    pub plugins: Arc<Registry>,
    pub cluster: Arc<dyn Cluster>,
    pub policy: Arc<RequestPolicy>,
    /// Nobody is asked for a token where there is none.
    pub token: Option<Token>,
    /// Names of this service beside its addresses, where no token is asked for.
    pub allowed_hosts: Arc<[String]>,
    /// Other sites whose pages may use this service.
    pub allowed_origins: Arc<[Origin]>,
    /// What is logged of requests without the right token.
    pub failures: Failures,
    /// Set when the service is about to end.
    pub draining: watch::Receiver<bool>,
}

impl App {
    /// Steps 1 and 2, with one set of plugins whatever is loaded meanwhile.
    async fn plan(&self, body: Value, load: &Load) -> Result<(Checked, Plan), Problem> {
        let plugins = self.plugins.current();
        let (loaded, policy) = (plugins.clone(), self.policy.clone());
        let check = move || request::check(body, loaded.schemas(), &policy);
        let checked = load.run(check).await??;
        self.policy.namespaces.check(&checked.request.namespace)?;
        let plan = plugins.plan(&checked).await?;
        Ok((checked, plan))
    }

    /// Step 4.
    async fn create(&self, job: PyTorchJob) -> Result<Created, ClusterError> {
        let created = self.cluster.create(job).await;
        created.map_err(|error| self.for_caller(error))
    }

    /// An error without what only callers of other namespaces may know.
    fn for_caller(&self, error: ClusterError) -> ClusterError {
        error.for_caller(|namespace| self.policy.namespaces.check(namespace).is_ok())
    }
}

/// The whole interface.
pub fn router(app: App) -> Router {
    // Load balancers and scrapers add parameters of their own, which these ignore.
    let probes = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics));
    let described = Router::new()
        .route("/openapi.json", get(documentation::openapi))
        .route("/docs", get(documentation::docs))
        .route_layer(middleware::from_fn(query::check))
        .route_layer(middleware::from_fn(hardening::check_room));
    let guarded = Router::new()
        .route("/train", get(list::list).post(submit))
        .route("/train/preview", post(preview))
        .route("/train/{job_name}", get(jobs::status).delete(jobs::delete))
        .route(
            "/train/{job_name}/logs",
            get(logs::logs).layer(Extension(Streams::new("logs", MAX_LOGS))),
        )
        .route(
            "/train/{job_name}/metrics",
            get(metrics::metrics).layer(Extension(Streams::new("metrics", MAX_LOGS))),
        )
        .route(
            "/train/{job_name}/events",
            get(events::events).layer(Extension(Streams::new("event streams", MAX_EVENT_STREAMS))),
        )
        .route("/train/{job_name}/manifest", get(jobs::manifest))
        .route("/train/{job_name}/suspend", post(jobs::suspend))
        .route("/train/{job_name}/resume", post(jobs::resume))
        .route("/frameworks", get(frameworks::all))
        .route("/frameworks/{name}", get(frameworks::one))
        .route("/frameworks/{name}/rollback", post(frameworks::roll_back))
        .route_layer(middleware::from_fn(representation::negotiate))
        .route_layer(middleware::from_fn(query::check))
        .route_layer(middleware::from_fn_with_state(app.clone(), token::check))
        .route_layer(middleware::from_fn(hardening::check_room));
    let guarded = match app.token {
        Some(_) => guarded,
        None => guarded.route_layer(origin::csrf(&app.allowed_origins)),
    };
    probes
        .merge(described)
        .merge(guarded)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(
            app.clone(),
            origin::check_host,
        ))
        .layer(Extension(LargeRequests::default()))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            LONGEST_ANSWER,
        ))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn(problem::finish))
        .layer(middleware::map_response(hardening::never_sniffed))
        .layer(CompressionLayer::new().compress_when(compressible()))
        .layer(middleware::from_fn(measured::request))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                // `problem::finish` logs what failed, with the cause.
                .on_failure(()),
        )
        .layer(option_layer(origin::cors(&app.allowed_origins)))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(middleware::map_request(hardening::check_id))
        .with_state(app)
}

async fn submit(
    State(app): State<App>,
    headers: HeaderMap,
    JsonBody { value, load }: JsonBody,
) -> Result<Response, Problem> {
    let framework = measured::framework(&app, &value);
    let answer = create(&app, &headers, value, &load).await;
    measured::submission(framework, &answer);
    answer
}

async fn create(
    app: &App,
    headers: &HeaderMap,
    body: Value,
    load: &Load,
) -> Result<Response, Problem> {
    let submission = idempotency::submission(headers, &body)?;
    let (checked, plan) = app.plan(body, load).await?;
    let warnings = || checked.warnings.iter().chain(&plan.warnings);
    let mut job = manifest::manifest(&checked.request, &plan);
    manifest::check_size(&job).map_err(|too_large| vec![too_large])?;
    manifest::remember(&mut job, warnings());
    let created = idempotency::create(app, job, submission).await?;
    Ok(accepted(&created, warnings()))
}

#[derive(Debug, Deserialize)]
struct PreviewQuery {
    dry_run: Option<DryRun>,
}

/// How far a preview goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DryRun {
    /// The cluster is asked whether it would admit the job.
    Server,
}

async fn preview(
    State(app): State<App>,
    Query(query): Query<PreviewQuery>,
    headers: HeaderMap,
    JsonBody { value, load }: JsonBody,
) -> Result<Response, Problem> {
    let (checked, plan) = app.plan(value, &load).await?;
    let preview = Preview::of(&checked.request, &plan, &checked.warnings);
    manifest::check_size(&preview.manifest).map_err(|too_large| vec![too_large])?;
    if query.dry_run == Some(DryRun::Server) {
        let tried = app.cluster.try_create(preview.manifest.clone()).await;
        tried.map_err(|error| app.for_caller(error))?;
    }
    match wants_yaml(&headers) {
        true => yaml(&preview.manifest),
        false => Ok(Json(preview).into_response()),
    }
}

async fn no_such_route(request: Request) -> Problem {
    Problem::no_such_route(request.method(), request.uri().path())
}

async fn no_such_method(request: Request) -> Problem {
    Problem::no_such_method(request.method(), request.uri().path())
}

fn span(request: &Request) -> Span {
    let id = request.extensions().get::<RequestId>();
    let id = id.and_then(|id| id.header_value().to_str().ok());
    let parent = trace_context::parent(request.headers());
    let span = tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        id = id.unwrap_or_default(),
        trace_id = trace_context::trace_id(&parent),
        otel.name = Empty,
        otel.kind = Empty,
    );
    trace_context::join(&span, parent, request);
    span
}

/// Logs are sent as they come, and compression would hold them back.
fn compressible() -> impl Predicate {
    DefaultPredicate::new().and(NotForContentType::const_new("text/plain"))
}

fn wants_yaml(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| {
        let mut types = accept.split(',').map(|range| range.split(';').next());
        types.any(|media| matches!(media.map(str::trim), Some("application/yaml")))
    })
}

fn yaml(value: &impl Serialize) -> Result<Response, Problem> {
    let text = serde_saphyr::to_string(value).map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], text).into_response())
}

/// The answer to a job that was created, with what its author should know as `Warning` headers.
fn accepted<'a>(created: &Created, faults: impl Iterator<Item = &'a Fault>) -> Response {
    let told = faults.map(|fault| format!("{} {}", fault.code, fault.detail));
    // What the cluster says of the moment, such as a lack of slots, is no part of the answer.
    let told: Vec<String> = told.collect();
    let summary = JobSummary::created(&created.job, &told);
    info!(
        job = summary.name,
        framework = summary.framework,
        "a job was created"
    );
    let warnings = warning_headers(told.into_iter().chain(created.warnings.iter().cloned()));
    let location = [(header::LOCATION, format!("/train/{}", summary.name))];
    (StatusCode::CREATED, location, warnings, Json(summary)).into_response()
}

/// `Warning` headers (RFC 7234, 5.5), each a sentence in quotes.
fn warning_headers(
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
