//! The life of a local job as a state machine: what happens to it, what follows, and what to do.
//!
//! A job moves only in [`Job::step`], which is pure: it knows no clock, disk or process. The
//! machine stores the job that comes out before it shows it to anybody, and then does the actions.
//!
//! ```text
//! turn:      Behind ──Unblocked──▶ None ──▶ Asked ──SlotsGranted──▶ Held ──▶ Returning ──▶ None
//! replica:   Idle ──▶ Starting ──Started──▶ Running ──Exited──▶ Succeeded | Failed | Waiting
//!              ▲          └──────────┴─stop─▶ Stopping ──Exited──▶ Idle         │
//!              └──ShimLost──▶ Lost ──Exited──▶ as above            Idle ◀──Wake─┘
//! ```
//!
//! * A job that should not run (suspended, deleted, ended, or the service stops) stops its
//!   replicas, and gives its slots back when the last of them has ended.
//! * A job that should run asks for slots when it has none and no replica is left. So a resumed job
//!   waits for its old replicas.
//! * A new job waits for the replicas of a deleted job of its name, and for those of a job that was
//!   deleted or has ended and writes to its checkpoint prefix.
//! * A replica whose shim was killed is `Lost` until its processes are gone.
//! * An event of an earlier attempt changes nothing.

mod failure;
mod fixes;
mod report;
#[cfg(test)]
mod simulation;

use std::time::Duration;

use jiff::Timestamp;

pub(super) use failure::{Exit, ExitKind};
pub(super) use fixes::{Fix, holds};

use super::conditions::{self, Transition};
use super::replica::ReplicaIndex;
use super::store::Record;
use crate::job::Prefix;
use crate::pytorch_job::{PyTorchJob, ReplicaType};

/// How jobs of this machine are restarted and stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The wait before a failed replica starts again. It doubles with each failure.
    pub first_backoff: Duration,
    /// How long replicas may take to end when the service stops.
    pub shutdown_grace: Duration,
}

/// A job and where it is in its life.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// What is stored.
    pub record: Record,
    pace: Pace,
    turn: Turn,
    replicas: Vec<Replica>,
    /// How many attempts there were of all replicas. It numbers them.
    attempts: u64,
    /// How many requests for slots there were. It numbers them.
    requests: u64,
    /// How often the port of the master was taken.
    taken_ports: u32,
    presence: Presence,
}

/// Whether the job's slots are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Replicas of an earlier job have to end first: see [`Job::blocks`].
    Behind,
    None,
    /// With the request that was made last.
    Asked,
    Held,
    /// Held until the last replica has ended.
    Returning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Kept,
    Deleted,
    /// The service stops. The next one takes the job up.
    Left,
}

#[derive(Clone, Debug)]
struct Replica {
    index: ReplicaIndex,
    state: ReplicaState,
    /// Failures in this service's life. They lengthen the wait before the next start.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplicaState {
    Idle,
    Live {
        attempt: u64,
        stage: Stage,
    },
    /// It failed and starts again then.
    Waiting {
        until: Timestamp,
    },
    Succeeded,
    Failed,
}

/// How far a replica with processes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Running,
    Stopping,
    /// Its shim was killed and its processes are being killed.
    Lost {
        end: LostEnd,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LostEnd {
    Failure,
    Stop,
}

/// Something that happens to a job.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// It was submitted.
    Created,
    /// An earlier service left it. Its replicas are gone.
    TakenUp,
    /// The last replica of the last job that blocked this one has ended.
    Unblocked,
    /// The request of this number was granted.
    SlotsGranted(u64),
    Started(Attempt),
    /// A shim has ended and did not say how its replica ended.
    ShimLost(Attempt),
    /// No process of the replica is left.
    Exited(Attempt, Exit),
    /// The time that [`Job::next_wake`] gave has come.
    Wake,
    Suspend,
    Resume,
    Delete,
    /// The service stops.
    Leave,
}

/// One run of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attempt {
    /// Position in [`ReplicaIndex::all`].
    pub replica: usize,
    pub number: u64,
}

/// What to do after a step, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// With the number of the request.
    AskForSlots(u64),
    /// Also withdraws the job's request for slots.
    ReturnSlots,
    /// The replicas that start now meet at another port.
    ChoosePort,
    Start(Attempt),
    /// SIGTERM, and SIGKILL after the grace.
    Stop(Attempt, Duration),
    /// Kill what a killed shim left, and then report [`Event::Exited`].
    EndLost(Attempt),
    /// Nothing is left of a deleted job.
    Forget,
}

/// What a step changes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Nothing,
    Update,
    Remove,
}

/// A step that was thought through and not taken yet.
#[derive(Debug)]
pub(super) struct Step {
    job: Job,
    actions: Vec<Action>,
    pub write: Write,
}

impl Step {
    /// What is to be written.
    pub fn record(&self) -> &Record {
        &self.job.record
    }

    /// Takes the step if it was stored. Otherwise the job stays as it was, and nothing is done.
    ///
    /// # Errors
    ///
    /// The error of the store.
    pub fn stored<E>(self, written: Result<(), E>) -> Result<(Job, Vec<Action>), E> {
        match written {
            Err(error) if holds(Fix::Unstored) => Err(error),
            _ => Ok((self.job, self.actions)),
        }
    }
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

