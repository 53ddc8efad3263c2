//! The life of one local job: it waits for slots, runs its replicas, restarts those that fail, and
//! ends, as the training operator and a kubelet would let it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::Machine;
use super::conditions::Transition;
use super::keeper::Report;
use super::replica::{Replica, ReplicaIndex, Surroundings};
use super::slots::{Lease, SlotKind};
use crate::job::{PyTorchJob, ReplicaStatus, ReplicaType, RestartPolicy};

/// The longest wait between two starts of a failing replica (kubelet, MaxContainerBackOff).
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// What happens to a replica.
#[derive(Debug)]
enum Event {
    Started(ReplicaIndex),
    Exited(ReplicaIndex, Exit),
}

/// How a replica's process ended.
#[derive(Debug)]
struct Exit {
    code: i32,
    cause: Option<String>,
}

/// Runs a job from wherever it stands to its end, or until the service shuts down.
pub(super) async fn run(machine: Arc<Machine>, key: String) {
    let Some(job) = machine.job(&key) else {
        return;
    };
    let replicas = ReplicaIndex::all(&job.spec);
    let gpus_per_replica = gpus_per_replica(&job);
    let needed = slots_needed(&machine, &job);
    let mut stopping = machine.stopping.subscribe();
    let lease = tokio::select! {
        lease = machine.slots.acquire(needed) => lease,
        _ = stopping.wait_for(|stopping| *stopping) => return,
    };
    match Run::new(machine.clone(), key, job, lease) {
        Ok(run) => run.supervise(&replicas, gpus_per_replica).await,
        Err(error) => error!(%error, "a local job cannot be started"),
    }
}

/// How many slots a job takes.
pub(super) fn slots_needed(machine: &Machine, job: &PyTorchJob) -> u32 {
    let replicas = ReplicaIndex::all(&job.spec).len();
    let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
    machine.slots.needed(replicas, gpus_per_replica(job))
}

fn gpus_per_replica(job: &PyTorchJob) -> u32 {
    let pod = job.spec.pytorch_replica_specs.master.template.spec.as_ref();
    let container = pod.and_then(|pod| pod.containers.first());
    let limits = container.and_then(|c| c.resources.as_ref()?.limits.as_ref());
    let gpus = limits.and_then(|limits| limits.get("nvidia.com/gpu")?.0.parse().ok());
    gpus.unwrap_or(0)
}

/// A job that has its slots.
struct Run {
    machine: Arc<Machine>,
    key: String,
    job: Arc<PyTorchJob>,
    lease: Lease,
    surroundings: Arc<Surroundings>,
}

impl Run {
    fn new(
        machine: Arc<Machine>,
        key: String,
        job: PyTorchJob,
        lease: Lease,
    ) -> std::io::Result<Self> {
        let surroundings = Surroundings {
            program: machine.settings.program.clone(),
            working_directory: machine.settings.working_directory.clone(),
            base: machine.settings.environment.clone(),
            folder: machine
                .settings
                .jobs_folder
                .join(job.namespace())
                .join(job.name()),
            master_port: free_port()?,
            job_uid: job.metadata.uid.clone().unwrap_or_default(),
        };
        Ok(Self {
            machine,
            key,
            job: Arc::new(job),
            lease,
            surroundings: Arc::new(surroundings),
        })
    }

    async fn supervise(self, replicas: &[ReplicaIndex], gpus_per_replica: u32) {
        let (events, mut happened) = mpsc::channel(64);
        let (stop, stopped) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for (number, replica) in replicas.iter().enumerate() {
            let gpus = self.gpus_of(number, gpus_per_replica);
            tasks.spawn(keep_running(
                self.job.clone(),
                *replica,
                gpus,
                self.surroundings.clone(),
                self.machine.settings.restart_backoff,
                events.clone(),
                stopped.clone(),
            ));
        }
        let mut stopping = self.machine.stopping.subscribe();
        let end = tokio::select! {
            end = self.follow(&mut happened) => Some(end),
            _ = stopping.wait_for(|stopping| *stopping) => None,
        };
        // The end of the job is told before its other replicas are gone: what they hold is theirs
        // until then, but nothing that they do can change it. A stop of the service is no end.
        let grace = match end {
            Some(_) => self.grace(),
            None => self.machine.settings.shutdown_grace,
        };
        if let Some(end) = end {
            self.machine
                .change(
                    &self.key,
                    |record| {
                        let status = record.job.status.get_or_insert_default();
                        no_replicas(&mut status.replica_statuses);
                    },
                    Some(end),
                )
                .await;
        }
        stop.send_replace(Some(grace));
        drop(events);
        happened.close();
        while tasks.join_next().await.is_some() {}
    }

