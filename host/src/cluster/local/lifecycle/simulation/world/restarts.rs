//! Kills, stops and starts of the service.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::super::{Event, Job};
use super::super::jobs::uid_of;
use super::{PACE, ProcessStage, SLOTS, Service, Uid, World};
use crate::cluster::local::folder::tries_again;
use crate::cluster::local::slots::{SlotKind, Slots};

/// How long a child of a killed service may keep its locks.
const LONGEST_LOCK_MS: usize = 5000;

impl World {
    /// SIGKILL. The shims notice when their input ends, and kill their replicas; those without a
    /// shim live on.
    pub(super) fn kill_service(&mut self) {
        self.note("the service is killed".to_string());
        self.service = None;
        self.processes
            .retain(|process| !process.shim && process.stage == ProcessStage::Alive);
    }

    pub(super) fn stop_service(&mut self) -> Result<(), String> {
        let Some(service) = &self.service else {
            return Ok(());
        };
        let jobs: Vec<Uid> = service.jobs.keys().cloned().collect();
        self.note("the service stops".to_string());
        for uid in jobs {
            if !self.handle(&uid, &Event::Leave) {
                return Err(format!("{uid} cannot be left without a disk"));
            }
        }
        self.now += PACE.shutdown_grace;
        for number in 0..self.processes.len() {
            if self.processes[number]
                .killed_at
                .is_some_and(|at| at <= self.now)
            {
                self.exits(number, 137);
            }
        }
        for _ in 0..100 {
            self.deliver_one();
        }
        self.processes
            .retain(|process| process.stage != ProcessStage::Gone);
        if let Some(process) = self.processes.first() {
            return Err(format!("{} outlives a clean stop", process.uid));
        }
        self.service = None;
        Ok(())
    }

    /// A start, while a child of the service before may still hold its locks.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let longest = match self.trace.is_empty() {
            true => 1,
            false => LONGEST_LOCK_MS,
        };
        let held = Duration::from_millis(self.below(longest) as u64);
        let mut waited = Duration::ZERO;
        while waited < held {
            if !tries_again(waited) {
                return Err(format!(
                    "a start fails after {waited:?}: the lock is held for {held:?}"
                ));
            }
            waited += Duration::from_millis(20);
        }
        self.note("the service starts".to_string());
        // Marked processes are killed before the service resumes any job.
        self.processes.clear();
        let jobs = self.stored.values().cloned();
        let jobs = jobs.map(|record| (uid_of(&record), Job::new(record, PACE)));
        self.service = Some(Service {
            jobs: jobs.collect(),
            slots: Slots::new(SlotKind::Core, SLOTS),
            facts: BTreeMap::new(),
        });
        let unfinished = self.stored.values().map(uid_of).collect::<Vec<_>>();
        for uid in unfinished {
            let service = self.service.as_mut().unwrap();
            if !service.jobs[&uid].has_ended() {
                let facts = service.facts.entry((uid, usize::MAX)).or_default();
                facts.push_back(Event::Adopted);
            }
        }
        self.settle();
        Ok(())
    }
}
