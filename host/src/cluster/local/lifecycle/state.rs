//! The states of a job's turn, of its presence, and of its replicas.

use jiff::Timestamp;

use super::super::replica::ReplicaIndex;
#[cfg(doc)]
use super::Job;

/// Whether the job's slots are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
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
pub(super) enum Presence {
    Kept,
    Deleted,
    /// The service stops. The next one takes the job up.
    Left,
}

#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub index: ReplicaIndex,
    pub state: ReplicaState,
    /// Failures in this service's life. They lengthen the wait before the next start.
    pub failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplicaState {
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
pub(super) enum Stage {
    Starting,
    Running,
    Stopping,
    /// Its shim was killed and its processes are being killed.
    Lost {
        end: LostEnd,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LostEnd {
    Failure,
    Stop,
}

impl Stage {
    pub fn stops(self) -> bool {
        let end = LostEnd::Stop;
        self == Self::Stopping || self == Self::Lost { end }
    }
}

impl Replica {
    pub fn is_live(&self) -> bool {
        self.stage().is_some()
    }

    pub fn stage(&self) -> Option<Stage> {
        match self.state {
            ReplicaState::Live { stage, .. } => Some(stage),
            _ => None,
        }
    }

    pub fn set_stage(&mut self, to: Stage) {
        if let ReplicaState::Live { stage, .. } = &mut self.state {
            *stage = to;
        }
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        match self.state {
            ReplicaState::Idle => true,
            ReplicaState::Waiting { until } => until <= now,
            _ => false,
        }
    }

    pub fn reset(&mut self) {
        self.state = ReplicaState::Idle;
        self.failures = 0;
    }
}
