//! The life of a local job as a state machine: events, the states that follow, and actions.
//!
//! A job changes only in [`Job::step`], which is pure: it uses no clock, disk or process. The
//! cluster stores the new state before it publishes it, and then executes the actions.
//!
//! ```text
//! turn:      Behind ──Unblocked──▶ None ──▶ Asked ──SlotsGranted──▶ Held ──▶ Returning ──▶ None
//! replica:   Idle ──▶ Starting ──Started──▶ Running ──Exited──▶ Succeeded | Failed | Waiting
//!              ▲          └──────────┴─stop─▶ Stopping ──Exited──▶ Idle         │
//!              └──ShimLost──▶ Lost ──Exited──▶ as above            Idle ◀──Wake─┘
//! ```
//!
//! * A job that should not run (suspended, deleted, ended, or the service stops) stops its
//!   replicas, and returns its slots when the last of them has ended.
//! * A job that should run asks for slots when it has none and no replica is live. A resumed job
//!   therefore waits for its old replicas.
//! * A new job waits for the replicas of a deleted job of its name, and for those of a job that was
//!   deleted or has ended and writes to its checkpoint prefix.
//! * A replica whose shim was killed is `Lost` until its processes have ended.
//! * An event of an earlier attempt has no effect.

mod event;
mod failure;
mod fixes;
mod replicas;
mod report;
#[cfg(test)]
mod simulation;
mod state;

use std::time::Duration;

use jiff::Timestamp;

pub(super) use event::{Action, Attempt, Event, Step, Write};
pub(super) use failure::{Exit, ExitKind};
pub(super) use fixes::{Fix, holds};

use self::state::{LostEnd, Presence, Replica, ReplicaState, Stage, Turn};
use super::conditions::{self, Transition};
use super::replica::ReplicaIndex;
use super::store::Record;
use crate::job::Prefix;
use crate::pytorch_job::{PyTorchJob, ReplicaType};

/// Durations for restarting and stopping jobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The wait before a failed replica starts again. It doubles with each failure.
    pub first_backoff: Duration,
    /// How long replicas may take to end when the service stops.
    pub shutdown_grace: Duration,
}

/// A job and its state.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The stored part.
    pub record: Record,
    pace: Pace,
    turn: Turn,
    replicas: Vec<Replica>,
    /// The number of attempts of all replicas, and of the latest one.
    attempts: u64,
    /// The number of requests for slots, and of the latest one.
    requests: u64,
    /// How often the port of the master was in use.
    taken_ports: u32,
    presence: Presence,
}

impl Job {
    /// A job that was just created.
    pub fn new(record: Record, pace: Pace) -> Self {
        let replicas = ReplicaIndex::all(&record.job.spec).into_iter();
        let replicas = replicas.map(|index| Replica {
            index,
            state: ReplicaState::Idle,
            failures: 0,
        });
        Self {
            replicas: replicas.collect(),
            record,
            pace,
            turn: Turn::None,
            attempts: 0,
            requests: 0,
            taken_ports: 0,
            presence: Presence::Kept,
        }
    }

    /// The same job, blocked by another one.
    pub fn behind_another(self) -> Self {
        let turn = match holds(Fix::Successor) {
            true => Turn::Behind,
            false => self.turn,
        };
        Self { turn, ..self }
    }

    /// Whether this job has to end before a new one starts: it was deleted or has ended, its
    /// replicas still run, and the new one has its name or its checkpoint prefix.
    pub fn blocks(&self, next: &Self) -> bool {
        let (this, next) = (&self.record, &next.record);
        if !self.is_over() || !self.is_live() || this.job.metadata.uid == next.job.metadata.uid {
            return false;
        }
        let prefixes = Prefix::of(&this.job.metadata).zip(Prefix::of(&next.job.metadata));
        let shares_prefix = prefixes.is_some_and(|(one, other)| one.overlaps(&other));
        this.key() == next.key() || shares_prefix
    }

    /// Whether it was deleted or has ended. Its replicas may still run.
    pub fn is_over(&self) -> bool {
        self.is_deleted() || self.has_ended()
    }