    /// The same, where another job blocks it.
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
        let is_over = self.is_deleted() || self.has_ended();
        let (this, next) = (&self.record, &next.record);
        let is_another = this.job.metadata.uid != next.job.metadata.uid;
        let prefixes = Prefix::of(&this.job.metadata).zip(Prefix::of(&next.job.metadata));
        let shares_prefix = prefixes.is_some_and(|(one, other)| one.overlaps(&other));
        is_over && is_another && self.is_live() && (this.key() == next.key() || shares_prefix)
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

    /// Whether nothing of the job is left to do on this machine.
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

    fn is_live(&self) -> bool {
        self.replicas.iter().any(Replica::is_live)
    }

    fn take(&mut self, event: &Event, now: Timestamp, actions: &mut Vec<Action>) {
        match event {
            Event::TakenUp => self.taken_up(now),
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

    fn taken_up(&mut self, now: Timestamp) {
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
        // Replicas that have longer to stop are given no more than the service has.
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
        self.tell_started(index, now);
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

    /// Brings what the job does in line with what it should do.
    fn settle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !self.should_run() {
            self.stop_all(actions);
        }
        if self.turn == Turn::Returning && !self.is_live() {
            self.turn = Turn::None;
            actions.push(Action::ReturnSlots);
        }
        if self.should_run() {
            self.go_on(now, actions);
        } else if self.presence == Presence::Deleted && self.is_at_rest() {
            actions.push(Action::Forget);
        }
    }

    fn stop_all(&mut self, actions: &mut Vec<Action>) {
        let grace = match self.presence {
            Presence::Left => self.pace.shutdown_grace,
            Presence::Kept | Presence::Deleted => self.grace(),
        };
        for number in 0..self.replicas.len() {
            self.stop(number, grace, actions);
        }
        self.turn = match self.turn {
            Turn::Asked => {
                actions.push(Action::ReturnSlots);
                Turn::None
            }
            Turn::Held => Turn::Returning,
            // A job that is not to run any more waits for nothing.
            Turn::Behind if self.presence != Presence::Kept => Turn::None,
            turn => turn,
        };
    }

    fn stop(&mut self, number: usize, grace: Duration, actions: &mut Vec<Action>) {
        let replica = &mut self.replicas[number];
        match replica.state {
            ReplicaState::Live {
                attempt,
                stage: Stage::Starting | Stage::Running,
            } => {
                replica.set_stage(Stage::Stopping);
                let replica = number;
                let number = attempt;
                actions.push(Action::Stop(Attempt { replica, number }, grace));
            }
            ReplicaState::Live {
                stage: Stage::Lost { .. },
                ..
            } => {
                let end = LostEnd::Stop;
                replica.set_stage(Stage::Lost { end });
            }
            ReplicaState::Waiting { .. } => replica.state = ReplicaState::Idle,
            _ => {}
        }
    }

    fn go_on(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        match self.turn {
            Turn::None if !self.is_live() => {
                self.turn = Turn::Asked;
                // A job whose turn has come again starts all its replicas.
                self.replicas.iter_mut().for_each(Replica::reset);
                self.requests += 1;
                actions.push(Action::AskForSlots(self.requests));
            }
            Turn::Held if self.may_start() => self.start_due(now, actions),
            _ => {}
        }
    }

    /// Whether replicas may start. Single replicas are stopped to start all of them together.
    fn may_start(&self) -> bool {
        self.turn == Turn::Held && !self.live().any(|(_, stage)| stage.stops())
    }

    fn start_due(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let was_live = self.is_live();
        let mut starts = Vec::new();
        for (number, replica) in self.replicas.iter_mut().enumerate() {
            if replica.is_due(now) {
                self.attempts += 1;
                let attempt = self.attempts;
                let stage = Stage::Starting;
                replica.state = ReplicaState::Live { attempt, stage };
                starts.push(Attempt {
                    replica: number,
                    number: attempt,
                });
            }
        }
        // Those that run know the port they have.
        if !was_live && !starts.is_empty() {
            actions.push(Action::ChoosePort);
        }
        for attempt in starts {
            self.tell_starting(attempt);
            actions.push(Action::Start(attempt));
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

    /// The replica of an attempt, if that is the one that runs.
    fn attempted(&mut self, attempt: Attempt) -> Option<&mut Replica> {
        let replica = self.replicas.get_mut(attempt.replica)?;
        let runs = matches!(
            replica.state,
            ReplicaState::Live { attempt: number, .. } if number == attempt.number
        );
        runs.then_some(replica)
    }

    /// The end of the time that the job may be active. It counts from the stored start.
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

impl Stage {
    fn stops(self) -> bool {
        let end = LostEnd::Stop;
        self == Self::Stopping || self == Self::Lost { end }
    }
}

impl Replica {
    fn is_live(&self) -> bool {
        self.stage().is_some()
    }

    fn stage(&self) -> Option<Stage> {
        match self.state {
            ReplicaState::Live { stage, .. } => Some(stage),
            _ => None,
        }
    }

    fn set_stage(&mut self, to: Stage) {
        if let ReplicaState::Live { stage, .. } = &mut self.state {
            *stage = to;
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        match self.state {
            ReplicaState::Idle => true,
            ReplicaState::Waiting { until } => until <= now,
            _ => false,
        }
    }

    fn reset(&mut self) {
        self.state = ReplicaState::Idle;
        self.failures = 0;
    }
}

pub(super) fn has_ended(job: &PyTorchJob) -> bool {
    job.status.as_ref().is_some_and(|status| status.has_ended())
}
