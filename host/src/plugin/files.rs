//! Reads and writes files in folders that other programs may change.
//!
//! A plugin folder can contain a FIFO, a device or a huge sparse file, and reading one must not
//! block a reload. The host's own files are private, and are checked when they are read.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{Error, Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::LoadError;
use crate::text;

/// Permissions of folders: owner only.
const PRIVATE_FOLDER: u32 = 0o700;
/// Permissions of files: owner only.
const PRIVATE_FILE: u32 = 0o600;
/// The write bits of group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
///
/// If it cannot be read, is not a regular file, or is larger.
pub(super) fn read(file: &Path, most: usize) -> std::result::Result<Vec<u8>, LoadError> {
    let (file, metadata) = open(file).map_err(LoadError::Read)?;
    let too_large = |size| LoadError::Size {
        size,
        allowed: most,
    };
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if size > most {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(size);
    // The file may grow while being read.
    let mut limited = file.take(most as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(LoadError::Read)?;
    match bytes.len() > most {
        true => Err(too_large(bytes.len())),
        false => Ok(bytes),
    }
}

/// Reads a regular text file, such as settings or keys.
///
/// # Errors
///
/// When it cannot be read, is not a regular file or not UTF-8, or has more than `most` bytes.
pub(super) fn read_text(file: &Path, most: usize) -> Result<String> {
    let (file, _) = open(file)?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(Error::other(format!("it is larger than {most} bytes")));
    }
    text::decode(&bytes).map_err(Error::other)
}

/// Reads a file that only this user can write to.
///
/// # Errors
///
/// As [`read`], and if another user owns it or can write to it.
pub(super) fn read_private(file: &Path, most: usize) -> std::result::Result<Vec<u8>, LoadError> {
    let metadata = std::fs::symlink_metadata(file).map_err(LoadError::Read)?;
    check_private(&metadata).map_err(LoadError::Read)?;
    read(file, most)
}

/// Creates a private folder, or checks the existing one.
///
/// # Errors
///
/// If it cannot be created, or another user owns it or can write to it.
pub fn private_folder(folder: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(PRIVATE_FOLDER);
    builder.create(folder)?;
    check_private(&std::fs::metadata(folder)?)
}

/// Checks that only this user and root can write to a file or folder.
///
/// # Errors
///
/// If another user owns it or can write to it.
pub fn check_private(metadata: &Metadata) -> Result<()> {
    let owners = [0, rustix::process::geteuid().as_raw()];
    match owners.contains(&metadata.uid()) && metadata.mode() & WRITABLE_BY_OTHERS == 0 {
        true => Ok(()),
        false => Err(Error::other(
            "other users can write to it; it must belong to this user and must not be writable by \
             others",
        )),
    }
}

/// Writes a private file atomically, because another process may read the folder at the same time.
///
/// # Errors
///
/// When it cannot be written.
pub(super) fn write_private(file: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = file.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()));
    let mut writer = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(&unfinished)?;
    let written = writer
        .write_all(bytes)
        .and_then(|()| writer.sync_all())
        .and_then(|()| std::fs::rename(&unfinished, file));
    if written.is_err() {
        let _ = std::fs::remove_file(unfinished);
    }
    written
}

/// Opens a regular file without blocking on a FIFO.
fn open(file: &Path) -> Result<(File, Metadata)> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(Error::other)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(file)?;
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(Error::other("it is not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_not_a_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo.wasm");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        let socket = folder.path().join("socket.wasm");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for file in [&fifo, &socket, folder.path(), Path::new("/dev/zero")] {
            assert!(read(file, 1024).is_err(), "{}", file.display());
            assert!(read_text(file, 1024).is_err(), "{}", file.display());
        }
    }

    #[test]
    fn a_sparse_file_of_terabytes_is_refused_by_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("huge.wasm");
        File::create(&file).unwrap().set_len(4 << 40).unwrap();
        assert!(matches!(read(&file, 1024), Err(LoadError::Size { .. })));
        assert!(read_text(&file, 1024).is_err());
    }

    #[test]
    fn a_file_that_others_can_write_is_not_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kept");
        write_private(&file, b"kept").unwrap();
        assert_eq!(read_private(&file, 4).unwrap(), b"kept");
        for mode in [0o620, 0o602, 0o666] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            assert!(read_private(&file, 4).is_err(), "{mode:o}");
        }
    }
}
