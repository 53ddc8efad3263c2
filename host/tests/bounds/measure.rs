//! Processor time of this process and memory that its allocator gives out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count of the bytes in use.
pub struct CountingAllocator;

#[expect(unsafe_code, reason = "an allocator has no safe form")]
// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = IN_USE.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(in_use, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What something cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Of the processor, on all threads.
    pub time: Duration,
    /// The most bytes in use at one moment, beyond those before.
    pub memory: usize,
}

impl Measured {
    pub fn max(self, other: Self) -> Self {
        Self {
            time: self.time.max(other.time),
            memory: self.memory.max(other.memory),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, memory } = self;
        write!(formatter, "{time:.1?}, {} KiB", memory / 1024)
    }
}

pub async fn measured<T>(work: impl Future<Output = T>) -> (T, Measured) {
    let (begun, before) = (process_time(), IN_USE.load(Relaxed));
    MOST.store(before, Relaxed);
    let done = work.await;
    let memory = MOST.load(Relaxed).saturating_sub(before);
    let time = process_time() - begun;
    (done, Measured { time, memory })
}

/// The processor time of this process so far, on all threads.
pub fn process_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[expect(unsafe_code, reason = "no library of ours has a safe function for it")]
    // SAFETY: the kernel writes a structure that lives until the call is over.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap();
    Duration::new(time.tv_sec.unsigned_abs(), nanoseconds)
}
