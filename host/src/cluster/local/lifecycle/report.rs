//! The reported state of a job: its counts, its pods, and what it waits for.

use jiff::{Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Attempt, Exit, Job, Replica, ReplicaState, Stage};
use crate::cluster::local::conditions;
use crate::cluster::local::replica::ReplicaIndex;
use crate::job::PodDetails;
use crate::pytorch_job::ReplicaStatus;

impl Job {
    /// What the job waits for, where another one blocks it.
    pub fn waits_behind(&self, other: &Self) -> String {
        let (this, earlier) = (&self.record, &other.record);
        if this.key() == earlier.key() {
            return "It waits for the replicas of the deleted job of this name to end.".to_string();
        }
        let how = match other.is_deleted() {
            true => "was deleted",
            false => "has ended",
        };
        // Who may see this job need not know those of other namespaces.
        let who = match this.job.namespace() == earlier.job.namespace() {
            true => format!("job {}", earlier.job.name()),
            false => "a job of another namespace".to_string(),
        };
        format!(
            "It waits for the replicas of {who} to end, which {how} and still writes to the same \
             checkpoint prefix."
        )
    }

    /// Sentences about what the job waits for, other than slots and other jobs.
    pub fn waits(&self, now: Timestamp) -> Vec<String> {
        if !self.should_run() || self.is_behind() {
            return Vec::new();
        }
        let old = self.live().filter(|(_, stage)| stage.stops());
        let old: Vec<String> = old
            .filter_map(|(attempt, _)| Some(self.index(attempt)?.to_string()))
            .collect();
        let ending = match old.is_empty() {
            true => None,
            false => Some(format!(
                "It waits for its old replicas to end: {}.",
                old.join(", ")
            )),
        };
        let restarts = self.replicas.iter().filter_map(|replica| {
            let ReplicaState::Waiting { until } = replica.state else {
                return None;
            };
            let left = seconds(now, until);
            Some(format!(
                "{} restarts in {left} s: {}.",
                replica.index,
                self.next_attempt()
            ))
        });
        ending.into_iter().chain(restarts).collect()
    }

    /// Brings the stored counts and pods in line with the replicas.
    pub(super) fn report(&mut self) {
        let is_unknown = |replica: &Replica| replica.state == ReplicaState::Idle;
        let is_over = self.has_ended() && self.replicas.iter().all(is_unknown);
        let status = self.record.job.status.get_or_insert_default();
        if is_over {
            // An earlier service has reported how the replicas ended. Those that ran are gone.
            let counts = status.replica_statuses.values_mut();
            counts.for_each(|count| count.active = 0);
            return;
        }
        if !status.replica_statuses.is_empty() || self.attempts > 0 {
            let counts = &mut status.replica_statuses;
            counts
                .values_mut()
                .for_each(|c| *c = ReplicaStatus::default());
            for replica in &self.replicas {
                count(
                    replica,
                    counts.entry(replica.index.replica_type).or_default(),
                );
            }
        }
        self.drop_pods_that_run();
        self.describe_running();
    }

    /// As the operator does with `cleanPodPolicy: Running`: what has ended is kept.
    fn drop_pods_that_run(&mut self) {
        let name = self.record.job.name();
        let gone = self.replicas.iter().filter(|replica| match replica.state {
            ReplicaState::Idle => true,
            ReplicaState::Live { stage, .. } => stage.stops(),
            _ => false,
        });
        let gone: Vec<String> = gone.map(|replica| replica.index.pod(name)).collect();
        self.record
            .pods
            .retain(|pod, message| !gone.contains(pod) || has_ended(message));
    }

    /// The message of a job that runs says when it waits for a restart.
    fn describe_running(&mut self) {
        let attempt = self.next_attempt();
        let waiting = self.replicas.iter().find_map(|replica| {
            let ReplicaState::Waiting { until } = replica.state else {
                return None;
            };
            let pod = self
                .record
                .pods
                .get(&replica.index.pod(self.record.job.name()))?;
            let code = pod.exit_code.unwrap_or_default();
            let cause = pod.message.as_ref().map(|cause| format!(" ({cause})"));
            let cause = cause.unwrap_or_default();
            let until = until.round(Unit::Second).unwrap_or(until);
            Some(format!(
                "{} exited with code {code}{cause} and restarts at {until}: {attempt}.",
                pod.name
            ))
        });
        conditions::describe_running(&mut self.record.job, waiting);
    }

    /// Which attempt the next restart is. The backoff limit counts the failures of all replicas.
    fn next_attempt(&self) -> String {
        let limit = self.record.job.spec.run_policy.backoff_limit;
        format!("attempt {} of {limit}", self.record.restarts + 1)
    }

    pub(super) fn report_starting(&mut self, attempt: Attempt) {
        let Some(index) = self.index(attempt) else {
            return;
        };
        let pod = self.pod(index);
        if pod.exit_code.is_some() && pod.restarts_at.is_some() {
            pod.restarts += 1;
        }
        pod.restarts_at = None;
        "Pending".clone_into(&mut pod.phase);
    }

    pub(super) fn report_started(&mut self, index: ReplicaIndex, now: Timestamp) {
        let pod = self.pod(index);
        "Running".clone_into(&mut pod.phase);
        pod.started_at = Some(Time(now));
        pod.finished_at = None;
    }

    pub(super) fn tell_exited(&mut self, index: ReplicaIndex, exit: &Exit, now: Timestamp) {
        let pod = self.pod(index);
        let phase = if exit.code == 0 {
            "Succeeded"
        } else {
            "Failed"
        };
        phase.clone_into(&mut pod.phase);
        pod.exit_code = Some(exit.code);
        pod.message.clone_from(&exit.cause);
        pod.finished_at = Some(Time(now));
    }

    pub(super) fn tell_waiting(&mut self, index: ReplicaIndex, until: Timestamp) {
        let pod = self.pod(index);
        "Waiting".clone_into(&mut pod.phase);
        pod.restarts_at = Some(Time(until));
    }

    /// The reported state of a replica.
    fn pod(&mut self, index: ReplicaIndex) -> &mut PodDetails {
        let job = self.record.job.name().to_string();
        let pod = self.record.pods.entry(index.pod(&job));
        pod.or_insert_with(|| index.waiting(&job))
    }
}

fn count(replica: &Replica, count: &mut ReplicaStatus) {
    match replica.state {
        ReplicaState::Live {
            stage: Stage::Running,
            ..
        } => count.active += 1,
        ReplicaState::Succeeded => count.succeeded += 1,
        ReplicaState::Failed => count.failed += 1,
        _ => {}
    }
}

fn has_ended(pod: &PodDetails) -> bool {
    pod.phase == "Succeeded" || pod.phase == "Failed"
}

/// Whole seconds until then, at least one.
fn seconds(now: Timestamp, then: Timestamp) -> i64 {
    (then.as_millisecond() - now.as_millisecond())
        .div_euclid(1000)
        .max(0)
        + 1
}
