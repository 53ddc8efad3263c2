//! How threads that work in the background let those go first that serve requests.

/// How much less of a processor who steps back gets than others that want it.
const NICENESS: i32 = 10;
/// The turn to ask for, in nanoseconds: the longest that Linux grants (sched_setattr(2), since 6.12).
/// Who wakes and asks for a shorter one, as everybody does by default, takes the processor at once; of
/// an equal one it would have to wait for the end, some milliseconds.
#[cfg(target_os = "linux")]
const TURN_NANOSECONDS: u64 = 100_000_000;

/// Lets every other thread go first and have the most of the processor, for the rest of this thread's
/// life. Where that cannot be had it is only less polite.
pub fn lower_priority() {
    schedule(NICENESS);
}

/// Lets every other thread go first, which costs this one no time but the moment.
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
    // SAFETY: the kernel reads `size` bytes of a structure that lives until the call is over.
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

    /// What the kernel says of this thread.
    fn told(name: &str) -> Option<String> {
        let told = std::fs::read_to_string("/proc/thread-self/sched").ok()?;
        let line = told.lines().find(|line| line.starts_with(name))?;
        Some(line.rsplit(':').next()?.trim().to_string())
    }

    #[test]
    fn a_thread_steps_back_alone() {
        let before = told("prio");
        std::thread::spawn(|| {
            lower_priority();
            if let Some(priority) = told("prio") {
                assert_eq!(priority, "130");
            }
            // Kernels before 6.12 have one length of turns for all.
            if let Some(turn) = told("se.slice") {
                assert_eq!(turn, TURN_NANOSECONDS.to_string());
            }
        })
        .join()
        .unwrap();
        assert_eq!(told("prio"), before);
    }
}
