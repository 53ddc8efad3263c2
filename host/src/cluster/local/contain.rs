//! Containment of replicas: what keeps a job from the service, its files and other jobs.
//!
//! The local cluster runs trusted code of one user; this is a second line of defence. A contained
//! replica has its own PID and mount namespaces, in a user namespace unless the service is root. It
//! sees no process but its own, none of the service's files, and cannot gain rights. The user's own
//! files, devices and network stay as they are.

#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod sys;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
pub use init::{run, run_inside};

/// What the service keeps in its data folder, and what is not for jobs.
pub const HIDDEN: [&str; 5] = [
    "jobs",
    "jobs.redb",
    "deleted",
    "compiled-plugins",
    "pulled-plugins",
];

/// Whether replicas are contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Where the machine allows it.
    Auto,
    /// Always: without it the service does not start.
    Required,
    Off,
}

/// How a replica is contained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containment {
    /// Files and folders that the replica does not see.
    pub hidden: Vec<PathBuf>,
    /// The user that its command runs as, where the service is root.
    pub user: Option<User>,
}

/// A user and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl std::str::FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("takes two numbers, UID:GID, not {text:?}");
        let (uid, gid) = text.split_once(':').ok_or_else(wrong)?;
        match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok(Self { uid, gid }),
            _ => Err(wrong()),
        }
    }
}

/// What the init of a replica is told, in one line of JSON on its standard input.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    hidden: Vec<PathBuf>,
    /// The folder of the replica, which it does see.
    own_folder: PathBuf,
    user: Option<User>,
}

/// What the init answers, in one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Started,
    NotContained(String),
    NotStarted {
        reason: String,
        os_error: Option<i32>,
    },
}

/// A command to be contained.
#[derive(Debug)]
pub struct Contained<'a> {
    /// The program that starts replicas: this one.
    pub program: &'a Path,
    pub containment: &'a Containment,
    pub command: &'a [String],
    pub environment: BTreeMap<String, String>,
    /// The folder of the replica.
    pub own_folder: &'a Path,
}

impl Contained<'_> {
    /// Starts the command beneath an init, with the rest as `prepare` says.
    ///
    /// # Errors
    ///
    /// When it cannot be contained or started.
    pub fn start(self, prepare: impl FnOnce(&mut Command)) -> io::Result<Child> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(self.program);
        command.arg("start-replica").env_clear();
        prepare(&mut command);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn()?;
        drop(command);
        let start = Start {
            command: self.command.to_vec(),
            environment: self.environment,
            hidden: self.containment.hidden.clone(),
            own_folder: self.own_folder.to_path_buf(),
            user: self.containment.user,
        };
        serde_json::to_writer(&ours, &start)?;
        (&ours).write_all(b"\n")?;
        let mut line = String::new();
        BufReader::new(&ours).read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(Outcome::Started) => Ok(child),
            Ok(Outcome::NotStarted { reason, os_error }) => Err(match os_error {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::other(reason),
            }),
            Ok(Outcome::NotContained(error)) => Err(not_contained(error)),
            Err(_) => Err(not_contained("its first process ended")),
        }
    }
}

/// Tries containment out.
///
/// # Errors
///
/// Why it cannot be had.
pub fn check(program: &Path, containment: &Containment, folder: &Path) -> io::Result<()> {
    let contained = Contained {
        program,
        containment,
        command: &[program.display().to_string(), "--version".to_string()],
        environment: BTreeMap::new(),
        own_folder: folder,
    };
    let mut child = contained.start(|command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    })?;
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(not_contained("its first program failed")),
    }
}

fn not_contained(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("it cannot be contained: {error}"))
}

/// # Errors
///
/// Always: only Linux has namespaces.
#[cfg(not(target_os = "linux"))]
pub fn run() -> io::Result<std::process::ExitCode> {
    Err(io::ErrorKind::Unsupported.into())
}

/// # Errors
///
/// Always: only Linux has namespaces.
#[cfg(not(target_os = "linux"))]
pub fn run_inside() -> io::Result<std::process::ExitCode> {
    Err(io::ErrorKind::Unsupported.into())
}
