//! `trainer keep-replica`, the shim: the small process between the service and one replica, as a
//! container's shim stands between a kubelet and its container.
//!
//! The service may be killed at any moment, and then no process of its jobs may live on beside the
//! ones that its successor starts. A shim notices, because its standard input ends, and takes
//! the replica down before it goes itself:
//!
//! * it holds the replica's lock from before the first process starts until the last has ended, so
//!   its successor waits for it;
//! * it is the subreaper of all that the replica starts, in whatever session (torchrun puts each
//!   worker in one of its own), so it can see when the last has ended;
//! * if it was killed itself, its successor finds what it left by the replica's marker in the
//!   environment of each process.
//!
//! It reads what to run from one line of JSON on standard input, and reports on standard output in
//! lines of JSON. It has a single purpose and no async runtime: it starts in a millisecond.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, wait,
};
use serde::{Deserialize, Serialize};

use super::contain::{Contained, Containment};
use super::processes::{Lineage, all, variable};
use super::times::{self, MarkWriter};

/// Names the replica in the environment of each of its processes.
pub const MARKER: &str = "TRAINER_REPLICA";
/// The exit code of a program that can never be started, as a shell gives it.
const CANNOT_START: i32 = 127;
/// That of one that may be started later, as a container runtime gives it.
const CANNOT_START_NOW: i32 = 128;
/// How long to wait before looking again whether the last process has ended.
const RECHECK: Duration = Duration::from_millis(5);

/// What a shim is to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The replica, for [`MARKER`].
    pub replica: String,
    pub command: Vec<String>,
    /// The whole environment: nothing else is inherited.
    pub environment: BTreeMap<String, String>,
    /// How the replica is contained, if it is.
    pub containment: Option<Containment>,
    /// How much of the log stays on disk.
    pub most_log_bytes: u64,
    pub working_directory: PathBuf,
    /// The file that gets standard output and standard error.
    pub log: PathBuf,
    /// The file whose lock says that the replica runs.
    pub lock: PathBuf,
}

/// Further commands from the service.
#[derive(Debug, Serialize, Deserialize)]
pub enum ShimCommand {
    /// Sends SIGTERM, and SIGKILL to the remaining processes after `grace_ms` milliseconds.
    Stop { grace_ms: u64 },
}

/// What a shim reports.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    Started {
        pid: i32,
    },
    CannotStart {
        reason: String,
    },
    /// The last process has ended. Signals count as 128 and their number, as in a container.
    Exited {
        code: i32,
    },
}

/// Set when everything is to be killed.
static KILLING: AtomicBool = AtomicBool::new(false);

/// Runs the shim until its replica has ended.
///
/// # Errors
///
/// When it cannot even read what it is to run.
pub fn run() -> std::io::Result<()> {
    // The service recognises processes that this one leaves behind by their session. A Ctrl-C at
    // the terminal reaches only the service, which stops its replicas itself.
    let _ = rustix::process::setsid();
    let mut lines = std::io::stdin().lock().lines();
    let Some(line) = lines.next() else {
        return Ok(());
    };
    let assignment: Assignment = serde_json::from_str(&line?)?;
    drop(lines);
    // Elsewhere only the process group is known, which what puts itself into a session leaves.
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(getpid()))?;
    let lock = private().write(true).open(&assignment.lock)?;
    lock.lock()?;
    end_leftovers(&assignment.replica);
    let code = match start(&assignment) {
        Ok(main) => {
            report(&Report::Started {
                pid: main.as_raw_nonzero().get(),
            });
            std::thread::spawn(move || handle_commands(main));
            let marks = MarkWriter::open(&assignment.log, assignment.most_log_bytes).ok();
            let marks = marks.map(|marks| Arc::new(Mutex::new(marks)));
            if let Some(marks) = marks.clone() {
                std::thread::spawn(move || mark(&marks));
            }
            let code = keep(main);
            // The last lines of the replica.
            marks.as_deref().map(look);
            code
        }
        Err(error) => {
            let reason = format!(
                "cannot start {} in {}: {error}",
                assignment.command.first().map_or("", String::as_str),
                assignment.working_directory.display()
            );
            report(&Report::CannotStart { reason });
            cannot_start(&error)
        }
    };
    drop(lock);
    report(&Report::Exited { code });
    Ok(())
}

