//! How a thread steps back for those that serve requests.

/// How much less of a processor it gets than others that want it.
const NICENESS: i32 = 10;
/// The turn that it asks for, in nanoseconds: the longest that Linux grants (sched_setattr(2), since
/// 6.12). Who wakes and asks for a shorter one, as everybody does by default, takes the processor
/// from it at once; of an equal one it would have to wait for the end, some milliseconds.
const TURN_NANOSECONDS: u64 = 100_000_000;

/// Lets every other thread go first, for the rest of this thread's life. Where that cannot be had it is
/// only less polite.
pub(super) fn step_back() {
    #[cfg(target_os = "linux")]
    set_scheduling();
}

#[cfg(target_os = "linux")]
fn set_scheduling() {
    let size = size_of::<libc::sched_attr>();
    let attributes = libc::sched_attr {
        size: u32::try_from(size).unwrap_or_default(),
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        sched_nice: NICENESS,
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
