//! Containment of replicas: protects the service, its files and other jobs from a job.
//!
//! The local cluster runs trusted code of one user; this is a second line of defence. A contained
//! replica has its own PID and mount namespaces, in a user namespace unless the service is root. It
//! sees only its own processes and none of the service's files, and cannot gain rights. It keeps
//! access to the user's files, devices and network.

#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod restrict;
#[cfg(target_os = "linux")]
mod sys;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

#[cfg(target_os = "linux")]
use restrict::can_hide;

/// What the service keeps in its data folder, and what is not for jobs.
pub const HIDDEN: [&str; 6] = [
    "jobs",
    "jobs.redb",
    "deleted",
    "secrets",
    "compiled-plugins",
    "pulled-plugins",
];

/// Whether replicas are contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// By namespaces where the machine allows it, else by Landlock where it has that.
    Auto,
    /// By namespaces: without them the service does not start.
    Required,
    /// By Landlock, which hides less: without it the service does not start.
    Landlock,
    Off,
}

/// What the kernel contains a replica with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Means {
    Namespaces,
    Landlock,
}

/// How a replica is contained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containment {
    pub means: Means,
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

/// The input of a replica's init process: one line of JSON on standard input.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    hidden: Vec<PathBuf>,
    /// The folder of the replica, which it does see.
    own_folder: PathBuf,
    user: Option<User>,
}

impl Start {
    /// The process of the replica's command, with its environment and user.
    fn command(&self) -> io::Result<Command> {
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or_else(|| io::Error::other("the command is empty"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        Ok(command)
    }
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
    /// Starts the command under an init process, with the other settings from `prepare`.
    ///
    /// # Errors
    ///
    /// The command cannot be contained or started.
    pub fn start(self, prepare: impl FnOnce(&mut Command)) -> io::Result<Child> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(self.program);
        let stage = match self.containment.means {
            Means::Namespaces => "outer",
            Means::Landlock => "restricted",
        };
        command.args(["start-replica", stage]).env_clear();
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

/// Whether and how jobs are to be contained.
#[derive(Clone, Debug)]
pub struct Request {
    /// The program that starts replicas: this one.
    pub program: PathBuf,
    pub data_folder: PathBuf,
    /// Files of the service outside of the data folder.
    pub secret_files: Vec<PathBuf>,
    pub mode: Mode,
    pub user: Option<User>,
}

impl Request {
    /// The best containment that this machine allows, after trying it out. Logs what it is.
    ///
    /// # Errors
    ///
    /// When there has to be one and there is none.
    pub fn choose(&self) -> io::Result<Option<Containment>> {
        let means: &[Means] = match self.mode {
            Mode::Auto => &[Means::Namespaces, Means::Landlock],
            Mode::Required => &[Means::Namespaces],
            Mode::Landlock => &[Means::Landlock],
            Mode::Off => &[],
        };
        // Another user's rights are worth nothing without the namespaces.
        let means = match self.user {
            Some(_) => &[Means::Namespaces],
            None => means,
        };
        let mut reason = None;
        for containment in means.iter().map(|means| self.by(*means)) {
            match self.check(&containment) {
                Ok(()) => {
                    self.log(&containment);
                    return Ok(Some(containment));
                }
                Err(error) => reason = reason.or(Some(error)),
            }
        }
        match reason {
            Some(error) if self.mode != Mode::Auto || self.user.is_some() => Err(error),
            Some(error) => {
                warn!(%error, "jobs are not contained: they can do what this user can");
                Ok(None)
            }
            None => {
                warn!("jobs are not contained: they can do what this user can");
                Ok(None)
            }
        }
    }

    fn by(&self, means: Means) -> Containment {
        let hidden = match means {
            Means::Namespaces => self.hidden(),
            Means::Landlock => can_hide(&self.hidden(), &self.data_folder),
        };
        Containment {
            means,
            hidden,
            user: self.user,
        }
    }

    /// What jobs are not to see. A link is hidden where it points to: that file is the secret one.
    fn hidden(&self) -> Vec<PathBuf> {
        let of_data = HIDDEN.iter().map(|name| self.data_folder.join(name));
        let secret = self.secret_files.iter();
        let targets = secret.filter_map(|file| file.canonicalize().ok());
        of_data.chain(targets).collect()
    }

    fn check(&self, containment: &Containment) -> io::Result<()> {
        let contained = Contained {
            program: &self.program,
            containment,
            command: &[self.program.display().to_string(), "--version".to_string()],
            environment: BTreeMap::new(),
            own_folder: &self.data_folder,
        };
        let mut child = contained.start(|command| {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        })?;
        match child.wait()?.success() {
            true => Ok(()),
            false => Err(not_contained("its first program failed")),
        }
    }

    fn log(&self, containment: &Containment) {
        let is_all_hidden = containment.hidden.len() == self.hidden().len();
        match (containment.means, is_all_hidden) {
            (Means::Namespaces, _) => {
                info!("jobs are contained: they see no other process and no file of this service");
            }
            (Means::Landlock, true) => info!(
                "jobs are contained by Landlock: they reach no other process and no file of this \
                 service"
            ),
            (Means::Landlock, false) => warn!(
                "jobs are contained by Landlock: they reach no other process. They can read files of \
                 this service, since this user can write to a folder above the data folder"
            ),
        }
    }
}

fn not_contained(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("it cannot be contained: {error}"))
}

/// What `start-replica` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// What makes the namespaces.
    Outer,
    /// The first process in them.
    Inner,
    /// What restricts itself with Landlock.
    Restricted,
}

impl Stage {
    /// Starts a replica, and ends as it does.
    ///
    /// # Errors
    ///
    /// When standard input is not the socket of a shim.
    #[cfg(target_os = "linux")]
    pub fn run(self) -> io::Result<ExitCode> {
        match self {
            Self::Outer => init::run(),
            Self::Inner => init::run_inside(),
            Self::Restricted => restrict::run(),
        }
    }

    /// # Errors
    ///
    /// Always: only Linux has what this takes.
    #[cfg(not(target_os = "linux"))]
    pub fn run(self) -> io::Result<ExitCode> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Only Linux has Landlock.
#[cfg(not(target_os = "linux"))]
fn can_hide(_hidden: &[PathBuf], _data_folder: &Path) -> Vec<PathBuf> {
    Vec::new()
}
