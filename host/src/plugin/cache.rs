//! Compiled plugins on disk, so that a start does not compile.
//!
//! Compiled code is native code: whoever can write this folder can run anything in this process.
//! So the folder is private, only files that this host made are read, and a folder that others
//! can write is refused.

use std::fs::{DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

use super::LoadError;
use super::engine;
use super::limits::Limits;

/// Nobody but the owner.
const PRIVATE: u32 = 0o700;

/// The folder of compiled plugins that fit one engine.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens the folder for what this engine can run, or makes it.
    pub(super) fn open(root: &Path, running: &Engine) -> Result<Self, LoadError> {
        let folder = root.join(engine::compatibility(running));
        let refuse = |source| LoadError::Cache {
            folder: folder.clone(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(PRIVATE);
        builder.create(&folder).map_err(refuse)?;
        for folder in [root, &folder] {
            let metadata = std::fs::metadata(folder).map_err(refuse)?;
            let others = metadata.mode() & 0o022;
            if others != 0 || metadata.uid() != rustix::process::geteuid().as_raw() {
                let why = "others can write it, and what is in it runs as native code; \
                           make it this user's own with mode 0700";
                return Err(refuse(std::io::Error::other(why)));
            }
        }
        Ok(Self { folder })
    }

    /// The compiled form of a component: out of the folder, or compiled and put there.
    pub(super) fn get(
        &self,
        digest: &str,
        component: impl FnOnce() -> Result<Vec<u8>, LoadError>,
        running: &Engine,
        limits: &Limits,
    ) -> Result<Component, LoadError> {
        let file = self.folder.join(format!("{digest}.cwasm"));
        if file.is_file() {
            match load(running, &file) {
                Ok(component) => return Ok(component),
                Err(error) => tracing::warn!(%error, ?file, "compiling a plugin anew"),
            }
        }
        let compiled = engine::compiling(limits)
            .and_then(|compiling| {
                let component = component().map_err(wasmtime::Error::new)?;
                compiling.precompile_component(&component)
            })
            .map_err(|error| match error.downcast::<LoadError>() {
                Ok(error) => error,
                Err(error) => LoadError::Compile(format!("{error:#}")),
            })?;
        self.put(&file, &compiled)
            .map_err(|source| LoadError::Cache {
                folder: self.folder.clone(),
                source,
            })?;
        load(running, &file).map_err(|error| LoadError::Compile(format!("{error:#}")))
    }

    /// Writes a whole file or none: another process may read the folder at the same time.
    fn put(&self, file: &Path, compiled: &[u8]) -> std::io::Result<()> {
        let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
        let mut writer = std::fs::File::create(&unfinished)?;
        writer.set_permissions(Permissions::from_mode(0o600))?;
        writer.write_all(compiled)?;
        writer.sync_all()?;
        std::fs::rename(unfinished, file)
    }
}

fn load(running: &Engine, file: &Path) -> wasmtime::Result<Component> {
    #[expect(
        unsafe_code,
        reason = "the file is this host's own: see the head of this module"
    )]
    // SAFETY: only `put` writes files into this folder, which belongs to this user alone.
    unsafe {
        Component::deserialize_file(running, file)
    }
}
