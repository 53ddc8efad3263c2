//! The binary: reads the settings and puts the parts together.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use trainer_host::client::terminal::visible;
use trainer_host::cluster::Cluster;
use trainer_host::cluster::kubernetes::KubernetesCluster;
use trainer_host::cluster::local::{LocalCluster, contain, keeper};
use trainer_host::config::{
    ClusterKind, Command, CommandLine, ExplainOutput, ExplainSettings, PlanningSettings,
    PreviewOutput, PreviewSettings, ServeSettings,
};
use trainer_host::explain::{self, Style};
use trainer_host::fault::Fault;
use trainer_host::http::{App, Failures, router};
use trainer_host::plugin::golden::OwnTests;
use trainer_host::plugin::{
    Limits, LoadError, Loader, LoaderSettings, PlanError, Plugin, Plugins, Registry, Workshop,
    watch, workshop,
};
use trainer_host::preview::Preview;
use trainer_host::{
    author, client, listen, manifest, measure, preflight, request, secrets, telemetry,
};

/// A request is many small strings; the C library's allocator is slow at those on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Serve(settings) => serve_in_private(*settings),
        Command::Preview(settings) => printed(on_runtime(preview(settings))),
        Command::Explain(settings) => printed(explain(&settings)),
        Command::Client(command) => return client::run(command),
        Command::StartReplica { inside } => return start_replica(inside),
        Command::KeepReplica => keeper::run().map_err(Into::into),
        Command::Plugin(command) => printed(author::run(command)),
        Command::MakePlugin => workshop::run().map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Every cause on one line, and no trace: this is for the person at the terminal.
            let error = format!("{error:#}");
            let _ = writeln!(std::io::stderr(), "error: {}", visible(&error));
            ExitCode::FAILURE
        }
    }
}

/// That nobody reads the output any more is no failure: `trainer explain hf | head -1`.
fn printed(done: anyhow::Result<()>) -> anyhow::Result<()> {
    let is_unread = |error: &anyhow::Error| {
        let mut causes = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        causes.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    };
    match done {
        Err(error) if is_unread(&error) => Ok(()),
        done => done,
    }
}

fn on_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build()?;
    let done = runtime.block_on(work);
    // Nobody waits for a plugin that is still being compiled.
    runtime.shutdown_background();
    done
}

/// The first processes of a replica end as it does.
fn start_replica(inside: bool) -> ExitCode {
    let ended = match inside {
        true => contain::run_inside(),
        false => contain::run(),
    };
    ended.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "error: {error}");
        ExitCode::FAILURE
    })
}

/// Serves without showing secrets to other processes of this user.
fn serve_in_private(mut settings: ServeSettings) -> anyhow::Result<()> {
    let hidden = secrets::hide(&settings.api_token);
    if let Some(token) = secrets::variable(secrets::API_TOKEN) {
        settings.api_token = token;
    }
    on_runtime(serve(settings, hidden))
}

async fn serve(settings: ServeSettings, hidden: std::io::Result<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    measure::metrics();
    let token = settings.token()?;
    let telemetry = telemetry::start(&settings.log)?;
    if let Err(error) = hidden {
        warn!(%error, "other processes of this user can read the secrets of this service");
    }
    let registry = Arc::new(registry(&settings.planning)?);
    let policy = settings.planning.policy()?;
    let cluster: Arc<dyn Cluster> = match settings.cluster() {
        ClusterKind::Kubernetes => {
            Arc::new(KubernetesCluster::connect(settings.kubernetes_cluster()).await?)
        }
        ClusterKind::Local => {
            let local = settings.local_cluster(std::env::current_exe()?);
            preflight::local(&local)
                .iter()
                .for_each(|missing| warn!("{missing}"));
            let opened = LocalCluster::open(local).await;
            let folder = settings.planning.data_dir.display();
            Arc::new(opened.with_context(|| format!("cannot use the data folder {folder}"))?)
        }
    };
    if token.is_none() && !settings.listen.ip().is_loopback() {
        warn!(
            listen = %settings.listen,
            "anybody who reaches this address can start jobs: set TRAINER_API_TOKEN"
        );
    }
    let (told, draining) = tokio::sync::watch::channel(false);
    let app = App {
        plugins: registry.clone(),
        cluster: cluster.clone(),
        policy: Arc::new(policy),
        token,
        allowed_hosts: settings.allowed_hosts.clone().into(),
        allowed_origins: settings.allowed_origins.clone().into(),
        failures: Failures::default(),
        draining: draining.clone(),
    };
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let address = listener.local_addr()?;
    info!(%address, ready_ms = begun.elapsed().as_millis(), "serving");
    tokio::spawn(watch::keep_current(registry));
    tokio::spawn(measure::sum_up());
    let grace = Duration::from_secs(settings.shutdown_grace);
    let mut late = draining.clone();
    let limits = settings.connections(getrlimit(Resource::Nofile).current);
    let server = listen::serve(listener, router(app), limits, draining);
    tokio::spawn(async move {
        stopped().await;
        info!("stopping: finishing the requests in flight");
        told.send_replace(true);
    });
    tokio::select! {
        () = server => {}
        () = async {
            let _ = late.wait_for(|told| *told).await;
            tokio::time::sleep(grace).await;
        } => warn!("requests in flight took longer than the grace and were cut off"),
    }
    cluster.shut_down().await;
    info!("stopped");
    tokio::task::spawn_blocking(|| telemetry.end()).await?;
    Ok(())
}

