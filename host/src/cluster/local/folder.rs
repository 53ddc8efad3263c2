//! The data folder: for this user alone, and for one service at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, fcntl_getlk, geteuid};

use super::lifecycle::{Fix, holds};

/// How long a start waits for the service before it to end, and for children of a killed one that
/// still hold its locks.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before trying again.
const RETRY: Duration = Duration::from_millis(20);

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} belongs to user {owner} and this service runs as user {user}: change its owner, or \
         name another folder with TRAINER_DATA_DIR",
        path.display()
    )]
    NotOurs {
        path: PathBuf,
        owner: u32,
        user: u32,
    },
    #[error("{} is a symbolic link: replace it by what it points to", path.display())]
    Link { path: PathBuf },
    #[error(
        "the data folder {} is in use by {}: stop that service, or name another folder with \
         TRAINER_DATA_DIR",
        path.display(),
        holder(*pid)
    )]
    InUse { path: PathBuf, pid: Option<i32> },
}

fn holder(pid: Option<i32>) -> String {
    pid.map_or_else(
        || "another process".to_string(),
        |pid| format!("process {pid}"),
    )
}

/// A data folder that is ours while this lives.
#[derive(Debug)]
pub struct DataFolder {
    pub path: PathBuf,
    /// Identifies this folder on this machine.
    pub id: String,
    /// A lock of this process alone: its children do not inherit it, as they do redb's.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder, or makes it private if it is there, and waits until no other service uses
    /// it.
    ///
    /// # Errors
    ///
    /// When it is somebody else's, cannot be used, or is still in use after [`PATIENCE`].
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io {
            path: path.to_path_buf(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        tighten(&path, 0o700)?;
        for folder in ["jobs", "deleted", "pvc", "scratch"] {
            tighten_if_there(&path.join(folder), 0o700)?;
        }
        tighten_if_there(&path.join("jobs.redb"), 0o600)?;
        tighten_all(&path.join("jobs"))?;
        let lock = lock(&path)?;
        let found = path.metadata().map_err(failed)?;
        Ok(Self {
            id: format!("{:x}-{:x}", found.dev(), found.ino()),
            path,
            _lock: lock,
        })
    }
}

/// Repeats what fails because another process holds a lock, until it has taken too long.
///
/// # Errors
///
/// The last failure.
pub fn patiently<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_held(&error) && tries_again(begun.elapsed()) => {
                std::thread::sleep(RETRY);
            }
            done => return done,
        }
    }
}

/// Whether a start that has waited so long for a lock tries again.
pub(super) fn tries_again(waited: Duration) -> bool {
    waited < PATIENCE && holds(Fix::HeldLock)
}

fn lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join("lock");
    let failed = |source| FolderError::Io {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed)?;
    tighten(&path, 0o600)?;
    let take = || fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
    let held = |error: &rustix::io::Errno| {
        matches!(*error, rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS)
    };
    match patiently(take, held) {
        Ok(()) => Ok(file),
        Err(error) if held(&error) => Err(FolderError::InUse {
            path: folder.to_path_buf(),
            pid: holder_of(&file),
        }),
        Err(error) => Err(failed(error.into())),
    }
}

fn holder_of(file: &File) -> Option<i32> {
    let asked = Flock::from(rustix::process::FlockType::WriteLock);
    let held = fcntl_getlk(file, &asked).ok()??;
    held.pid.map(|pid| pid.as_raw_nonzero().get())
}

fn tighten_if_there(path: &Path, mode: u32) -> Result<(), FolderError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => tighten(path, mode),
    }
}

/// Takes the rights of others from what is this user's, and refuses what is not.
fn tighten(path: &Path, mode: u32) -> Result<(), FolderError> {
    let failed = |source| FolderError::Io {
        path: path.to_path_buf(),
        source,
    };
    let found = path.symlink_metadata().map_err(failed)?;
    if found.is_symlink() {
        let path = path.to_path_buf();
        return Err(FolderError::Link { path });
    }
    let (owner, user) = (found.uid(), geteuid().as_raw());
    if owner != user {
        let path = path.to_path_buf();
        return Err(FolderError::NotOurs { path, owner, user });
    }
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)
}

/// Makes everything private that is in a folder, such as logs that an earlier release wrote.
fn tighten_all(folder: &Path) -> Result<(), FolderError> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                tighten(&path, 0o700)?;
                tighten_all(&path)?;
            }
            Ok(kind) if kind.is_file() => tighten(&path, 0o600)?,
            // A link or a pipe is nothing that the service reads or writes.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_there_already_is_made_private() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        let pod = data.join("jobs/default/run/run-master-0");
        std::fs::create_dir_all(&pod).unwrap();
        for file in [pod.join("0.log"), data.join("jobs.redb"), data.join("lock")] {
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        }
        for folder in [&data, &data.join("jobs"), &pod] {
            std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        DataFolder::open(&data).unwrap();
        for folder in [&data, &data.join("jobs"), &pod] {
            assert_eq!(mode(folder), 0o700, "{}", folder.display());
        }
        for file in [pod.join("0.log"), data.join("jobs.redb"), data.join("lock")] {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }

    #[test]
    fn links_in_the_place_of_our_files_are_refused() {
        for (name, target) in [
            ("jobs.redb", "elsewhere"),
            ("jobs", "."),
            ("lock", "elsewhere"),
        ] {
            let parent = tempfile::tempdir().unwrap();
            let elsewhere = parent.path().join(target);
            std::os::unix::fs::symlink(&elsewhere, parent.path().join(name)).unwrap();
            let refused = DataFolder::open(parent.path());
            assert!(refused.is_err(), "{name}");
            assert!(!parent.path().join("elsewhere").exists());
        }
    }

    #[test]
    fn a_folder_of_another_user_is_refused_with_both_users() {
        // Only root can give a folder away.
        if !geteuid().is_root() {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        for name in ["", "jobs", "jobs.redb"] {
            let data = parent.path().join(format!("data-{name}"));
            std::fs::create_dir_all(&data).unwrap();
            let theirs = data.join(name);
            if !theirs.exists() {
                std::fs::create_dir(&theirs).unwrap();
            }
            std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
            let error = DataFolder::open(&data).unwrap_err().to_string();
            assert!(error.contains("belongs to user 65534"), "{error}");
            assert!(error.contains("runs as user 0"), "{error}");
        }
    }

    #[test]
    fn a_lock_that_is_held_is_tried_again_and_then_reported() {
        let mut tries = 0;
        let done = patiently(
            || {
                tries += 1;
                if tries < 3 { Err("held") } else { Ok(tries) }
            },
            |error| *error == "held",
        );
        assert_eq!(done, Ok(3));
        assert_eq!(
            patiently(|| Err::<(), _>("broken"), |error| *error == "held"),
            Err("broken")
        );
        assert!(tries_again(Duration::from_secs(5)));
        assert!(!tries_again(Duration::from_secs(60)));
    }
}
