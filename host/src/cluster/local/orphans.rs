//! Finds and kills processes that a killed shim has left behind.
//!
//! A shim is the subreaper of its replica, and the service is the subreaper of its shims. When a
//! shim is killed, the kernel therefore makes its processes children of the service, also those
//! that dropped their environment or started a session. The service recognises them by their
//! session: each shim starts one, and a process cannot join a session that it has left.
//!
//! If the service was killed as well, the next one finds the processes by the marker in their
//! environment.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::process::{Child, Command};
use tracing::{info, warn};

use super::processes::{Lineage, all, variable};
use super::shim::MARKER;

/// How long to wait before looking again whether a killed process is gone.
const RECHECK: Duration = Duration::from_millis(2);
/// How long the shims of a killed service may take to end by themselves.
const SHIMS_END: Duration = Duration::from_secs(1);
/// After this time without an end, the log says so.
const LONG: Duration = Duration::from_secs(10);

/// The shims of this process. Two clusters in one process share it.
static SHIMS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A shim and its entry among [`SHIMS`].
#[derive(Debug)]
pub struct Shim {
    pub process: Child,
    pid: Option<Pid>,
}

impl Shim {
    /// Starts a shim.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut shims = shims();
        let process = command.spawn()?;
        let pid = process
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        shims.extend(pid);
        Ok(Self { process, pid })
    }

    /// Waits until the shim has ended.
    pub async fn wait(&mut self) {
        let _ = self.process.wait().await;
        self.forget();
    }

    fn forget(&mut self) {
        if let Some(pid) = self.pid.take() {
            shims().retain(|shim| *shim != pid);
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Makes this process the parent of what killed shims leave.
pub fn become_subreaper() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(getpid())) {
        warn!(%error, "processes of a killed shim are only found by their environment");
    }
}

/// Kills what killed shims left, and returns when it is gone. Waits for the kernel: not for a thread
/// of the runtime.
pub fn end() {
    end_all(adopted);
}

/// Kills the processes whose marker begins with a prefix, after their shims had time to do so.
pub fn end_marked(prefix: &str) {
    let begun = Instant::now();
    while !marked(prefix).is_empty() && begun.elapsed() < SHIMS_END {
        std::thread::sleep(RECHECK);
    }
    end_all(|| marked(prefix));
}

fn end_all(left: impl Fn() -> Vec<Pid>) {
    let begun = Instant::now();
    let mut message = false;
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        info!(processes = left.len(), "killing processes that a shim left");
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
            // Only children of this process can be reaped; for others this does nothing.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        if begun.elapsed() > LONG && !message {
            message = true;
            warn!("killed processes do not end: the kernel keeps them");
        }
        std::thread::sleep(RECHECK);
    }
}

/// The children of this process that neither it nor its shims started.
fn adopted() -> Vec<Pid> {
    let shims = shims();
    let this = getpid();
    let session = Lineage::of(this).map_or(0, |of| of.session);
    let is_adopted =
        |pid: &Pid| Lineage::of(*pid).is_some_and(|child| is_of_a_shim(child, this, session));
    all()
        .filter(|pid| !shims.contains(pid))
        .filter(is_adopted)
        .collect()
}

/// Whether a process is a child of `this` in a session that began below it. `session` is that of
/// `this`: 0 if its leader is in another PID namespace, a case that `getsid` cannot express.
fn is_of_a_shim(child: Lineage, this: Pid, session: i32) -> bool {
    child.parent == this.as_raw_nonzero().get() && child.session > 0 && child.session != session
}

fn marked(prefix: &str) -> Vec<Pid> {
    let is_marked = |pid: &Pid| variable(*pid, MARKER).is_some_and(|is| is.starts_with(prefix));
    all()
        .filter(|pid| *pid != getpid())
        .filter(is_marked)
        .collect()
}

fn shims() -> MutexGuard<'static, Vec<Pid>> {
    SHIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_in_the_session_of_the_service_is_not_of_a_shim_wherever_its_leader_is() {
        let this = getpid();
        let child = |session| Lineage {
            parent: this.as_raw_nonzero().get(),
            session,
        };
        for own in [0, 1, 40] {
            assert!(!is_of_a_shim(child(own), this, own), "session {own}");
            assert!(is_of_a_shim(child(70), this, own), "session {own}");
            assert!(!is_of_a_shim(child(-1), this, own), "an ended process");
        }
        let elsewhere = Lineage {
            parent: 1,
            session: 70,
        };
        assert!(!is_of_a_shim(elsewhere, this, 40));
    }
}
