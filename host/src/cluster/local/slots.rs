//! What replicas wait for: the machine's GPUs, or its cores where there are none.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of this machine. Jobs get theirs all at once and in the order in which they came, so
/// that none starves and no two wait for each other.
#[derive(Clone, Debug)]
pub struct Slots {
    total: u32,
    kind: SlotKind,
    free: Arc<Semaphore>,
    /// The numbers of the free GPUs; empty where slots are cores.
    gpus: Arc<Mutex<BTreeSet<u32>>>,
}

/// What a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    Gpu,
    Core,
}

/// Slots that a job has until this is dropped.
#[derive(Debug)]
pub struct Lease {
    slots: Slots,
    /// The numbers of its GPUs.
    pub gpus: Vec<u32>,
    _permit: OwnedSemaphorePermit,
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

    fn new(kind: SlotKind, total: u32) -> Self {
        let gpus = match kind {
            SlotKind::Gpu => (0..total).collect(),
            SlotKind::Core => BTreeSet::new(),
        };
        Self {
            total,
            kind,
            free: Arc::new(Semaphore::new(total as usize)),
            gpus: Arc::new(Mutex::new(gpus)),
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

    /// Why so many slots will never be free on this machine, if so.
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

    /// What a job that waits for its turn is told.
    pub fn waiting(&self, needed: u32) -> String {
        self.never(needed).unwrap_or_else(|| {
            let free = self.free.available_permits();
            let total = self.total;
            format!("It waits for {needed} slots; {free} of {total} are free now, and jobs get theirs in turn.")
        })
    }

    /// Waits for slots. Waits for ever for more than there are.
    pub async fn acquire(&self, needed: u32) -> Lease {
        if self.never(needed).is_some() {
            return std::future::pending().await;
        }
        let Ok(permit) = self.free.clone().acquire_many_owned(needed).await else {
            // The semaphore is never closed.
            return std::future::pending().await;
        };
        let mut free = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
        let gpus: Vec<u32> = free.iter().copied().take(needed as usize).collect();
        free.retain(|gpu| !gpus.contains(gpu));
        Lease {
            slots: self.clone(),
            gpus,
            _permit: permit,
        }
    }

    pub fn kind(&self) -> SlotKind {
        self.kind
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut free = self
            .slots
            .gpus
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.extend(self.gpus.drain(..));
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
    use std::time::Duration;

    #[tokio::test]
    async fn jobs_get_their_slots_all_at_once_and_in_order() {
        let slots = Slots::new(SlotKind::Gpu, 4);
        let first = slots.acquire(3).await;
        assert_eq!(first.gpus, [0, 1, 2]);
        let second = slots.acquire(2);
        let third = slots.acquire(1);
        tokio::pin!(second, third);
        let waits = Duration::from_millis(20);
        assert!(tokio::time::timeout(waits, &mut second).await.is_err());
        assert!(tokio::time::timeout(waits, &mut third).await.is_err());
        drop(first);
        let (second, third) = tokio::join!(second, third);
        assert_eq!((second.gpus.len(), third.gpus.len()), (2, 1));
        assert!(second.gpus.iter().all(|gpu| !third.gpus.contains(gpu)));
    }

    #[tokio::test]
    async fn a_job_that_never_fits_keeps_nobody_waiting() {
        let slots = Slots::new(SlotKind::Core, 2);
        let never = slots.acquire(3);
        tokio::pin!(never);
        let waits = Duration::from_millis(20);
        assert!(tokio::time::timeout(waits, &mut never).await.is_err());
        slots.acquire(2).await;
    }
}
