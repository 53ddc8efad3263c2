//! Executes the actions of the state machine: slots, ports, attempts and timers.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::error;

use super::super::attempt::{self, Launch};
use super::super::lifecycle::{Action, Attempt, Event, Job};
use super::super::ports::HeldPort;
use super::super::replica::{ReplicaContext, ReplicaIndex};
use super::super::slots::Request;
use super::super::{removal, timer};
use super::{JobId, LocalJobs, Resources};
use crate::manifest::gpus_per_replica;
use crate::pytorch_job::PyTorchJob;

impl LocalJobs {
    pub(super) fn act(self: &Arc<Self>, id: &JobId, action: Action) {
        match action {
            Action::AskForSlots(number) => {
                if let Some(job) = self.living(id) {
                    let needed = self.slots_needed(&job.record.job);
                    let job = id.uid.clone();
                    let granted = self.slots().ask(Request { job, number }, needed);
                    self.grant(granted);
                }
            }
            Action::ReturnSlots => {
                let granted = self.slots().give_back(&id.uid);
                self.grant(granted);
                self.unblock();
            }
            Action::ChoosePort => self.choose_port(id),
            Action::Start(attempt) => self.start(id, attempt),
            Action::Stop(attempt, grace) => {
                if let Some(stop) = self
                    .resources()
                    .get(&id.uid)
                    .and_then(|e| e.stops.get(&attempt))
                {
                    // The channel of an attempt that has ended is closed.
                    let _ = stop.send(grace);
                }
            }
            Action::EndLost(attempt) => {
                let lost = attempt::end_lost(self.clone(), id.clone(), attempt);
                self.tasks.spawn(lost);
            }
            Action::Forget => self.forget(id),
        }
    }

    fn grant(self: &Arc<Self>, granted: Vec<Request>) {
        for Request { job, number } in granted {
            if let Some(id) = self.of_uid(&job) {
                self.report(id, Event::SlotsGranted(number));
            }
        }
    }

    fn choose_port(&self, id: &JobId) {
        let port = HeldPort::choose();
        let port = port.inspect_err(|error| error!(job = id.key, %error, "no port is free"));
        if let Some(held) = self.resources().get_mut(&id.uid) {
            held.port = port.ok();
        }
    }

    fn start(self: &Arc<Self>, id: &JobId, attempt: Attempt) {
        let Some(job) = self.living(id) else { return };
        let Some(index) = job.index(attempt) else {
            return;
        };
        let record = job.record;
        let mut resources = self.resources();
        let Some(held) = resources.get_mut(&id.uid) else {
            return;
        };
        let context = ReplicaContext {
            containment: self.settings.containment.clone(),
            most_log_bytes: self.settings.most_log_bytes,
            program: self.settings.program.clone(),
            working_directory: self.settings.working_directory.clone(),
            base: self.settings.environment.clone(),
            folder: self.folder(record.job.namespace(), record.job.name()),
            master_port: held.port.as_ref().map_or(0, HeldPort::number),
            job_uid: id.uid.clone(),
            owner: self.settings.owner.clone(),
            scratch: self.settings.scratch.clone(),
            secrets: self.settings.secrets.clone(),
        };
        let launch = Launch {
            id: id.clone(),
            attempt,
            gpus: self.gpus_of(id, attempt.replica, &record.job),
            job: record.job,
            index,
            context,
        };
        let (stop, stops) = mpsc::unbounded_channel();
        held.stops
            .retain(|other, _| other.replica != attempt.replica);
        held.stops.insert(attempt, stop);
        self.tasks.spawn(attempt::run(self.clone(), launch, stops));
    }

    /// Removes a deleted job whose replicas have ended.
    fn forget(self: &Arc<Self>, id: &JobId) {
        let job = self.jobs_mut().forget(&id.uid);
        self.resources().remove(&id.uid);
        if let Some(job) = job {
            let folder = removal::away(&self.settings, &job.record.job);
            self.tasks.spawn(removal::remove(folder));
        }
    }

    /// Lets jobs start that waited for the end of another one.
    fn unblock(self: &Arc<Self>) {
        for id in self.unblocked() {
            self.report(id, Event::Unblocked);
        }
    }

    /// Sets the timer of a job, or releases its resources if it is at rest.
    pub(super) fn set_wake(self: &Arc<Self>, id: &JobId, job: &Job) {
        let mut resources = self.resources();
        if job.is_at_rest() {
            resources.remove(&id.uid);
            return;
        }
        let held = resources.entry(id.uid.clone()).or_insert_with(|| {
            let (wake, due) = watch::channel(None);
            tokio::spawn(timer::run(self.clone(), id.clone(), due));
            Resources {
                wake,
                port: None,
                stops: BTreeMap::new(),
            }
        });
        let next = job.next_wake();
        held.wake
            .send_if_modified(|wake| std::mem::replace(wake, next) != next);
    }

    fn gpus_of(&self, id: &JobId, number: usize, job: &PyTorchJob) -> Option<Vec<u32>> {
        let each = gpus_per_replica(job) as usize;
        let gpus = self.slots().gpus(&id.uid)?;
        Some(gpus.into_iter().skip(number * each).take(each).collect())
    }

    pub(super) fn slots_needed(&self, job: &PyTorchJob) -> u32 {
        let replicas = ReplicaIndex::all(&job.spec).len();
        let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
        self.slots().needed(replicas, gpus_per_replica(job))
    }
}
