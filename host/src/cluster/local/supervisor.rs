//! The life of one local job: it waits for slots, runs its replicas, restarts those that fail, and
//! ends, as the training operator and a kubelet would let it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::conditions::Transition;
use super::keeper::Report;
use super::machine::Machine;
use super::replica::{Replica, ReplicaIndex, Surroundings};
use super::slots::{Lease, SlotKind};
use super::store::Record;
use crate::job::{PodDetails, PyTorchJob, ReplicaStatus, ReplicaType, RestartPolicy};

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

/// What is to become of a job, as long as it has not ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Run,
    /// Stop its replicas, and wait for another order.
    Suspend,
    /// Stop its replicas, and forget it.
    Delete,
}

/// Why a run is over.
enum Over {
    Ended,
    /// There is another order, or the service shuts down.
    Interrupted,
}

/// Runs a job from wherever it stands to its end, as it is ordered, or until the service shuts down.
pub(super) async fn run(machine: Arc<Machine>, key: String, mut orders: watch::Receiver<Order>) {
    let mut stopping = machine.stopping.subscribe();
    loop {
        let order = *orders.borrow_and_update();
        let over = match order {
            Order::Delete => return,
            Order::Suspend => Over::Interrupted,
            Order::Run => run_once_more(&machine, &key, &mut orders).await,
        };
        if matches!(over, Over::Ended) {
            return;
        }
        if order == Order::Suspend {
            tokio::select! {
                changed = orders.changed() => if changed.is_err() { return },
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
        if *stopping.borrow() {
            return;
        }
    }
}

/// Waits for slots and runs the job.
async fn run_once_more(
    machine: &Arc<Machine>,
    key: &str,
    orders: &mut watch::Receiver<Order>,
) -> Over {
    let Some(job) = machine.job(key) else {
        return Over::Ended;
    };
    let replicas = ReplicaIndex::all(&job.spec);
    let gpus_per_replica = gpus_per_replica(&job);
    let needed = slots_needed(machine, &job);
    let mut stopping = machine.stopping.subscribe();
    let lease = tokio::select! {
        lease = machine.slots.acquire(needed) => lease,
        _ = orders.changed() => return Over::Interrupted,
        _ = stopping.wait_for(|stopping| *stopping) => return Over::Interrupted,
    };
    match Run::new(machine.clone(), key.to_string(), job, lease) {
        Ok(run) => run.supervise(&replicas, gpus_per_replica, orders).await,
        Err(error) => {
            error!(%error, "a local job cannot be started");
            Over::Ended
        }
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
            folder: machine.folder(job.namespace(), job.name()),
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

    async fn supervise(
        self,
        replicas: &[ReplicaIndex],
        gpus_per_replica: u32,
        orders: &mut watch::Receiver<Order>,
    ) -> Over {
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
        let end = self.follow(&mut happened, orders).await;
        // The end of the job is told before its other replicas are gone: what they hold is theirs
        // until then, but nothing that they do can change it. A stop of the service is no end.
        let service_stops = *self.machine.stopping.borrow();
        let grace = match service_stops {
            true => self.machine.settings.shutdown_grace,
            false => self.grace(),
        };
        let over = match end {
            Some(end) => {
                self.machine.change(&self.job, no_replicas, Some(end)).await;
                Over::Ended
            }
            None => Over::Interrupted,
        };
        stop.send_replace(Some(grace));
        drop(events);
        happened.close();
        while tasks.join_next().await.is_some() {}
        over
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

    /// Follows the replicas until the job has succeeded or failed, or is interrupted.
    async fn follow(
        &self,
        happened: &mut mpsc::Receiver<Event>,
        orders: &mut watch::Receiver<Order>,
    ) -> Option<Transition> {
        let mut stopping = self.machine.stopping.subscribe();
        let deadline = self.deadline();
        tokio::pin!(deadline);
        loop {
            // Nothing that has happened is given up half done: only the waiting is.
            let event = tokio::select! {
                event = happened.recv() => event,
                () = &mut deadline => return Some(Transition::Failed {
                    reason: "it was active longer than specified deadline".to_string(),
                }),
                _ = orders.changed() => return None,
                _ = stopping.wait_for(|stopping| *stopping) => return None,
            };
            let end = match event {
                Some(event) => self.take(event).await,
                None => Some(Transition::Failed {
                    reason: "its replicas cannot be watched.".to_string(),
                }),
            };
            if end.is_some() {
                return end;
            }
        }
    }

    /// The end of the time that the job may be active.
    async fn deadline(&self) {
        match self.job.spec.run_policy.active_deadline_seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
            None => std::future::pending().await,
        }
    }

    async fn take(&self, event: Event) -> Option<Transition> {
        match event {
            Event::Started(replica) => {
                let running =
                    (replica.replica_type == ReplicaType::Master).then_some(Transition::Running);
                let started = |status: &mut ReplicaStatus, pod: &mut PodDetails| {
                    status.active += 1;
                    pod.phase = "Running".to_string();
                    pod.started_at = Some(Time(Timestamp::now()));
                    pod.finished_at = None;
                };
                self.count(replica, started, running).await;
                None
            }
            Event::Exited(replica, exit) if exit.code == 0 => {
                let ended = |status: &mut ReplicaStatus, pod: &mut PodDetails| {
                    status.active = (status.active - 1).max(0);
                    status.succeeded += 1;
                    "Succeeded".clone_into(&mut pod.phase);
                    exit.tell(pod);
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
        let code = exit.code;
        let cause = exit.cause.as_ref().map(|cause| format!(" ({cause})"));
        let what = format!(
            "{pod} exited with code {code}{}.",
            cause.unwrap_or_default()
        );
        warn!(job = self.key, pod, code, "a replica failed");
        if !restarts(policy(&self.job, replica), code) {
            let kind = replica.replica_type;
            let ended = |status: &mut ReplicaStatus, pod: &mut PodDetails| {
                status.active = (status.active - 1).max(0);
                status.failed += 1;
                "Failed".clone_into(&mut pod.phase);
                exit.tell(pod);
            };
            self.count(replica, ended, None).await;
            let reason = format!("1 {kind:?} replica(s) failed. {what}");
            return Some(Transition::Failed { reason });
        }
        // A kubelet restarts the container in its pod, which stays active while it does.
        let limit = self.job.spec.run_policy.backoff_limit;
        let mut restarts = 0;
        let restarted = |record: &mut Record| {
            record.restarts += 1;
            restarts = record.restarts;
            let (status, pod) = self.of(record, replica);
            status.active = (status.active - 1).max(0);
            // The last failure is not followed by a restart.
            match restarts >= limit {
                true => "Failed".clone_into(&mut pod.phase),
                false => pod.restarts += 1,
            }
            exit.tell(pod);
        };
        self.machine.change(&self.job, restarted, None).await;
        (restarts >= limit).then(|| Transition::Failed {
            reason: format!("it has reached the specified backoff limit. {what}"),
        })
    }

    /// Where the count of a replica's type and the replica itself are kept.
    fn of<'a>(
        &self,
        record: &'a mut Record,
        replica: ReplicaIndex,
    ) -> (&'a mut ReplicaStatus, &'a mut PodDetails) {
        let status = record.job.status.get_or_insert_default();
        let count = status.replica_statuses.entry(replica.replica_type);
        let name = replica.pod(self.job.name());
        let pod = record.pods.entry(name);
        let pod = pod.or_insert_with(|| replica.waiting(self.job.name()));
        (count.or_default(), pod)
    }

    async fn count(
        &self,
        replica: ReplicaIndex,
        change: impl FnOnce(&mut ReplicaStatus, &mut PodDetails),
        transition: Option<Transition>,
    ) {
        let counted = |record: &mut Record| {
            let (status, pod) = self.of(record, replica);
            change(status, pod);
        };
        self.machine.change(&self.job, counted, transition).await;
    }
}

impl Exit {
    /// Writes how a replica ended into what is told of it.
    fn tell(self, pod: &mut PodDetails) {
        pod.exit_code = Some(self.code);
        pod.message = self.cause;
        pod.finished_at = Some(Time(Timestamp::now()));
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

/// Takes note that the replicas of a job are all gone.
pub(super) fn no_replicas(record: &mut Record) {
    let status = record.job.status.get_or_insert_default();
    let counts = status.replica_statuses.values_mut();
    counts.for_each(|count| count.active = 0);
    // As the operator does with `cleanPodPolicy: Running`: what has ended is kept.
    record.pods.retain(|_, pod| pod.phase != "Running");
}
