//! Starts and stops the replicas of a job, as its state requires.

use std::time::Duration;

use jiff::Timestamp;

use super::state::{LostEnd, Presence, Replica, ReplicaState, Stage, Turn};
use super::{Action, Attempt, Job};

impl Job {
    pub(super) fn stop_all(&mut self, actions: &mut Vec<Action>) {
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
            // A job that must not run waits for nothing.
            Turn::Behind if self.presence != Presence::Kept => Turn::None,
            turn => turn,
        };
    }

    pub(super) fn stop(&mut self, number: usize, grace: Duration, actions: &mut Vec<Action>) {
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

    pub(super) fn start_replicas(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
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

    /// Whether replicas may start. Not while some are being stopped, so that all start together.
    pub(super) fn may_start(&self) -> bool {
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
        // Running replicas keep their port.
        if !was_live && !starts.is_empty() {
            actions.push(Action::ChoosePort);
        }
        for attempt in starts {
            self.report_starting(attempt);
            actions.push(Action::Start(attempt));
        }
    }
}
