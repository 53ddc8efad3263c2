//! `trainer start-replica`: the first processes of a contained replica, as a container's init.
//!
//! The outer one makes the namespaces, which only a child can be in. The inner one is process 1 of
//! the PID namespace: when it ends or is killed, the kernel kills every process of the replica,
//! whatever session or environment that gave itself. Each dies with its parent, so all of them die
//! with the shim. The inner one hides what is not the replica's, gives up the rights that the
//! service has, and starts the command.

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, getgid, getuid, set_dumpable_behavior,
    set_parent_process_death_signal, wait,
};

use super::sys::{self, Disposition, Mount};
use super::{Outcome, Start};

/// The exit code of a program that cannot be started, as a shell gives it.
pub(super) const CANNOT_START: u8 = 127;
/// The capabilities that a command keeps where the service is root: those of a container, without
/// the ones that reach devices, raw sockets or files by handle. (linux/capability.h)
const KEPT_CAPABILITIES: &[u64] = &[
    0,  // CAP_CHOWN
    1,  // CAP_DAC_OVERRIDE
    3,  // CAP_FOWNER
    4,  // CAP_FSETID
    5,  // CAP_KILL
    6,  // CAP_SETGID
    7,  // CAP_SETUID
    10, // CAP_NET_BIND_SERVICE
    14, // CAP_IPC_LOCK, which pins memory for network cards
    18, // CAP_SYS_CHROOT
    23, // CAP_SYS_NICE
    24, // CAP_SYS_RESOURCE
];
/// What the inner process needs where the service is not root.
const NEEDED_CAPABILITIES: &[u64] = &[
    8,  // CAP_SETPCAP, to give up capabilities
    21, // CAP_SYS_ADMIN, to mount
];
/// More than any kernel has.
const MOST_CAPABILITIES: u64 = 64;
/// What of `/proc` a root user without capabilities could still change the machine with.
const READ_ONLY: &[&str] = &[
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/sys",
];
/// Devices that read the machine's memory, beside its disks.
const MEMORY_DEVICES: &[&str] = &[
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/dev/kmsg",
    "/proc/kcore",
];

/// Makes the namespaces, and ends as the process that is started in them.
///
/// # Errors
///
/// When standard input is not the socket of a shim.
pub fn run() -> io::Result<ExitCode> {
    // A SIGTERM for the group is for the command.
    let entered = sys::on_termination(Disposition::Ignore)
        .and_then(|()| enter_namespaces())
        .and_then(|()| die_with_parent());
    if let Err(error) = entered {
        answer(&Outcome::NotContained(error.to_string()))?;
        return Ok(ExitCode::from(CANNOT_START));
    }
    let inner = Command::new(std::env::current_exe()?)
        .args(["start-replica", "inner"])
        .env_clear()
        .status()?;
    let signal = inner.signal().map(|signal| 128 + signal);
    Ok(exit_code(inner.code().or(signal)))
}

/// Contains this process, starts the command, and ends as it does.
///
/// # Errors
///
/// When standard input is not the socket of a shim.
pub fn run_inside() -> io::Result<ExitCode> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let start: Start = serde_json::from_str(&line)?;
    let started = contain(&start)
        .map_err(|error| Outcome::NotContained(error.to_string()))
        .and_then(|()| command(&start).map_err(|error| not_started(&error)));
    match started {
        Ok(main) => {
            answer(&Outcome::Started)?;
            Ok(end_with(main))
        }
        Err(outcome) => {
            answer(&outcome)?;
            Ok(ExitCode::from(CANNOT_START))
        }
    }
}

pub(super) fn not_started(error: &io::Error) -> Outcome {
    Outcome::NotStarted {
        reason: error.to_string(),
        os_error: error.raw_os_error(),
    }
}

/// Answers the shim, on the socket that is standard input.
pub(super) fn answer(outcome: &Outcome) -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let line = serde_json::to_string(outcome)? + "\n";
    (&socket).write_all(line.as_bytes())
}

pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// The namespaces of the process that is started next. Without root they need a user namespace, in
/// which everybody is who they were.
fn enter_namespaces() -> io::Result<()> {
    if getuid().is_root() {
        return sys::unshare(libc::CLONE_NEWPID);
    }
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    sys::pass_on(NEEDED_CAPABILITIES)
}

fn contain(start: &Start) -> io::Result<()> {
    die_with_parent()?;
    sys::unshare(libc::CLONE_NEWNS)?;
    let nothing = Path::new("");
    let private = Mount {
        source: nothing,
        target: Path::new("/"),
        kind: "",
        flags: libc::MS_REC | libc::MS_SLAVE,
        options: "",
    };
    private.make()?;
    let proc = Mount {
        source: Path::new("proc"),
        target: Path::new("/proc"),
        kind: "proc",
        flags: libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        options: "",
    };
    proc.make()?;
    hide_all(start)?;
    let is_root = getuid().is_root();
    if is_root {
        protect_machine()?;
    }
    let is_kept = |capability: &u64| is_root && KEPT_CAPABILITIES.contains(capability);
    for capability in (0..MOST_CAPABILITIES).filter(|capability| !is_kept(capability)) {
        // There is none of this number.
        let _ = sys::drop_from_bounding_set(capability);
    }
    sys::allow_no_new_privileges()?;
    sys::pass_on_nothing()?;
    // This process has more rights than the command, which must not use it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Hides the files of the service, but for the folder of this replica.
fn hide_all(start: &Start) -> io::Result<()> {
    let own = File::open(&start.own_folder)?;
    let own_path = PathBuf::from(format!("/proc/self/fd/{}", own.as_raw_fd()));
    for hidden in start.hidden.iter().filter(|path| path.exists()) {
        if !hidden.is_dir() {
            hide_file(hidden)?;
            continue;
        }
        let empty = Mount {
            source: Path::new("tmpfs"),
            target: hidden,
            kind: "tmpfs",
            flags: libc::MS_NOSUID | libc::MS_NODEV,
            options: "size=64k,mode=755",
        };
        empty.make()?;
        if start.own_folder.starts_with(hidden) {
            fs::create_dir_all(&start.own_folder)?;
            bind(&own_path, &start.own_folder)?;
        }
        let read_only = Mount {
            flags: empty.flags | libc::MS_REMOUNT | libc::MS_RDONLY,
            ..empty
        };
        read_only.make()?;
    }
    Ok(())
}

fn hide_file(file: &Path) -> io::Result<()> {
    bind(Path::new("/dev/null"), file)
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    let bind = Mount {
        source,
        target,
        kind: "",
        flags: libc::MS_BIND | libc::MS_REC,
        options: "",
    };
    bind.make()
}

/// What a root user may do without any capability: write settings of the kernel, disks and memory.
fn protect_machine() -> io::Result<()> {
    for tree in READ_ONLY.iter().map(Path::new).filter(|tree| tree.exists()) {
        bind(tree, tree)?;
        sys::make_read_only(tree)?;
    }
    let memory = MEMORY_DEVICES.iter().map(PathBuf::from);
    let disks = fs::read_dir("/dev")?.flatten().filter(|entry| {
        let kind = entry.file_type();
        kind.is_ok_and(|kind| kind.is_block_device())
    });
    let devices = disks.map(|entry| entry.path()).chain(memory);
    devices
        .filter(|device| device.exists())
        .try_for_each(|device| hide_file(&device))
}

fn command(start: &Start) -> io::Result<Pid> {
    let mut command = start.command()?;
    sys::on_termination(Disposition::Default)?;
    let child = command.spawn()?;
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("no process id"))
}

/// Reaps until the main process has ended. The kernel kills the others when this process ends.
fn end_with(main: Pid) -> ExitCode {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == main => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return exit_code(status.exit_status().or(signal));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return ExitCode::FAILURE,
        }
    }
}

/// As a shell gives it: a signal is 128 and its number.
fn exit_code(code: Option<i32>) -> ExitCode {
    let code = code.and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(u8::MAX))
}
