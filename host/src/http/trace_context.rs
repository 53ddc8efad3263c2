//! Trace context of requests (W3C Trace Context), so that log lines and spans can be correlated
//! with the traces of the client.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The remote span of a request, if it has a valid header.
pub(super) fn parent(headers: &HeaderMap) -> Context {
    // Not the current context, because a worker thread may be in the context of another request.
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers))
}

/// The trace id, if there is one.
pub(super) fn trace_id(parent: &Context) -> Option<String> {
    let span = parent.span();
    let span = span.span_context();
    span.is_valid().then(|| span.trace_id().to_string())
}

/// Makes a request's span part of its trace, following OpenTelemetry's HTTP conventions. Does
/// nothing if tracing is disabled.
pub(super) fn join(span: &Span, parent: Context, request: &Request) {
    if span.set_parent(parent).is_err() {
        return;
    }
    let route = request.extensions().get::<MatchedPath>();
    let method = request.method().as_str();
    let name = route.map_or_else(
        || method.to_string(),
        |route| format!("{method} {}", route.as_str()),
    );
    span.record("otel.name", name);
    span.record("otel.kind", "server");
    span.set_attribute("http.request.method", method.to_string());
    span.set_attribute("url.path", request.uri().path().to_string());
    if let Some(route) = route {
        span.set_attribute("http.route", route.as_str().to_string());
    }
}

/// Adds the response to the span of its request.
pub(super) fn answered(status: StatusCode) {
    let span = Span::current();
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_parent_has_a_trace() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let reported = |sent: &str| {
            let headers =
                HeaderMap::from_iter([("traceparent".parse().unwrap(), sent.parse().unwrap())]);
            trace_id(&parent(&headers))
        };
        let span = "b7ad6b7169203331";
        assert_eq!(
            reported(&format!("00-{trace}-{span}-01")).as_deref(),
            Some(trace)
        );
        assert_eq!(
            reported(&format!("cc-{trace}-{span}-01-more")).as_deref(),
            Some(trace)
        );
        for sent in [
            format!("ff-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            "nonsense".to_string(),
        ] {
            assert_eq!(reported(&sent), None, "{sent}");
        }
    }
}
