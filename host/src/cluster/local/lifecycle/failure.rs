//! How a replica's process ends, and whether the replica starts again.

use std::time::Duration;

use jiff::Timestamp;

use super::{Action, Attempt, Job, LostEnd, ReplicaState, Stage};
use crate::cluster::local::conditions::Transition;
use crate::cluster::local::replica::ReplicaIndex;
use crate::job::{Restart, cause};
use crate::pytorch_job::{PyTorchJob, ReplicaType, RestartPolicy};

/// The longest wait between two starts of a failing replica (kubelet, MaxContainerBackOff).
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// How often a job starts again at another port before that counts as a failure.
const MAX_TAKEN_PORTS: u32 = 5;

/// How a replica's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::local) struct Exit {
    pub code: i32,
    /// The cause of the failure, from the log.
    pub cause: Option<String>,
    pub kind: ExitKind,
}

/// Whether a restart can help after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster::local) enum ExitKind {
    Ordinary,
    /// A restart fails in the same way.
    Permanent,
    /// Another process listens on the port where the nodes were to meet.
    PortTaken,
}

impl Exit {
    /// An end that says nothing about the next start.
    pub fn ordinary(code: i32, cause: Option<String>) -> Self {
        let kind = ExitKind::Ordinary;
        Self { code, cause, kind }
    }

    /// The end of a replica whose program was not started.
    pub fn not_started(code: i32, reason: String) -> Self {
        let kind = match cause(&[], code).restart {
            Restart::MayHelp => ExitKind::Ordinary,
            Restart::IsUseless => ExitKind::Permanent,
        };
        let cause = Some(reason);
        Self { code, cause, kind }
    }
}

impl Job {
    pub(super) fn exited(
        &mut self,
        attempt: Attempt,
        exit: &Exit,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(replica) = self.attempted(attempt) else {
            return;
        };
        let index = replica.index;
        let end = LostEnd::Stop;
        if matches!(replica.stage(), Some(Stage::Stopping))
            || replica.stage() == Some(Stage::Lost { end })
        {
            replica.state = ReplicaState::Idle;
            return;
        }
        if exit.code != 0 {
            return self.failed(attempt, exit, now, actions);
        }
        replica.state = ReplicaState::Succeeded;
        self.tell_exited(index, exit, now);
        // The operator looks at the master alone.
        if index.replica_type == ReplicaType::Master {
            self.end(&Transition::Succeeded, now);
        }
    }

    fn failed(&mut self, attempt: Attempt, exit: &Exit, now: Timestamp, actions: &mut Vec<Action>) {
        let index = self.replicas[attempt.replica].index;
        let pod = index.pod(self.record.job.name());
        self.tell_exited(index, exit, now);
        if exit.kind == ExitKind::PortTaken && self.taken_ports < MAX_TAKEN_PORTS {
            self.taken_ports += 1;
            return self.start_over(attempt, actions);
        }
        let cause = exit.cause.as_ref().map(|cause| format!(" ({cause})"));
        let what = format!(
            "{pod} exited with code {}{}.",
            exit.code,
            cause.unwrap_or_default()
        );
        match self.why_it_ends(index, exit) {
            Some(why) => {
                self.replicas[attempt.replica].state = ReplicaState::Failed;
                let reason = format!("{why}{what}");
                self.end(&Transition::Failed { reason }, now);
            }
            None => self.wait_for_restart(attempt.replica, now),
        }
    }

    /// Starts all replicas at another port. That is nobody's failure.
    fn start_over(&mut self, attempt: Attempt, actions: &mut Vec<Action>) {
        self.replicas[attempt.replica].state = ReplicaState::Idle;
        let grace = self.grace();
        for number in 0..self.replicas.len() {
            self.stop(number, grace, actions);
        }
    }

    /// Why a failure is the job's last one, if it is. Counts the failure.
    fn why_it_ends(&mut self, index: ReplicaIndex, exit: &Exit) -> Option<String> {
        if exit.kind == ExitKind::Permanent {
            return Some("a restart cannot fix this failure: ".to_string());
        }
        if !restarts(policy(&self.record.job, index), exit.code) {
            let kind = index.replica_type;
            return Some(format!("1 {kind:?} replica(s) failed. "));
        }
        self.record.restarts += 1;
        let limit = self.record.job.spec.run_policy.backoff_limit;
        let reached = self.record.restarts >= limit;
        reached.then(|| "it has reached the specified backoff limit. ".to_string())
    }

    fn wait_for_restart(&mut self, number: usize, now: Timestamp) {
        let replica = &mut self.replicas[number];
        let doubled = 2_u32.saturating_pow(replica.failures);
        replica.failures += 1;
        let wait = self.pace.first_backoff.saturating_mul(doubled);
        let wait = wait.min(LONGEST_BACKOFF);
        let until = now.checked_add(wait).unwrap_or(now);
        replica.state = ReplicaState::Waiting { until };
        let index = replica.index;
        self.tell_waiting(index, until);
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
