//! Logs: text for people, JSON for machines, on standard error. Metrics, for Prometheus.

use std::io::IsTerminal;
use std::sync::LazyLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// What libraries tell of errors that they also return, at length: who gets them logs them.
const TOLD_TWICE: &str = "kube_client=off,kube_runtime=off";

static METRICS: LazyLock<PrometheusHandle> = LazyLock::new(|| {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // Somebody else's recorder, in a test for one, leaves this one empty.
    let _ = metrics::set_global_recorder(recorder);
    handle
});

/// What is counted in this process. Counting begins with the first call.
pub fn metrics() -> &'static PrometheusHandle {
    &METRICS
}

/// Starts logging and counting.
///
/// # Errors
///
/// When the directives cannot be read.
pub fn start(settings: &LogSettings) -> anyhow::Result<()> {
    metrics();
    let filter = EnvFilter::try_new(format!("{TOLD_TWICE},{}", settings.log))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
