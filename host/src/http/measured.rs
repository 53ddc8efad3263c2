//! Metrics of requests, submissions and jobs.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use metrics::{counter, gauge, histogram};
use serde_json::Value;

use super::app::App;
use super::problem::Problem;
use super::trace_context;
use crate::cluster::Cluster;
use crate::job::JobState;
use crate::measure;

/// The label for requests whose framework is unknown.
const OTHER: &str = "other";

/// Measures a request. The label is its route, which contains nothing that clients choose.
pub(super) async fn request(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method(request.method());
    let response = next.run(request).await;
    trace_context::answered(response.status());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let (route, code) = (route.to_string(), response.status().as_u16().to_string());
    histogram!(measure::HTTP_REQUEST_DURATION.name, "route" => route.clone(), "method" => method)
        .record(begun.elapsed());
    counter!(measure::HTTP_REQUESTS.name, "route" => route, "method" => method, "code" => code)
        .increment(1);
    response
}

/// The framework of a submission.
pub(super) fn framework(app: &App, body: &Value) -> String {
    let named = body["framework"].as_str();
    let served = named.filter(|name| app.plugins.current().get(name).is_some());
    served.unwrap_or(OTHER).to_string()
}

/// Counts the outcome of a submission.
pub(super) fn submission(framework: String, answer: &Result<Response, Problem>) {
    let outcome = match answer {
        Ok(_) => "accepted",
        Err(problem) => problem.outcome(),
    };
    let labels = [("framework", framework), ("outcome", outcome.to_string())];
    counter!(measure::SUBMISSIONS.name, &labels).increment(1);
}

/// Measures the number of jobs, and the age of the cached state.
pub(super) fn cluster(cluster: &dyn Cluster) {
    let jobs = cluster.list();
    let states = jobs.map(|jobs| jobs.iter().map(|job| JobState::of(job)).collect::<Vec<_>>());
    for state in JobState::ALL {
        // The number is unknown while the cluster cannot be read.
        let count = states.as_ref().map_or(f64::NAN, |states| {
            states.iter().filter(|of| **of == state).count() as f64
        });
        gauge!(measure::JOBS.name, "status" => state.as_str()).set(count);
    }
    for (scope, age) in cluster.watch_ages() {
        gauge!(measure::WATCH_AGE.name, "scope" => scope).set(age.as_secs_f64());
    }
}

/// Clients can send any method; only standard ones become labels.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
