//! One attempt of a replica: starts its shim, and reports its events.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{info, warn};

use super::jobs::{JobId, LocalJobs};
use super::lifecycle::{Attempt, Event, Exit};
use super::orphans;
use super::replica::{Replica, ReplicaContext, ReplicaIndex};
use super::shim::Report;
use crate::job;
use crate::pytorch_job::PyTorchJob;

/// What a container's exit code is when the runtime cannot start it.
const CANNOT_START: i32 = 128;
/// The exit code of a process that was killed.
const KILLED: i32 = 137;

/// What an attempt is made of.
#[derive(Debug)]
pub(super) struct Launch {
    pub id: JobId,
    pub attempt: Attempt,
    pub job: PyTorchJob,
    pub index: ReplicaIndex,
    pub gpus: Option<Vec<u32>>,
    pub context: ReplicaContext,
}

/// Runs the attempt until no process of it is left, or its shim is gone. `stops` brings the grace
/// when the replica is to stop.
pub(super) async fn run(
    machine: Arc<LocalJobs>,
    launch: Launch,
    mut stops: UnboundedReceiver<Duration>,
) {
    let Launch {
        id, attempt, job, ..
    } = &launch;
    let (index, gpus) = (launch.index, launch.gpus.as_deref());
    let event = match Replica::start(job, index, gpus, &launch.context).await {
        Ok(replica) => follow(&machine, &launch, replica, &mut stops).await,
        Err(error) => {
            let cause = Some(format!("its shim cannot be started: {error}"));
            Event::Exited(*attempt, Exit::ordinary(CANNOT_START, cause))
        }
    };
    if let Event::Exited(_, Exit { code, .. }) = &event {
        info!(pod = index.pod(job.name()), code, "a replica ended");
    }
    machine.handle_until_stored(id, event).await;
}

/// Reports the start of a replica, and gives how it ended.
async fn follow(
    machine: &Arc<LocalJobs>,
    launch: &Launch,
    mut replica: Replica,
    stops: &mut UnboundedReceiver<Duration>,
) -> Event {
    let attempt = launch.attempt;
    let mut cannot_start = None;
    loop {
        let report = tokio::select! {
            report = replica.report() => report,
            Some(grace) = stops.recv() => {
                replica.stop(grace).await;
                continue;
            }
        };
        match report {
            Some(Report::Started { pid }) => {
                info!(
                    pod = launch.index.pod(launch.job.name()),
                    pid, "a replica started"
                );
                machine
                    .handle_until_stored(&launch.id, Event::Started(attempt))
                    .await;
            }
            Some(Report::CannotStart { reason }) => cannot_start = Some(reason),
            Some(Report::Exited { code }) => {
                let exit = match cannot_start {
                    Some(reason) => Exit::not_started(code, reason),
                    None => replica.exit(code).await,
                };
                let template = &launch.job.spec.pytorch_replica_specs.master.template;
                let hint = job::replaced_search_path(template, code);
                let cause = job::with_hint(exit.cause, hint);
                replica.gone().await;
                return Event::Exited(attempt, Exit { cause, ..exit });
            }
            None => return Event::ShimLost(attempt),
        }
    }
}

/// Kills the processes that a killed shim has left behind, and reports that the replica has ended.
pub(super) async fn end_lost(machine: Arc<LocalJobs>, id: JobId, attempt: Attempt) {
    if let Err(error) = tokio::task::spawn_blocking(orphans::end).await {
        warn!(%error, "what a shim left cannot be killed");
    }
    let cause = Some("its shim was killed".to_string());
    let exit = Exit::ordinary(KILLED, cause);
    machine
        .handle_until_stored(&id, Event::Exited(attempt, exit))
        .await;
}
