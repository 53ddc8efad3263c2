//! A machine with a disk, processes and a clock, and a service on it that may be killed.

mod processes;
mod restarts;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::super::{Action, Attempt, Event, Exit, Job, Pace, Write};
use super::jobs::job;
use crate::cluster::local::slots::{Request, Slots};
use crate::cluster::local::store::Record;
use crate::job::Prefix;

pub const SLOTS: u32 = 3;
const NAMES: [&str; 3] = ["a", "b", "c"];
/// The last one lies within the first.
const PREFIXES: [&str; 3] = ["s3://b/one", "s3://b/two", "s3://b/one/within"];
const PACE: Pace = Pace {
    first_backoff: Duration::from_secs(1),
    shutdown_grace: Duration::from_secs(10),
};
pub type Uid = String;

pub struct World {
    pub random: u64,
    pub now: Timestamp,
    disk_works: bool,
    pub stored: BTreeMap<String, Record>,
    pub processes: Vec<Process>,
    pub service: Option<Service>,
    /// Jobs that have been reported as ended.
    pub told_ended: BTreeSet<Uid>,
    submissions: u64,
    pub trace: Vec<String>,
}

/// The service's memory.
pub struct Service {
    pub jobs: BTreeMap<Uid, Job>,
    pub slots: Slots,
    /// What happened and was not taken note of yet, in order for each attempt.
    facts: BTreeMap<(Uid, usize), VecDeque<Event>>,
}

/// One attempt of a replica on the machine: a shim and what it started.
pub struct Process {
    pub uid: Uid,
    pub key: String,
    pub attempt: Attempt,
    shim: bool,
    pub stage: ProcessStage,
    /// When SIGKILL follows the SIGTERM.
    killed_at: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ProcessStage {
    /// The shim has not started anything yet.
    Forked,
    Alive,
    Gone,
}

impl Service {
    /// The jobs that waited for another one that has ended.
    fn unblocked(&self) -> Vec<Uid> {
        let behind = self.jobs.iter().filter(|(_, job)| job.is_behind());
        let is_blocked = |job: &Job| self.jobs.values().any(|other| other.blocks(job));
        let free = behind.filter(|(_, job)| !is_blocked(job));
        free.map(|(uid, _)| uid.clone()).collect()
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            disk_works: true,
            stored: BTreeMap::new(),
            processes: Vec::new(),
            service: None,
            told_ended: BTreeSet::new(),
            submissions: 0,
            trace: Vec::new(),
        };
        world.start().unwrap();
        world
    }

    pub fn trace(&self) -> String {
        self.trace.join("\n")
    }

    /// One thing happens.
    pub fn step(&mut self) -> Result<(), String> {
        match self.below(22) {
            0..=2 => self.submit(),
            3 | 4 => self.ask(&Event::Suspend),
            5 | 6 => self.ask(&Event::Resume),
            7 | 8 => self.ask(&Event::Delete),
            9..=11 => self.process_moves(),
            12..=15 => self.deliver_one(),
            16 => self.kill_shim(),
            17 => {
                self.disk_works = !self.disk_works;
                self.note(format!("the disk works: {}", self.disk_works));
            }
            18 => match self.service {
                Some(_) => self.kill_service(),
                None => self.start()?,
            },
            19 if self.below(3) == 0 => self.stop_service()?,
            20 => {
                self.settle();
                if self.disk_works {
                    self.check_settled()?;
                }
            }
            _ => self.time_passes(),
        }
        self.check()
    }

    /// Everything works again and ends: nothing may be left.
    pub fn end(&mut self) -> Result<(), String> {
        self.disk_works = true;
        if self.service.is_none() {
            self.start()?;
        }
        self.note("everything ends".to_string());
        for _ in 0..400 {
            self.settle();
            self.check()?;
            self.check_settled()?;
            self.ask(&Event::Resume);
            for number in 0..self.processes.len() {
                match self.processes[number].stage {
                    ProcessStage::Forked => self.begins(number),
                    ProcessStage::Alive => self.exits(number, 0),
                    ProcessStage::Gone => {}
                }
            }
            self.now += Duration::from_secs(1);
            self.wake();
        }
        self.settle();
        let service = self.service.as_ref().unwrap();
        for (uid, job) in &service.jobs {
            if !job.has_ended() {
                return Err(format!("{uid} never ends: {job:?}"));
            }
        }
        if service.slots.free() != SLOTS {
            return Err(format!("slots are lost: {:?}", service.slots));
        }
        Ok(())
    }

    fn submit(&mut self) {
        let name = NAMES[self.below(3)];
        if self.service.is_none() || !self.disk_works || self.of_name(name).is_some() {
            return;
        }
        let prefix = PREFIXES[self.below(3)];
        if self.is_written_to(prefix) {
            return;
        }
        self.submissions += 1;
        let (uid, workers) = (format!("{name}-{}", self.submissions), self.below(2));
        let deadline = self.below(4);
        let deadline = (deadline == 0).then_some(Duration::from_secs(14));
        let record = Record::new(job(name, &uid, prefix, workers, deadline));
        let mut job = Job::new(record.clone(), PACE);
        let service = self.service.as_mut().unwrap();
        if service.jobs.values().any(|other| other.blocks(&job)) {
            job = job.behind_another();
        }
        self.note(format!("submit {uid} with {workers} workers to {prefix}"));
        self.stored.insert(record.key(), record);
        self.service.as_mut().unwrap().jobs.insert(uid.clone(), job);
        assert!(self.handle(&uid, &Event::Created));
    }

