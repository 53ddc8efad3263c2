//! Logs on standard error, as text or JSON, and optional traces.

use std::io::IsTerminal;

use anyhow::Context;
use clap::{Args, ValueEnum};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// The settings of logging.
#[derive(Debug, Args)]
pub struct LogSettings {
    /// Log level, or tracing directives.
    #[arg(long, env = "TRAINER_LOG", default_value = "info")]
    pub log: String,
    /// Log format.
    #[arg(long, env = "TRAINER_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Libraries that log errors which they also return. The caller logs those.
const TOLD_TWICE: &str = "kube_client=off,kube_runtime=off";
/// The name of the service in traces.
const NAME: &str = "trainer";
/// The standard OpenTelemetry variables for the endpoint; the SDK reads the other `OTEL_*`
/// variables.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
];

/// Sends the remaining traces when it is dropped.
#[must_use]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Starts logging, and tracing if a collector is configured.
///
/// # Errors
///
/// If the directives or the collector's address are invalid.
pub fn start(settings: &LogSettings) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(format!("{TOLD_TWICE},{}", settings.log)).map_err(|_| {
        anyhow::anyhow!(
            "TRAINER_LOG (--log) is {:?}; it takes a level, which is error, warn, info, debug or trace, \
             or directives such as info,trainer_host=debug",
            settings.log
        )
    })?;
    let logs = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let logs: Box<dyn Layer<Registry> + Send + Sync> = match settings.log_format {
        LogFormat::Text => logs.with_filter(filter).boxed(),
        LogFormat::Json => logs.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let traces = is_collected().then(exporter).transpose()?;
    // The log filter does not affect traces.
    let spans = traces.as_ref().map(|traces| {
        tracing_opentelemetry::layer()
            .with_tracer(traces.tracer(NAME))
            .with_filter(Targets::new().with_target("trainer_host", Level::INFO))
    });
    tracing_subscriber::registry().with(logs).with(spans).init();
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Sends the remaining traces. Blocks for some seconds if the collector is unreachable.
    pub fn end(self) {
        let Some(traces) = self.traces else { return };
        if let Err(error) = traces.shutdown() {
            warn!(%error, "cannot send the last traces");
        }
    }
}

fn is_collected() -> bool {
    let named = |name| std::env::var_os(name).is_some_and(|address| !address.is_empty());
    ENDPOINTS.into_iter().any(named)
}

fn exporter() -> anyhow::Result<SdkTracerProvider> {
    // TLS to collectors needs a crypto provider, which reqwest does not configure itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder().with_http().build();
    let exporter = exporter.context("invalid OpenTelemetry settings")?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(NAME);
    }
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build())
}
