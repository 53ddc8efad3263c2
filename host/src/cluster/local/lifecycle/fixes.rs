//! Fixes that the simulation takes out, to show that it finds what they fix. In the service each
//! of them holds.

/// A fix of a fault that the local cluster once had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster::local) enum Fix {
    /// A start has no effect if the replica has been asked to stop in the meantime.
    LateStart,
    /// A replica whose shim was killed has ended when its processes are gone.
    LostShim,
    /// A job waits for the replicas of a deleted job of its name or prefix.
    Successor,
    /// A step that is not stored is not taken.
    Unstored,
    /// A start waits for the locks of a service that was killed.
    HeldLock,
    /// A resumed job says that it waits for its old replicas.
    OldReplicas,
}

#[cfg(not(test))]
pub(in crate::cluster::local) const fn holds(_: Fix) -> bool {
    true
}

#[cfg(test)]
thread_local! {
    /// The fix that is taken out on this thread.
    static TAKEN_OUT: std::cell::Cell<Option<Fix>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(in crate::cluster::local) fn holds(fix: Fix) -> bool {
    TAKEN_OUT.get() != Some(fix)
}

#[cfg(test)]
pub(super) fn take_out(fix: Option<Fix>) {
    TAKEN_OUT.set(fix);
}