    /// Whether it waits for another job to end.
    pub fn is_behind(&self) -> bool {
        self.turn == Turn::Behind
    }

    /// The next state of the job after an event, and the actions to take.
    pub fn step(&self, event: &Event, now: Timestamp) -> Step {
        let mut job = self.clone();
        let mut actions = Vec::new();
        job.take(event, now, &mut actions);
        job.settle(now, &mut actions);
        let write = match (self.presence, job.presence) {
            (Presence::Kept, Presence::Deleted) => Write::Remove,
            (_, Presence::Kept) => {
                job.report();
                match job.record == self.record {
                    true => Write::Nothing,
                    false => Write::Update,
                }
            }
            _ => Write::Nothing,
        };
        Step {
            job,
            actions,
            write,
        }
    }

    /// When [`Event::Wake`] is due.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let restarts = self
            .replicas
            .iter()
            .filter_map(|replica| match replica.state {
                ReplicaState::Waiting { until } if self.may_start() => Some(until),
                _ => None,
            });
        restarts.chain(self.deadline()).min()
    }

    /// Whether the job needs nothing more on this machine.
    pub fn is_at_rest(&self) -> bool {
        self.turn == Turn::None && !self.should_run() && !self.is_live()
    }

    pub fn is_deleted(&self) -> bool {
        self.presence == Presence::Deleted
    }

    pub fn has_ended(&self) -> bool {
        has_ended(&self.record.job)
    }

    pub fn is_suspended(&self) -> bool {
        self.record.job.spec.run_policy.suspend == Some(true)
    }

    /// Whether it waits for slots.
    pub fn waits_for_slots(&self) -> bool {
        self.turn == Turn::Asked || (self.turn == Turn::Returning && !holds(Fix::OldReplicas))
    }

    pub fn index(&self, attempt: Attempt) -> Option<ReplicaIndex> {
        self.replicas.get(attempt.replica).map(|r| r.index)
    }

    fn should_run(&self) -> bool {
        self.presence == Presence::Kept && !self.has_ended() && !self.is_suspended()
    }

    /// Whether a replica runs, or has not been confirmed to have ended.
    pub fn is_live(&self) -> bool {
        self.replicas.iter().any(Replica::is_live)
    }

    fn take(&mut self, event: &Event, now: Timestamp, actions: &mut Vec<Action>) {
        match event {
            Event::Adopted => self.adopt(now),
            Event::Unblocked if self.turn == Turn::Behind => self.turn = Turn::None,
            Event::SlotsGranted(request)
                if self.turn == Turn::Asked && *request == self.requests =>
            {
                self.turn = Turn::Held;
            }
            Event::Started(attempt) => self.started(*attempt, now),
            Event::ShimLost(attempt) => self.shim_lost(*attempt, now, actions),
            Event::Exited(attempt, exit) => self.exited(*attempt, exit, now, actions),
            Event::Suspend | Event::Resume if self.has_ended() => {}
            Event::Suspend => self.suspend(now),
            Event::Resume => self.resume(now),
            Event::Delete => self.presence = Presence::Deleted,
            Event::Leave => self.leave(actions),
            Event::Wake => {
                if self.should_run() && self.deadline().is_some_and(|deadline| deadline <= now) {
                    let reason = "it was active longer than specified deadline".to_string();
                    self.end(&Transition::Failed { reason }, now);
                }
            }
            Event::Created | Event::Unblocked | Event::SlotsGranted(_) => {}
        }
    }

    fn adopt(&mut self, now: Timestamp) {
        let status = self.record.job.status.as_ref();
        let was_running = status.is_some_and(|status| status.start_time.is_some());
        if was_running && self.should_run() {
            conditions::apply(&mut self.record.job, &Transition::Restarting, now);
        }
    }

    fn suspend(&mut self, now: Timestamp) {
        if !self.is_suspended() {
            self.record.job.spec.run_policy.suspend = Some(true);
            conditions::apply(&mut self.record.job, &Transition::Suspended, now);
        }
    }

    fn resume(&mut self, now: Timestamp) {
        if self.is_suspended() {
            self.record.job.spec.run_policy.suspend = Some(false);
            conditions::apply(&mut self.record.job, &Transition::Resumed, now);
        }
    }

    fn leave(&mut self, actions: &mut Vec<Action>) {
        if self.presence == Presence::Kept {
            self.presence = Presence::Left;
        }
        // Replicas with a longer grace period get no more than the service has.
        for (attempt, stage) in self.live() {
            if stage == Stage::Stopping {
                actions.push(Action::Stop(attempt, self.pace.shutdown_grace));
            }
        }
    }

    fn end(&mut self, end: &Transition, now: Timestamp) {
        conditions::apply(&mut self.record.job, end, now);
    }

    fn started(&mut self, attempt: Attempt, now: Timestamp) {
        let Some(replica) = self.attempted(attempt) else {
            return;
        };
        let index = replica.index;
        if replica.stage() != Some(Stage::Starting) && holds(Fix::LateStart) {
            return;
        }
        replica.set_stage(Stage::Running);
        self.report_started(index, now);
        if index.replica_type == ReplicaType::Master {
            conditions::apply(&mut self.record.job, &Transition::Running, now);
        }
    }

    fn shim_lost(&mut self, attempt: Attempt, now: Timestamp, actions: &mut Vec<Action>) {
        if !holds(Fix::LostShim) {
            return self.exited(attempt, &Exit::ordinary(137, None), now, actions);
        }
        let Some(replica) = self.attempted(attempt) else {
            return;
        };
        let end = match replica.stage() {
            Some(Stage::Lost { .. }) | None => return,
            Some(Stage::Stopping) => LostEnd::Stop,
            Some(Stage::Starting | Stage::Running) => LostEnd::Failure,
        };
        replica.set_stage(Stage::Lost { end });
        actions.push(Action::EndLost(attempt));
    }

    /// Starts and stops replicas so that the job does what it should do.
    fn settle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !self.should_run() {
            self.stop_all(actions);
        }
        if self.turn == Turn::Returning && !self.is_live() {
            self.turn = Turn::None;
            actions.push(Action::ReturnSlots);
        }
        if self.should_run() {
            self.start_replicas(now, actions);
        } else if self.presence == Presence::Deleted && self.is_at_rest() {
            actions.push(Action::Forget);
        }
    }

    fn live(&self) -> impl Iterator<Item = (Attempt, Stage)> {
        let replicas = self.replicas.iter().enumerate();
        replicas.filter_map(|(replica, state)| match state.state {
            ReplicaState::Live { attempt, stage } => {
                let number = attempt;
                Some((Attempt { replica, number }, stage))
            }
            _ => None,
        })
    }

    /// The replica of an attempt, if the attempt is the current one.
    fn attempted(&mut self, attempt: Attempt) -> Option<&mut Replica> {
        let replica = self.replicas.get_mut(attempt.replica)?;
        let runs = matches!(
            replica.state,
            ReplicaState::Live { attempt: number, .. } if number == attempt.number
        );
        runs.then_some(replica)
    }

    /// The end of the time that the job may be active, counted from its stored start.
    fn deadline(&self) -> Option<Timestamp> {
        if !self.should_run() {
            return None;
        }
        let seconds = self.record.job.spec.run_policy.active_deadline_seconds?;
        let started = self.record.job.status.as_ref()?.start_time.as_ref()?;
        started
            .0
            .checked_add(Duration::from_secs(seconds.into()))
            .ok()
    }

    fn grace(&self) -> Duration {
        let specs = &self.record.job.spec.pytorch_replica_specs;
        let pod = specs.master.template.spec.as_ref();
        let seconds = pod.and_then(|pod| pod.termination_grace_period_seconds);
        Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30))
    }
}

pub(super) fn has_ended(job: &PyTorchJob) -> bool {
    job.status.as_ref().is_some_and(|status| status.has_ended())
}
