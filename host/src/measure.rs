//! The metrics of this process: names, help texts and the recorder.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>. Labels never contain
//! values that clients choose, such as names of jobs or runs, because each value would create a
//! permanent series.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    pub name: &'static str,
    pub labels: &'static [&'static str],
    /// The help text, in one line.
    pub meaning: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counter,
    Gauge,
    /// A histogram in seconds, with the upper bounds of its buckets.
    Duration(&'static [f64]),
}

/// Buckets for network operations in seconds, from OpenTelemetry's HTTP conventions.
const NETWORK_BOUNDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Buckets for calls within this process in seconds. A plugin in Rust takes 20 us, a plugin in
/// Python 1 ms.
const CALL_BOUNDS: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0,
];
/// How often histograms are aggregated. Until then each measurement uses memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

pub const BUILD_INFO: Measure = Measure {
    name: "trainer_build_info",
    labels: &["version"],
    meaning: "Always 1, labelled with the version of the service",
    kind: Kind::Gauge,
};
pub const HTTP_REQUESTS: Measure = Measure {
    name: "trainer_http_requests_total",
    labels: &["route", "method", "code"],
    meaning: "Number of requests answered",
    kind: Kind::Counter,
};
pub const HTTP_REQUEST_DURATION: Measure = Measure {
    name: "trainer_http_request_duration_seconds",
    labels: &["route", "method"],
    meaning: "Time until the response starts",
    kind: Kind::Duration(NETWORK_BOUNDS),
};
pub const SUBMISSIONS: Measure = Measure {
    name: "trainer_submissions_total",
    labels: &["framework", "outcome"],
    meaning: "Requests to create a job, by outcome: accepted, refused (invalid request), busy or \
              failed",
    kind: Kind::Counter,
};
pub const JOBS: Measure = Measure {
    name: "trainer_jobs",
    labels: &["status"],
    meaning: "Jobs in the cluster, including those that this service did not create; NaN if \
              unknown",
    kind: Kind::Gauge,
};
pub const PLUGIN_CALL_DURATION: Measure = Measure {
    name: "trainer_plugin_call_duration_seconds",
    labels: &["plugin", "outcome"],
    meaning: "Duration of plugin calls that planned the job, refused it, or failed",
    kind: Kind::Duration(CALL_BOUNDS),
};
pub const PLUGIN_FAILURES: Measure = Measure {
    name: "trainer_plugin_failures_total",
    labels: &["plugin", "kind"],
    meaning: "Failed plugin calls: a limit was exceeded (time, memory, stack), the plugin trapped, \
              or its response was invalid",
    kind: Kind::Counter,
};
pub const PLUGIN_LOADS: Measure = Measure {
    name: "trainer_plugin_loads_total",
    labels: &["source", "outcome"],
    meaning: "Attempts to load a plugin, by outcome",
    kind: Kind::Counter,
};
pub const PLUGIN_REFUSED: Measure = Measure {
    name: "trainer_plugin_refused",
    labels: &["source"],
    meaning: "1 if the newest plugin of the source is refused",
    kind: Kind::Gauge,
};
pub const PLUGINS_SERVED: Measure = Measure {
    name: "trainer_plugins_served",
    labels: &[],
    meaning: "Plugins being served",
    kind: Kind::Gauge,
};
pub const PLUGINS_DISPLACED: Measure = Measure {
    name: "trainer_plugins_displaced_total",
    labels: &["framework"],
    meaning: "Times that plugins.toml assigned a served framework to another source",
    kind: Kind::Counter,
};
pub const KUBERNETES_REQUESTS: Measure = Measure {
    name: "trainer_kubernetes_requests_total",
    labels: &["method", "outcome"],
    meaning: "Calls to the API server, by outcome: ok, an HTTP status, timed-out, unreachable or \
              cut-off",
    kind: Kind::Counter,
};
pub const KUBERNETES_REQUEST_DURATION: Measure = Measure {
    name: "trainer_kubernetes_request_duration_seconds",
    labels: &["method"],
    meaning: "Time until the API server responds",
    kind: Kind::Duration(NETWORK_BOUNDS),
};
/// Not by namespace, because Prometheus uses that label itself.
pub const WATCH_AGE: Measure = Measure {
    name: "trainer_watch_age_seconds",
    labels: &["scope"],
    meaning: "Time since the API server last responded to the job watch; normally at most a minute",
    kind: Kind::Gauge,
};

