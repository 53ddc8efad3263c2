//! `trainer serve`: starts the service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch as watch_channel;
use tracing::{info, warn};

use super::plugins::registry;
use crate::access::{self, AccessControl};
use crate::audit::Audit;
use crate::cluster::Cluster;
use crate::cluster::kubernetes::KubernetesCluster;
use crate::cluster::local::LocalCluster;
use crate::config::{ClusterKind, ServeSettings};
use crate::http::{App, AppParts, Failures, router};
use crate::plugin::watch;
use crate::request::RequestPolicy;
use crate::{listen, measure, memory, preflight, secrets, telemetry};

/// Serves, with secrets hidden from other processes of this user.
pub(super) fn serve_in_private(mut settings: ServeSettings) -> anyhow::Result<()> {
    let hidden = secrets::hide(&settings.api_token);
    if let Some(token) = secrets::variable(secrets::API_TOKEN) {
        settings.api_token = token;
    }
    super::on_runtime(serve(settings, hidden))
}

async fn serve(settings: ServeSettings, hidden: std::io::Result<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    measure::metrics();
    let token = settings.token()?;
    let access = settings.access_file().map(|file| access::read(file));
    let access = access.transpose()?;
    let audit = audit_log(&settings)?;
    let telemetry = telemetry::start(&settings.log)?;
    if let Err(error) = hidden {
        warn!(%error, "other processes of this user can read the secrets of this service");
    }
    if token.is_none() && access.is_none() && !settings.listen.ip().is_loopback() {
        warn!(
            listen = %settings.listen,
            "no token is set, so anyone who reaches this address can start jobs; set \
             TRAINER_API_TOKEN"
        );
    }
    let registry = Arc::new(registry(&settings.planning)?);
    let mut policy = settings.planning.policy()?;
    policy.secrets = settings.allowed_secrets();
    policy.images = settings.images(policy.images);
    let (cluster, reviews) = cluster(&settings, &policy).await?;
    let access = access.map(|access| AccessControl::new(access).with_reviews_by(reviews));
    let access = access.map(Arc::new);
    let doubts = access.iter().flat_map(|access| access.doubts());
    doubts.for_each(|doubt| warn!("{doubt}"));
    let (stops, draining) = watch_channel::channel(false);
    let app = AppParts {
        plugins: registry.clone(),
        cluster: cluster.clone(),
        policy: Arc::new(policy),
        token,
        access: access.clone(),
        audit,
        allowed_hosts: settings.allowed_hosts.clone().into(),
        allowed_origins: settings.allowed_origins.clone().into(),
        failures: Failures::default(),
        draining,
    };
    let app = App::from(app);
    let listener = listen::bind(settings.listen)
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let address = listener.local_addr()?;
    info!(%address, ready_ms = begun.elapsed().as_millis(), "serving");
    let every = Duration::from_secs(settings.plugins_poll);
    tokio::spawn(watch::keep_current(registry, every));
    if let (Some(control), Some(file)) = (access, settings.access_file().cloned()) {
        tokio::spawn(access::keep_current(control, file, every));
    }
    tokio::spawn(measure::run_upkeep());
    tokio::spawn(memory::return_unused());
    serve_until_stopped(&settings, listener, app, stops).await;
    cluster.shut_down().await;
    info!("stopped");
    tokio::task::spawn_blocking(|| telemetry.end()).await?;
    Ok(())
}

/// The cluster of the settings, and the client by which an API server reviews tokens.
async fn cluster(
    settings: &ServeSettings,
    policy: &RequestPolicy,
) -> anyhow::Result<(Arc<dyn Cluster>, Option<kube::Client>)> {
    if settings.cluster() == ClusterKind::Kubernetes {
        let kubernetes = settings.kubernetes_cluster(&policy.profiles);
        let cluster = KubernetesCluster::connect(kubernetes).await?;
        let client = cluster.client();
        return Ok((Arc::new(cluster), Some(client)));
    }
    let local = settings.local_cluster(std::env::current_exe()?)?;
    preflight::local(&local)
        .iter()
        .for_each(|missing| warn!("{missing}"));
    let folder = local.data_folder.clone();
    let opened = LocalCluster::open(local).await;
    let folder = folder.display();
    let opened = opened.with_context(|| format!("cannot use the data folder {folder}"))?;
    Ok((Arc::new(opened), None))
}

/// Serves until SIGTERM or Ctrl-C, and then until the requests in flight have ended or the grace
/// period is over.
async fn serve_until_stopped(
    settings: &ServeSettings,
    listener: TcpListener,
    app: App,
    stops: watch_channel::Sender<bool>,
) {
    let grace = Duration::from_secs(settings.shutdown_grace);
    let draining = stops.subscribe();
    let mut late = draining.clone();
    let limits = settings.connections(getrlimit(Resource::Nofile).current);
    let server = listen::serve(listener, router(app), limits, draining);
    tokio::spawn(async move {
        stopped().await;
        info!("shutting down; waiting for requests in flight");
        stops.send_replace(true);
    });
    tokio::select! {
        () = server => {}
        () = async {
            let _ = late.wait_for(|stops| *stops).await;
            tokio::time::sleep(grace).await;
        } => warn!("grace period expired; requests in flight were aborted"),
    }
}

/// The audit log, which must be writable from the start.
fn audit_log(settings: &ServeSettings) -> anyhow::Result<Option<Arc<Audit>>> {
    let Some(audit) = settings.audit() else {
        return Ok(None);
    };
    let checked = audit.check();
    checked.context("cannot write to the audit log that TRAINER_AUDIT names")?;
    Ok(Some(Arc::new(audit)))
}

/// Waits for SIGTERM, as sent by Kubernetes, or SIGINT, as sent by Ctrl-C.
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
