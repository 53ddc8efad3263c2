//! What the processes of replicas do.

use super::super::super::{Event, Exit, ExitKind};
use super::{ProcessStage, World};

impl World {
    /// A process begins, ends, or gives way to a signal.
    pub(super) fn process_moves(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        let number = self.below(self.processes.len());
        match self.processes[number].stage {
            ProcessStage::Forked => self.begins(number),
            ProcessStage::Alive => {
                let code = [0, 1, 1, 78, 98][self.below(5)];
                self.exits(number, code);
            }
            ProcessStage::Gone => {}
        }
    }

    pub(super) fn begins(&mut self, number: usize) {
        let process = &mut self.processes[number];
        if process.shim {
            process.stage = ProcessStage::Alive;
            let event = Event::Started(process.attempt);
            self.report(number, event);
        }
    }

    pub(super) fn exits(&mut self, number: usize, code: i32) {
        let process = &mut self.processes[number];
        if process.stage == ProcessStage::Gone {
            return;
        }
        process.stage = ProcessStage::Gone;
        if process.shim {
            let kind = match code {
                78 => ExitKind::Permanent,
                98 => ExitKind::PortTaken,
                _ => ExitKind::Ordinary,
            };
            let cause = None;
            let exit = Exit { code, cause, kind };
            let event = Event::Exited(process.attempt, exit);
            self.report(number, event);
        }
    }

    /// Delivers an event from the shim of a process to the service.
    pub(super) fn report(&mut self, number: usize, event: Event) {
        let process = &self.processes[number];
        let facts = (process.uid.clone(), process.attempt.replica);
        if let Some(service) = &mut self.service {
            service.facts.entry(facts).or_default().push_back(event);
        }
    }

    pub(super) fn kill_shim(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        let number = self.below(self.processes.len());
        let process = &mut self.processes[number];
        if !process.shim || process.stage == ProcessStage::Gone {
            return;
        }
        process.shim = false;
        if process.stage == ProcessStage::Forked {
            process.stage = ProcessStage::Gone;
        }
        let (uid, event) = (process.uid.clone(), Event::ShimLost(process.attempt));
        self.note(format!("{uid}: its shim is killed"));
        self.report(number, event);
    }
}
