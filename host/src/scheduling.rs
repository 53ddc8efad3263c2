//! Lowers the priority of background threads, so that threads that serve requests run first.

/// The nice value of background threads.
const NICENESS: i32 = 10;
/// The time slice to request, in nanoseconds: the longest that Linux allows (sched_setattr(2),
/// since 6.12). A thread with a shorter slice, which is the default, preempts this one immediately
/// when it wakes; with an equal slice it would have to wait some milliseconds.
#[cfg(target_os = "linux")]
const TURN_NANOSECONDS: u64 = 100_000_000;

/// Lowers the priority of this thread permanently, and requests long time slices if the kernel
/// supports it.
pub fn lower_priority() {
    schedule(NICENESS);
}

/// Requests long time slices, so that other threads can preempt this one immediately.
pub fn yield_to_others() {
    schedule(0);
}

#[cfg(target_os = "linux")]
fn schedule(niceness: i32) {
    let size = size_of::<libc::sched_attr>();
    let attributes = libc::sched_attr {
        size: u32::try_from(size).unwrap_or_default(),
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        sched_nice: niceness,
        sched_priority: 0,
        sched_runtime: TURN_NANOSECONDS,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (this_thread, no_flags) = (0, 0);
    #[expect(unsafe_code, reason = "no library has a safe function for it")]
    // SAFETY: the kernel reads `size` bytes of a structure that outlives the call.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            this_thread,
            &raw const attributes,
            no_flags,
        )
    };
}

#[cfg(not(target_os = "linux"))]
fn schedule(_niceness: i32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The scheduling attributes of this thread.
    fn reported(name: &str) -> Option<String> {
        let reported = std::fs::read_to_string("/proc/thread-self/sched").ok()?;
        let line = reported.lines().find(|line| line.starts_with(name))?;
        Some(line.rsplit(':').next()?.trim().to_string())
    }

    #[test]
    fn a_thread_steps_back_alone() {
        let before = reported("prio");
        std::thread::spawn(|| {
            lower_priority();
            if let Some(priority) = reported("prio") {
                assert_eq!(priority, "130");
            }
            // Kernels before 6.12 have the same time slice for all threads.
            if let Some(turn) = reported("se.slice") {
                assert_eq!(turn, TURN_NANOSECONDS.to_string());
            }
        })
        .join()
        .unwrap();
        assert_eq!(reported("prio"), before);
    }
}