/// SIGTERM, as Kubernetes stops a container, or SIGINT, as a person does at a terminal.
async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// How far compiling a plugin steps back for the requests that are served beside it.
const COMPILING_STEPS_BACK: i32 = 10;

/// The plugins of a service: each is compiled in a process of its own.
fn registry(settings: &PlanningSettings) -> anyhow::Result<Registry> {
    let workshop = Workshop::Child {
        program: std::env::current_exe()?,
        niceness: COMPILING_STEPS_BACK,
    };
    let data = settings.data_dir.clone();
    let registry = open(settings, data, workshop, Registry::start)?;
    if !registry.is_pulling() {
        some(&registry.current(), &settings.plugins)?;
    }
    Ok(registry)
}

/// The plugins of a command that ends soon.
fn load(settings: &PlanningSettings) -> anyhow::Result<Arc<Plugins>> {
    let data = settings.data_or_cache();
    let plugins = open(settings, data, Workshop::Here, Registry::open)?.current();
    some(&plugins, &settings.plugins)?;
    Ok(plugins)
}

fn open(
    settings: &PlanningSettings,
    data: PathBuf,
    workshop: Workshop,
    registry: fn(Loader) -> Result<Registry, LoadError>,
) -> anyhow::Result<Registry> {
    let folder = &settings.plugins;
    if !folder.is_dir() {
        bail!(
            "there is no folder {} with plugins. In the repository `make plugins` builds them; \
             elsewhere --plugins or TRAINER_PLUGINS names a folder. Where a service runs, \
             `trainer submit --dry-run -f FILE` previews and `trainer frameworks` lists",
            folder.display()
        );
    }
    let loader = Loader::open(LoaderSettings {
        folder: folder.clone(),
        data,
        limits: Limits::default(),
        unknown: settings.unknown_arguments(),
        workshop,
        own_tests: OwnTests::Run,
    });
    loader
        .and_then(registry)
        .with_context(|| format!("cannot load plugins from {}", folder.display()))
}

fn some(plugins: &Plugins, folder: &Path) -> anyhow::Result<()> {
    if plugins.all().next().is_none() {
        bail!(
            "no plugin could be loaded from {}: `make plugins` builds them, TRAINER_PLUGINS names \
             another folder",
            folder.display()
        );
    }
    Ok(())
}

async fn preview(settings: PreviewSettings) -> anyhow::Result<()> {
    let plugins = load(&settings.planning)?;
    let value = read_request(&settings.file)?;
    let policy = settings.planning.policy()?;
    let checked = request::check(value, plugins.schemas(), &policy).map_err(refused)?;
    let plan = plugins.plan(&checked).await.map_err(|error| match error {
        PlanError::Refused(faults) => refused(faults),
        error => error.into(),
    })?;
    let preview = Preview::of(&checked.request, &plan, &checked.warnings);
    manifest::check_size(&preview.manifest).map_err(|too_large| refused(vec![too_large]))?;
    if let Some(parallel) = &preview.parallel {
        remark(&parallel.summary);
    }
    for warning in &preview.warnings {
        remark(&format!("warning: {} {}", warning.code, warning.detail));
    }
    let text = match settings.output {
        PreviewOutput::Yaml => serde_saphyr::to_string(&preview.manifest)?,
        PreviewOutput::Json => serde_json::to_string_pretty(&preview)? + "\n",
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Says something beside the output. Nobody may be reading it, which is no failure.
fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(text));
}

/// Columns of a table that goes to no terminal.
const COLUMNS: u16 = 100;

fn explain(settings: &ExplainSettings) -> anyhow::Result<()> {
    let plugins = load(&settings.planning)?;
    let frameworks: Vec<_> = plugins.all().map(Plugin::framework).collect();
    let columns = terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| width.0);
    let style = match settings.output {
        ExplainOutput::Text => Style::Terminal { columns },
        ExplainOutput::Markdown => Style::Markdown,
        ExplainOutput::Json => Style::Json,
    };
    let text = match &settings.topic {
        Some(topic) => explain::explain(topic, &frameworks, style)?,
        None => explain::overview(&frameworks),
    };
    let text = match settings.output {
        ExplainOutput::Json => text,
        ExplainOutput::Text | ExplainOutput::Markdown => visible(&text).into_owned(),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// A request from a file: JSON is YAML too, but only JSON's own reader sees a name given twice.
fn read_request(file: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|mut f| f.read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if text.trim_start().starts_with('{') {
        return request::json::parse(text.as_bytes()).map_err(refused);
    }
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", file.display()))
}

fn refused(faults: Vec<Fault>) -> anyhow::Error {
    let lines: Vec<String> = faults
        .iter()
        .map(|fault| format!("  {} {}", fault.code, fault.detail))
        .collect();
    anyhow::anyhow!("the request is refused:\n{}", lines.join("\n"))
}
