//! Events in the life of a job, and the step that follows from one.

use std::time::Duration;

use super::super::store::Record;
use super::{Exit, Fix, Job, holds};

/// An event in the life of a job.
#[derive(Clone, Debug)]
pub(in crate::cluster::local) enum Event {
    /// It was submitted.
    Created,
    /// The service has found it in the store of an earlier one. It has no replicas.
    Adopted,
    /// The last replica of the last job that blocked this one has ended.
    Unblocked,
    /// The request of this number was granted.
    SlotsGranted(u64),
    Started(Attempt),
    /// A shim has ended without a report of how its replica ended.
    ShimLost(Attempt),
    /// No process of the replica is left.
    Exited(Attempt, Exit),
    /// The time of [`Job::next_wake`] has come.
    Wake,
    Suspend,
    Resume,
    Delete,
    /// The service stops.
    Leave,
}

/// One run of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cluster::local) struct Attempt {
    /// Position in [`ReplicaIndex::all`].
    pub replica: usize,
    pub number: u64,
}

/// What to do after a step, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster::local) enum Action {
    /// Contains the number of the request.
    AskForSlots(u64),
    /// Also withdraws the job's request for slots.
    ReturnSlots,
    /// The replicas that start now use another master port.
    ChoosePort,
    Start(Attempt),
    /// SIGTERM, then SIGKILL after the grace period.
    Stop(Attempt, Duration),
    /// Kill the processes that a killed shim has left behind, then report [`Event::Exited`].
    EndLost(Attempt),
    /// The job is deleted, and has no replicas left.
    Forget,
}

/// What a step changes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster::local) enum Write {
    Nothing,
    Update,
    Remove,
}

/// A step that has been computed and not taken yet.
#[derive(Debug)]
pub(in crate::cluster::local) struct Step {
    pub(super) job: Job,
    pub(super) actions: Vec<Action>,
    pub write: Write,
}

impl Step {
    /// The record to write.
    pub fn record(&self) -> &Record {
        &self.job.record
    }

    /// Takes the step if it has been stored. Otherwise the job is unchanged, and no action follows.
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