/// The exit code that stands for a program that was not started.
fn cannot_start(error: &std::io::Error) -> i32 {
    let never = [
        libc::ENOENT,
        libc::ENOTDIR,
        libc::EACCES,
        libc::ENOEXEC,
        libc::E2BIG,
        libc::ELOOP,
        libc::ENAMETOOLONG,
    ];
    match error.raw_os_error() {
        Some(code) if never.contains(&code) => CANNOT_START,
        _ => CANNOT_START_NOW,
    }
}

/// Notes when the log grows. A log without times is better than no replica, so nothing that goes
/// wrong here stops one.
fn mark(marks: &Mutex<MarkWriter>) {
    loop {
        std::thread::sleep(times::INTERVAL);
        look(marks);
    }
}

fn look(marks: &Mutex<MarkWriter>) {
    let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = marks.look();
}

/// Makes a file for this user alone, and follows no link that somebody put in its place.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW);
    options
}

fn start(assignment: &Assignment) -> std::io::Result<Pid> {
    let log = private().append(true).open(&assignment.log)?;
    let errors = log.try_clone()?;
    let prepare = |command: &mut Command| {
        command
            .current_dir(&assignment.working_directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
    };
    let mut environment = assignment.environment.clone();
    environment.insert(MARKER.to_string(), assignment.replica.clone());
    let child = match &assignment.containment {
        Some(containment) => Contained {
            program: &std::env::current_exe()?,
            containment,
            command: &assignment.command,
            environment,
            own_folder: assignment.log.parent().unwrap_or(&assignment.log),
        }
        .start(prepare)?,
        None => uncontained(&assignment.command, environment, prepare)?,
    };
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| std::io::Error::other("no process id"))
}

fn uncontained(
    command: &[String],
    environment: BTreeMap<String, String>,
    prepare: impl FnOnce(&mut Command),
) -> std::io::Result<Child> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| std::io::Error::other("the command is empty"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment);
    prepare(&mut command);
    command.spawn()
}

/// Reaps until no process of the replica is left; gives the exit code of its main process.
fn keep(main: Pid) -> i32 {
    let mut code = None;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == main => {
                code = Some(exit_code(status));
                // A container ends with its first process, and so does a replica.
                kill_everything(main);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // No child is left.
            Err(_) => return code.unwrap_or(128 + Signal::KILL.as_raw()),
        }
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 128,
    }
}

/// Follows the service's orders; when there is nobody left to give any, kills everything.
fn handle_commands(main: Pid) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(ShimCommand::Stop { grace_ms }) = serde_json::from_str(&line) else {
            continue;
        };
        let _ = kill_process_group(main, Signal::TERM);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(grace_ms));
            kill_everything(main);
        });
    }
    kill_everything(main);
}

/// Kills the replica's process group and every descendant, until the process ends because none is
/// left. Descendants whose parents are killed become children of this process.
fn kill_everything(main: Pid) {
    if KILLING.swap(true, Ordering::SeqCst) {
        return;
    }
    std::thread::spawn(move || {
        let _ = kill_process_group(main, Signal::KILL);
        loop {
            for pid in children() {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(RECHECK);
        }
    });
}

/// The processes whose parent is this one.
fn children() -> Vec<Pid> {
    let this = getpid().as_raw_nonzero().get();
    all()
        .filter(|pid| Lineage::of(*pid).is_some_and(|child| child.parent == this))
        .collect()
}

/// Kills what a shim left that was killed itself, and waits until it is gone.
fn end_leftovers(replica: &str) {
    /// Killed processes end within milliseconds, unless the kernel itself is stuck.
    const PATIENCE: Duration = Duration::from_secs(30);
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let left: Vec<Pid> = all()
            .filter(|pid| *pid != getpid() && variable(*pid, MARKER).as_deref() == Some(replica))
            .collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(RECHECK);
    }
}

fn report(report: &Report) {
    // The service may have ended. Continue nevertheless.
    if let Ok(line) = serde_json::to_string(report) {
        let mut output = std::io::stdout().lock();
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }
}
