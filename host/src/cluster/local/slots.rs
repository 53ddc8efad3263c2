//! What replicas wait for: the machine's GPUs, or its cores where there are none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The slots of this machine. Jobs get theirs all at once and in the order in which they asked, so
/// that none starves and no two wait for each other.
#[derive(Clone, Debug)]
pub struct Slots {
    total: u32,
    kind: SlotKind,
    free: u32,
    /// The numbers of the free GPUs; empty where slots are cores.
    free_gpus: BTreeSet<u32>,
    /// Who waits, and for how many.
    waiting: VecDeque<(Request, u32)>,
    /// By the job's uid.
    leases: BTreeMap<String, Lease>,
}

/// One request of a job. A job that withdrew a request may have made another by the time it hears
/// that the first was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The job's uid.
    pub job: String,
    pub number: u64,
}

/// What a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    Gpu,
    Core,
}

/// The slots of a job.
#[derive(Clone, Debug)]
struct Lease {
    slots: u32,
    /// The numbers of its GPUs.
    gpus: Vec<u32>,
}

impl Slots {
    /// The slots of this machine, or as many as the operator says.
    pub fn of_this_machine(count: Option<u32>) -> Self {
        let gpus = gpus_of_this_machine();
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let (kind, found) = match gpus {
            0 => (SlotKind::Core, u32::try_from(cores).unwrap_or(u32::MAX)),
            gpus => (SlotKind::Gpu, gpus),
        };
        Self::new(kind, count.unwrap_or(found))
    }

    pub(super) fn new(kind: SlotKind, total: u32) -> Self {
        let free_gpus = match kind {
            SlotKind::Gpu => (0..total).collect(),
            SlotKind::Core => BTreeSet::new(),
        };
        Self {
            total,
            kind,
            free: total,
            free_gpus,
            waiting: VecDeque::new(),
            leases: BTreeMap::new(),
        }
    }

    /// How many slots a job takes: one a process where slots are cores, one a GPU where they are
    /// GPUs.
    pub fn needed(&self, replicas: u32, gpus_per_replica: u32) -> u32 {
        let each = match self.kind {
            SlotKind::Gpu => gpus_per_replica,
            SlotKind::Core => gpus_per_replica.max(1),
        };
        replicas.saturating_mul(each)
    }

    /// The reason if this machine will never have the needed number of slots.
    pub fn never(&self, needed: u32) -> Option<String> {
        let kind = match self.kind {
            SlotKind::Gpu => "GPUs",
            SlotKind::Core => "cores",
        };
        (needed > self.total).then(|| {
            format!(
                "the job needs {needed} slots (num_nodes * gpus_per_node) and this machine has {} \
                 ({kind}): it waits until the service is started with more TRAINER_LOCAL_SLOTS",
                self.total
            )
        })
    }

    /// The reason why a job waits for its turn.
    pub fn waiting(&self, needed: u32) -> String {
        self.never(needed).unwrap_or_else(|| {
            let (free, total) = (self.free, self.total);
            format!("It waits for {needed} slots; {free} of {total} are free now, and jobs get theirs in turn.")
        })
    }

    /// Puts a job at the end of the queue. Gives the requests that are granted now. Who asks for
    /// more than there are waits beside the queue, for ever.
    #[must_use]
    pub fn ask(&mut self, request: Request, needed: u32) -> Vec<Request> {
        if self.never(needed).is_none() {
            self.waiting.push_back((request, needed));
        }
        self.grant()
    }

    /// Takes the slots of a job back, or its place in the queue. Gives the requests that are
    /// granted now.
    #[must_use]
    pub fn give_back(&mut self, job: &str) -> Vec<Request> {
        self.waiting.retain(|(waiting, _)| waiting.job != job);
        if let Some(lease) = self.leases.remove(job) {
            self.free += lease.slots;
            self.free_gpus.extend(lease.gpus);
        }
        self.grant()
    }

    /// The numbers of a job's GPUs; `None` where slots are cores.
    pub fn gpus(&self, job: &str) -> Option<Vec<u32>> {
        if self.kind == SlotKind::Core {
            return None;
        }
        self.leases.get(job).map(|lease| lease.gpus.clone())
    }

    fn grant(&mut self) -> Vec<Request> {
        let mut granted = Vec::new();
        while let Some((_, slots)) = self.waiting.front()
            && *slots <= self.free
            && let Some((request, slots)) = self.waiting.pop_front()
        {
            self.free -= slots;
            let gpus = self.free_gpus.iter().copied().take(slots as usize);
            let gpus: Vec<u32> = gpus.collect();
            self.free_gpus.retain(|gpu| !gpus.contains(gpu));
            let lease = Lease { slots, gpus };
            self.leases.insert(request.job.clone(), lease);
            granted.push(request);
        }
        granted
    }

    /// The jobs that have slots, and how many.
    #[cfg(test)]
    pub fn held(&self) -> BTreeMap<&str, u32> {
        let leases = self.leases.iter();
        leases
            .map(|(job, lease)| (job.as_str(), lease.slots))
            .collect()
    }

    #[cfg(test)]
    pub fn free(&self) -> u32 {
        self.free
    }
}

fn gpus_of_this_machine() -> u32 {
    let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let gpus = devices.filter(|device| {
        let name = device.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("nvidia"));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    });
    u32::try_from(gpus.count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(job: &str) -> Request {
        let (job, number) = (job.to_string(), 1);
        Request { job, number }
    }

    #[test]
    fn jobs_get_their_slots_all_at_once_and_in_order() {
        let mut slots = Slots::new(SlotKind::Gpu, 4);
        assert_eq!(slots.ask(request("first"), 3), [request("first")]);
        assert_eq!(slots.gpus("first").unwrap(), [0, 1, 2]);
        assert!(slots.ask(request("second"), 2).is_empty());
        assert!(
            slots.ask(request("third"), 1).is_empty(),
            "it does not overtake"
        );
        assert_eq!(
            slots.give_back("first"),
            [request("second"), request("third")]
        );
        let (second, third) = (slots.gpus("second").unwrap(), slots.gpus("third").unwrap());
        assert_eq!((second.len(), third.len()), (2, 1));
        assert!(second.iter().all(|gpu| !third.contains(gpu)));
    }

    #[test]
    fn a_job_that_never_fits_keeps_nobody_waiting() {
        let mut slots = Slots::new(SlotKind::Core, 2);
        assert!(slots.ask(request("never"), 3).is_empty());
        assert_eq!(slots.ask(request("fits"), 2), [request("fits")]);
    }

    #[test]
    fn a_job_that_leaves_the_queue_lets_the_next_one_pass() {
        let mut slots = Slots::new(SlotKind::Core, 2);
        assert_eq!(slots.ask(request("one"), 1), [request("one")]);
        assert!(slots.ask(request("wide"), 2).is_empty());
        assert!(slots.ask(request("narrow"), 1).is_empty());
        assert_eq!(slots.give_back("wide"), [request("narrow")]);
        assert_eq!(slots.free(), 0);
    }
}