    fn gpus_of(&self, number: usize, gpus_per_replica: u32) -> Option<Vec<u32>> {
        if self.machine.slots.kind() == SlotKind::Core {
            return None;
        }
        let each = gpus_per_replica as usize;
        let gpus = self.lease.gpus.iter().skip(number * each).take(each);
        Some(gpus.copied().collect())
    }

    fn grace(&self) -> Duration {
        let pod = self
            .job
            .spec
            .pytorch_replica_specs
            .master
            .template
            .spec
            .as_ref();
        let seconds = pod.and_then(|pod| pod.termination_grace_period_seconds);
        Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30))
    }

    /// Follows the replicas until the job has succeeded or failed.
    async fn follow(&self, happened: &mut mpsc::Receiver<Event>) -> Transition {
        while let Some(event) = happened.recv().await {
            if let Some(end) = self.take(event).await {
                return end;
            }
        }
        Transition::Failed {
            reason: "its replicas cannot be watched.".to_string(),
        }
    }

    async fn take(&self, event: Event) -> Option<Transition> {
        match event {
            Event::Started(replica) => {
                let running =
                    (replica.replica_type == ReplicaType::Master).then_some(Transition::Running);
                self.count(replica, |status| status.active += 1, running)
                    .await;
                None
            }
            Event::Exited(replica, exit) if exit.code == 0 => {
                let ended = |status: &mut ReplicaStatus| {
                    status.active = (status.active - 1).max(0);
                    status.succeeded += 1;
                };
                self.count(replica, ended, None).await;
                // The operator looks at the master alone.
                (replica.replica_type == ReplicaType::Master).then_some(Transition::Succeeded)
            }
            Event::Exited(replica, exit) => self.failed(replica, exit).await,
        }
    }

    async fn failed(&self, replica: ReplicaIndex, exit: Exit) -> Option<Transition> {
        let pod = replica.pod(self.job.name());
        let cause = exit
            .cause
            .map(|cause| format!(" ({cause})"))
            .unwrap_or_default();
        let what = format!("{pod} exited with code {}{cause}.", exit.code);
        warn!(job = self.key, pod, code = exit.code, "a replica failed");
        if !restarts(policy(&self.job, replica), exit.code) {
            let kind = replica.replica_type;
            let ended = |status: &mut ReplicaStatus| {
                status.active = (status.active - 1).max(0);
                status.failed += 1;
            };
            self.count(replica, ended, None).await;
            let reason = format!("1 {kind:?} replica(s) failed. {what}");
            return Some(Transition::Failed { reason });
        }
        // A kubelet restarts the container in its pod, which stays active while it does.
        let limit = self.job.spec.run_policy.backoff_limit;
        let mut restarts = 0;
        self.machine
            .change(
                &self.key,
                |record| {
                    record.restarts += 1;
                    restarts = record.restarts;
                    let status = record.job.status.get_or_insert_default();
                    let replica = status
                        .replica_statuses
                        .entry(replica.replica_type)
                        .or_default();
                    replica.active = (replica.active - 1).max(0);
                },
                None,
            )
            .await;
        (restarts >= limit).then(|| Transition::Failed {
            reason: format!("it has reached the specified backoff limit. {what}"),
        })
    }

    async fn count(
        &self,
        replica: ReplicaIndex,
        change: impl FnOnce(&mut ReplicaStatus),
        transition: Option<Transition>,
    ) {
        self.machine
            .change(
                &self.key,
                |record| {
                    let status = record.job.status.get_or_insert_default();
                    change(
                        status
                            .replica_statuses
                            .entry(replica.replica_type)
                            .or_default(),
                    );
                },
                transition,
            )
            .await;
    }
}