    /// The job of a name that is not deleted.
    fn of_name(&self, name: &str) -> Option<Uid> {
        let mut jobs = self.service.as_ref()?.jobs.iter();
        let of = |job: &Job| !job.is_deleted() && job.record.job.name() == name;
        jobs.find(|(_, job)| of(job)).map(|(uid, _)| uid.clone())
    }

    /// Whether a job that has not ended writes to a prefix.
    fn is_written_to(&self, prefix: &str) -> bool {
        let prefix = Prefix::new(prefix);
        let jobs = self
            .service
            .iter()
            .flat_map(|service| service.jobs.values());
        let mut live = jobs.filter(|job| !job.is_deleted() && !job.has_ended());
        live.any(|job| Prefix::of(&job.record.job.metadata).is_some_and(|of| of.overlaps(&prefix)))
    }

    /// Somebody wants something of a job.
    fn ask(&mut self, event: &Event) {
        let name = NAMES[self.below(3)];
        if let Some(uid) = self.of_name(name) {
            self.handle(&uid, event);
        }
    }

    /// What the machine does with an event. Whether it was taken note of.
    fn handle(&mut self, uid: &str, event: &Event) -> bool {
        let Some(job) = self.service.as_ref().and_then(|s| s.jobs.get(uid)) else {
            return true;
        };
        let step = job.step(event, self.now);
        let written = match (step.write, self.disk_works) {
            (Write::Nothing, _) => Ok(()),
            (Write::Update, true) => {
                let record = step.record().clone();
                self.stored.insert(record.key(), record);
                Ok(())
            }
            (Write::Remove, true) => {
                self.stored.remove(&step.record().key());
                Ok(())
            }
            (_, false) => Err("the disk is full"),
        };
        self.note(format!("{uid}: {event:?}, written: {written:?}"));
        let Ok((job, actions)) = step.stored(written) else {
            return false;
        };
        let key = job.record.key();
        if let Some(service) = &mut self.service {
            service.jobs.insert(uid.to_string(), job);
        }
        for action in actions {
            self.note(format!("    {action:?}"));
            self.act(uid, &key, action);
        }
        true
    }

    fn act(&mut self, uid: &str, key: &str, action: Action) {
        let Some(service) = &mut self.service else {
            return;
        };
        let fact = |service: &mut Service, uid: &str, replica, event| {
            let facts = service.facts.entry((uid.to_string(), replica));
            facts.or_default().push_back(event);
        };
        const JOB: usize = usize::MAX;
        match action {
            Action::AskForSlots(_) | Action::ReturnSlots => {
                let needed = service.jobs[uid].replicas.len() as u32;
                let job = uid.to_string();
                let granted = match action {
                    Action::AskForSlots(number) => {
                        service.slots.ask(Request { job, number }, needed)
                    }
                    _ => service.slots.give_back(uid),
                };
                for Request { job, number } in granted {
                    fact(service, &job, JOB, Event::SlotsGranted(number));
                }
                for job in service.unblocked() {
                    fact(service, &job, JOB, Event::Unblocked);
                }
            }
            Action::ChoosePort => {}
            Action::Start(attempt) => self.processes.push(Process {
                uid: uid.to_string(),
                key: key.to_string(),
                attempt,
                shim: true,
                stage: ProcessStage::Forked,
                killed_at: None,
            }),
            Action::Stop(attempt, grace) => {
                let at = self.now + grace;
                let is = |p: &&mut Process| p.uid == uid && p.attempt == attempt;
                if let Some(process) = self.processes.iter_mut().find(is) {
                    process.killed_at = Some(process.killed_at.map_or(at, |before| before.min(at)));
                }
            }
            Action::EndLost(attempt) => {
                let is = |p: &&mut Process| p.uid == uid && p.attempt == attempt;
                if let Some(process) = self.processes.iter_mut().find(is) {
                    process.stage = ProcessStage::Gone;
                }
                let exit = Exit::ordinary(137, None);
                fact(service, uid, attempt.replica, Event::Exited(attempt, exit));
            }
            Action::Forget => {
                service.jobs.remove(uid);
            }
        }
    }

    /// The service takes note of one thing that happened, if the disk lets it.
    fn deliver_one(&mut self) {
        let Some(service) = &self.service else { return };
        let waiting: Vec<_> = service
            .facts
            .iter()
            .filter(|(_, f)| !f.is_empty())
            .collect();
        if waiting.is_empty() {
            return;
        }
        let keys: Vec<_> = waiting.into_iter().map(|(key, _)| key.clone()).collect();
        let key = keys[self.below(keys.len())].clone();
        let event = self.service.as_ref().unwrap().facts[&key][0].clone();
        if self.handle(&key.0, &event)
            && let Some(facts) = self.service.as_mut().and_then(|s| s.facts.get_mut(&key))
        {
            facts.pop_front();
        }
    }

    /// Everything is taken note of, where the disk works.
    fn settle(&mut self) {
        while self.disk_works
            && let Some(service) = &self.service
            && service.facts.values().any(|facts| !facts.is_empty())
        {
            self.deliver_one();
        }
    }

    fn time_passes(&mut self) {
        self.settle();
        let passed = self.below(20_000) as u64;
        self.now += Duration::from_millis(passed);
        for number in 0..self.processes.len() {
            let overdue = |at: Timestamp| at <= self.now;
            if self.processes[number].killed_at.is_some_and(overdue) {
                self.exits(number, 137);
            }
        }
        self.wake();
    }

    fn wake(&mut self) {
        let Some(service) = &self.service else { return };
        let due = |job: &&Job| job.next_wake().is_some_and(|wake| wake <= self.now);
        let due: Vec<Uid> = service
            .jobs
            .iter()
            .filter(|(_, job)| due(job))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in due {
            self.handle(&uid, &Event::Wake);
        }
    }
}
