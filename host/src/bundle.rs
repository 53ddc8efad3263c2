//! The plugins and the training programs that this binary contains.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest, Sha256};

use crate::plugin::files::{check_private, private_folder};

/// `host/build.rs` writes it.
static BUNDLE: Dir = include_dir!("$OUT_DIR/bundle");

/// Where the bundle was unpacked.
#[derive(Debug)]
pub struct Bundle {
    /// The plugins (*.wasm).
    pub plugins: PathBuf,
    /// train.py and what it imports.
    pub trainer: PathBuf,
}

/// Unpacks the bundle into a folder of its own in `cache`, unless it is there. The folder's name is
/// the digest of its content: releases do not share one.
///
/// # Errors
///
/// When it cannot be written, when others can write it, or when this program was built without
/// plugins.
pub fn unpack(cache: &Path) -> anyhow::Result<Bundle> {
    let plugins = BUNDLE.get_dir("plugins");
    ensure!(
        plugins.is_some_and(|folder| folder.files().next().is_some()),
        "this program was built without plugins: --plugins or TRAINER_PLUGINS names a folder with \
         some. Where a service runs, `trainer submit --dry-run -f FILE` previews and `trainer \
         frameworks` lists"
    );
    let folder = cache.join(format!("bundle-{}", digest()));
    write(cache, &folder).with_context(|| format!("cannot unpack into {}", folder.display()))?;
    Ok(Bundle {
        plugins: folder.join("plugins"),
        trainer: folder.join("trainer"),
    })
}

/// Writes a folder that is whole as soon as it has its name.
fn write(cache: &Path, folder: &Path) -> io::Result<()> {
    private_folder(cache)?;
    if folder.is_dir() {
        return check_private(&fs::metadata(folder)?);
    }
    let unfinished = tempfile::Builder::new()
        .prefix(".bundle-")
        .tempdir_in(cache)?;
    BUNDLE.extract(unfinished.path())?;
    match fs::rename(unfinished.path(), folder) {
        // Another process was quicker.
        Err(_) if folder.is_dir() => check_private(&fs::metadata(folder)?),
        Err(error) => Err(error),
        Ok(()) => {
            let _ = unfinished.keep();
            Ok(())
        }
    }
}

/// The start of the SHA-256 of all names and contents.
fn digest() -> String {
    let mut hash = Sha256::new();
    add(&BUNDLE, &mut hash);
    let hash = hash.finalize();
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn add(folder: &Dir, hash: &mut Sha256) {
    for entry in folder.entries() {
        match entry {
            DirEntry::Dir(folder) => add(folder, hash),
            DirEntry::File(file) => {
                hash.update(file.path().as_os_str().as_encoded_bytes());
                hash.update(file.contents().len().to_le_bytes());
                hash.update(file.contents());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_has_the_plugins_and_the_training_programs() {
        let cache = tempfile::tempdir().unwrap();
        let bundle = unpack(cache.path()).unwrap();
        for plugin in ["hf.wasm", "meta.wasm", "nemo.wasm"] {
            assert!(bundle.plugins.join(plugin).is_file(), "{plugin}");
        }
        assert!(bundle.trainer.join("train.py").is_file());
        assert!(bundle.trainer.join("runners/__init__.py").is_file());
    }

    #[test]
    fn it_is_unpacked_once() {
        let cache = tempfile::tempdir().unwrap();
        let first = unpack(cache.path()).unwrap();
        fs::remove_file(first.trainer.join("train.py")).unwrap();
        let second = unpack(cache.path()).unwrap();
        assert!(!second.trainer.join("train.py").exists());
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
    }
}