fn policy(job: &PyTorchJob, replica: ReplicaIndex) -> RestartPolicy {
    let replicas = &job.spec.pytorch_replica_specs;
    match (&replicas.worker, replica.replica_type) {
        (Some(worker), ReplicaType::Worker) => worker.restart_policy,
        _ => replicas.master.restart_policy,
    }
}

/// Whether a replica that failed with this exit code is started again. For `ExitCode` 1 to 127 are
/// permanent (kubeflow/trainer v1.9.4, pkg/util/train).
fn restarts(policy: RestartPolicy, code: i32) -> bool {
    match policy {
        RestartPolicy::Always | RestartPolicy::OnFailure => true,
        RestartPolicy::ExitCode => code >= 128,
        RestartPolicy::Never => false,
    }
}

/// Runs a replica, and again when it fails, until it succeeds or is told to stop. Whether a failed
/// one may start again is for [`Run`] to say: it stops everything when it may not.
async fn keep_running(
    job: Arc<PyTorchJob>,
    index: ReplicaIndex,
    gpus: Option<Vec<u32>>,
    surroundings: Arc<Surroundings>,
    first_backoff: Duration,
    events: mpsc::Sender<Event>,
    mut stopped: watch::Receiver<Option<Duration>>,
) {
    let mut backoff = first_backoff;
    loop {
        let exit = run_once(
            &job,
            index,
            gpus.as_deref(),
            &surroundings,
            &events,
            &mut stopped,
        );
        let exit = exit.await;
        let succeeded = exit.code == 0;
        if events.send(Event::Exited(index, exit)).await.is_err() || succeeded {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            _ = stopped.wait_for(Option::is_some) => return,
        }
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

async fn run_once(
    job: &PyTorchJob,
    index: ReplicaIndex,
    gpus: Option<&[u32]>,
    surroundings: &Surroundings,
    events: &mpsc::Sender<Event>,
    stopped: &mut watch::Receiver<Option<Duration>>,
) -> Exit {
    /// What a container's exit code is when the runtime cannot start it.
    const CANNOT_START: i32 = 128;
    let pod = index.pod(job.name());
    let mut replica = match Replica::start(job, index, gpus, surroundings).await {
        Ok(replica) => replica,
        Err(error) => {
            let cause = Some(format!("its keeper cannot be started: {error}"));
            let code = CANNOT_START;
            return Exit { code, cause };
        }
    };
    let mut cannot_start = None;
    let mut told_to_stop = false;
    loop {
        let report = tokio::select! {
            report = replica.report() => report,
            grace = told(stopped), if !told_to_stop => {
                replica.stop(grace).await;
                told_to_stop = true;
                continue;
            }
        };
        match report {
            Some(Report::Started { pid }) => {
                info!(pod, pid, "a replica started");
                let _ = events.send(Event::Started(index)).await;
            }
            Some(Report::CannotStart { reason }) => cannot_start = Some(reason),
            Some(Report::Exited { code }) => {
                let cause = match (code, cannot_start) {
                    (0, _) => None,
                    (_, Some(reason)) => Some(reason),
                    (_, None) => replica.cause().await,
                };
                return Exit { code, cause };
            }
            None => {
                let cause = Some("its keeper was killed".to_string());
                return Exit { code: 137, cause };
            }
        }
    }
}

/// The grace that replicas have, once they are told to stop.
async fn told(stopped: &mut watch::Receiver<Option<Duration>>) -> Duration {
    let told = stopped.wait_for(Option::is_some).await;
    told.ok().and_then(|grace| *grace).unwrap_or_default()
}

/// A port that is free now. The operator's 23456 is the pod's own there, but all jobs share this
/// machine.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}

/// The counts of a job whose replicas are all gone.
pub(super) fn no_replicas(counts: &mut BTreeMap<ReplicaType, ReplicaStatus>) {
    counts.values_mut().for_each(|count| count.active = 0);
}