pub const CONNECTIONS: Measure = Measure {
    name: "trainer_connections",
    labels: &[],
    meaning: "Open connections",
    kind: Kind::Gauge,
};
pub const CONNECTIONS_CLOSED: Measure = Measure {
    name: "trainer_connections_closed_total",
    labels: &["reason"],
    meaning: "Connections closed by a limit: slow, crowded (closed in favour of another) or \
              refused",
    kind: Kind::Counter,
};
pub const AUTHENTICATION_FAILURES: Measure = Measure {
    name: "trainer_authentication_failures_total",
    labels: &["reason"],
    meaning: "Requests refused because of a missing or wrong token",
    kind: Kind::Counter,
};

/// All metrics.
pub const ALL: &[Measure] = &[
    BUILD_INFO,
    CONNECTIONS,
    CONNECTIONS_CLOSED,
    AUTHENTICATION_FAILURES,
    HTTP_REQUESTS,
    HTTP_REQUEST_DURATION,
    SUBMISSIONS,
    JOBS,
    PLUGIN_CALL_DURATION,
    PLUGIN_FAILURES,
    PLUGIN_LOADS,
    PLUGIN_REFUSED,
    PLUGINS_SERVED,
    PLUGINS_DISPLACED,
    KUBERNETES_REQUESTS,
    KUBERNETES_REQUEST_DURATION,
    WATCH_AGE,
];

static METRICS: LazyLock<PrometheusHandle> = LazyLock::new(|| {
    let builder = ALL.iter().fold(PrometheusBuilder::new(), with_bounds);
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // If another recorder is installed, for example in a test, this one stays empty.
    let _ = metrics::set_global_recorder(recorder);
    ALL.iter().for_each(describe);
    gauge!(BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    handle
});

/// The recorder of this process, installed on the first call.
pub fn metrics() -> &'static PrometheusHandle {
    &METRICS
}

/// Why this service closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The client was too slow to send a request, or to read an answer.
    Slowness,
    /// It was idle and was closed in favour of another.
    Crowd,
    /// There was no room for it.
    Refusal,
}

/// Sets how many connections are open.
pub fn connections(count: usize) {
    gauge!(CONNECTIONS.name).set(count as f64);
}

/// Counts a connection that a limit closed.
pub fn connection_closed(by: ClosedBy) {
    let reason = match by {
        ClosedBy::Slowness => "slow",
        ClosedBy::Crowd => "crowded",
        ClosedBy::Refusal => "refused",
    };
    counter!(CONNECTIONS_CLOSED.name, "reason" => reason).increment(1);
}

/// Aggregates periodically while polled, because metrics may never be scraped.
pub async fn run_upkeep() {
    let mut turns = tokio::time::interval(UPKEEP_EVERY);
    loop {
        turns.tick().await;
        metrics().run_upkeep();
    }
}

fn with_bounds(builder: PrometheusBuilder, measure: &Measure) -> PrometheusBuilder {
    let Kind::Duration(bounds) = measure.kind else {
        return builder;
    };
    let name = Matcher::Full(measure.name.to_string());
    // This only fails for an empty list.
    builder
        .set_buckets_for_metric(name, bounds)
        .unwrap_or_default()
}

fn describe(measure: &Measure) {
    let Measure { name, meaning, .. } = *measure;
    match measure.kind {
        Kind::Counter => describe_counter!(name, meaning),
        Kind::Gauge => describe_gauge!(name, meaning),
        Kind::Duration(_) => describe_histogram!(name, Unit::Seconds, meaning),
    }
}
