//! What has to be true of the simulated machine.

use std::collections::BTreeSet;

use super::world::{ProcessStage, SLOTS, Uid, World};
use crate::job::Prefix;
use crate::pytorch_job::ConditionType;

impl World {
    /// What is true at every moment.
    pub fn check(&mut self) -> Result<(), String> {
        let Some(service) = &self.service else {
            return Ok(());
        };
        let mut seen = BTreeSet::new();
        let mut writers: Vec<(&Uid, Prefix)> = Vec::new();
        for process in &self.processes {
            if process.stage != ProcessStage::Alive {
                continue;
            }
            let uid = &process.uid;
            if !seen.insert((&process.key, process.attempt.replica)) {
                return Err(format!("two attempts of a replica of {} run", process.key));
            }
            let job = service.jobs.get(uid);
            let prefix = job.and_then(|job| Prefix::of(&job.record.job.metadata));
            if let Some((other, _)) = writers.iter().find(|(other, written)| {
                *other != uid
                    && prefix
                        .as_ref()
                        .is_some_and(|prefix| prefix.overlaps(written))
            }) {
                return Err(format!("{other} and {uid} write to one prefix"));
            }
            writers.extend(prefix.map(|prefix| (uid, prefix)));
            let runs = job.is_some_and(|job| job.live().any(|(live, _)| live == process.attempt));
            if !runs {
                return Err(format!("a process of {uid} runs without a job"));
            }
            if !service.slots.held().contains_key(uid.as_str()) {
                return Err(format!("a process of {uid} runs without slots"));
            }
        }
        let held: u32 = service.slots.held().values().sum();
        if held + service.slots.free() != SLOTS {
            return Err(format!("slots do not add up: {:?}", service.slots));
        }
        let mut ended = BTreeSet::new();
        for (uid, job) in service.jobs.iter().filter(|(_, job)| !job.is_deleted()) {
            if self.stored.get(&job.record.key()) != Some(&job.record) {
                return Err(format!("{uid} is told otherwise than it is stored"));
            }
            if job.has_ended() {
                ended.insert(uid.clone());
            } else if self.told_ended.contains(uid) {
                return Err(format!("{uid} had ended and lives again"));
            }
            if job.waits_for_slots() && self.has_processes(uid) {
                return Err(format!(
                    "{uid} says that it waits for slots, and has replicas"
                ));
            }
        }
        self.told_ended.extend(ended);
        Ok(())
    }

    /// What is true once everything that happened was taken note of.
    pub fn check_settled(&self) -> Result<(), String> {
        let Some(service) = &self.service else {
            return Ok(());
        };
        for (uid, job) in service.jobs.iter().filter(|(_, job)| !job.is_deleted()) {
            let status = job.record.job.status.as_ref();
            let running = status.is_some_and(|s| s.is_true(ConditionType::Running).is_some());
            let waits = job.waits(self.now);
            if running && !self.has_processes(uid) && waits.is_empty() {
                return Err(format!("{uid} is told to run and has no process"));
            }
            let counts = status.into_iter().flat_map(|s| s.replica_statuses.values());
            let active: i32 = counts.map(|count| count.active).sum();
            if job.has_ended() && active != 0 && !self.has_processes(uid) {
                return Err(format!(
                    "{uid} has ended and counts {active} active replicas"
                ));
            }
        }
        Ok(())
    }

    fn has_processes(&self, uid: &Uid) -> bool {
        let mut processes = self.processes.iter();
        processes.any(|process| process.uid == *uid && process.stage != ProcessStage::Gone)
    }
}
