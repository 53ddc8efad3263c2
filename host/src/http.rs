//! The HTTP API: all routes and the middleware.

mod app;
mod audited;
mod authorized;
mod body;
mod console;
mod documentation;
mod events;
mod feed;
mod frameworks;
mod given;
mod guesses;
mod hardening;
mod health;
mod heavy;
mod idempotency;
mod jobs;
mod list;
mod logs;
mod measured;
mod metrics;
pub mod openapi;
mod origin;
mod preview;
mod problem;
mod query;
mod reference;
mod representation;
mod revocation;
mod streams;
mod submit;
mod token;
mod trace_context;
mod whoami;

use std::time::Duration;

use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, HeaderName, StatusCode, Version};
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tower_http::request_id::{
    MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;
use tracing::field::Empty;

pub use app::{App, AppParts};
use heavy::LargeRequests;
pub use origin::Origin;
use problem::Problem;
use streams::Streams;
pub use token::{Failures, Token};
pub use whoami::WhoAmI;

/// The header with the id of a request, in requests and responses.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The time limit for responses. No handler waits for a job.
const LONGEST_ANSWER: Duration = Duration::from_secs(30);
/// The maximum number of open logs, counted per replica. Each needs two file handles.
const MAX_LOGS: usize = 512;
/// The maximum number of open event streams. Each needs a file handle.
const MAX_EVENT_STREAMS: usize = 4096;

/// The whole API.
pub fn router(app: App) -> Router {
    let event_streams = Extension(Streams::new("event streams", MAX_EVENT_STREAMS));
    // Load balancers and scrapers add their own parameters, which these routes ignore.
    let probes = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route(
            "/metrics",
            get(health::metrics).route_layer(middleware::from_fn_with_state(
                app.clone(),
                token::check_if_named,
            )),
        );
    let described = Router::new()
        .route("/openapi.json", get(documentation::openapi))
        .route("/docs", get(documentation::docs))
        .route("/", get(console::page))
        .route("/console/{*path}", get(console::file))
        .route_layer(middleware::from_fn(query::check))
        .route_layer(middleware::from_fn(hardening::check_room));
    let guarded = Router::new()
        .route("/train", get(list::list).post(submit::submit))
        .route("/train/preview", post(preview::preview))
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
            get(events::events).layer(event_streams.clone()),
        )
        .route("/events", get(feed::feed).layer(event_streams))
        .route("/train/{job_name}/manifest", get(jobs::manifest))
        .route("/train/{job_name}/request", get(jobs::request))
        .route("/train/{job_name}/suspend", post(jobs::suspend))
        .route("/train/{job_name}/resume", post(jobs::resume))
        .route("/whoami", get(whoami::whoami))
        .route("/frameworks", get(frameworks::all))
        .route("/frameworks/{name}", get(frameworks::one))
        .route("/frameworks/reload", post(frameworks::reload))
        .route("/frameworks/{name}/rollback", post(frameworks::roll_back))
        .route_layer(middleware::from_fn(representation::negotiate))
        .route_layer(middleware::from_fn(query::check))
        .route_layer(middleware::from_fn_with_state(app.clone(), token::check))
        .route_layer(middleware::from_fn(hardening::check_room));
    let guarded = match app.requires_token() {
        true => guarded,
        false => guarded.route_layer(origin::csrf(&app.allowed_origins)),
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
                // `problem::finish` logs failures with their cause.
                .on_failure(()),
        )
        .layer(option_layer(origin::cors(&app.allowed_origins)))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(middleware::map_request(hardening::check_id))
        .with_state(app)
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

/// Logs are sent as they arrive; compression would delay them. The console's files have an encoding
/// already.
fn compressible() -> impl Predicate {
    let is_plain = |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| {
        extensions.get::<console::Encoded>().is_none()
    };
    let not_text = NotForContentType::const_new("text/plain");
    DefaultPredicate::new().and(not_text).and(is_plain)
}
