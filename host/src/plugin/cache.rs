//! Compiled plugins on disk, so that a start does not compile.
//!
//! Compiled code is native code: whoever can write this folder can run anything in this process.
//! So the folder is private, only files that this host made are read, and a folder that others
//! can write is refused.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::{Description, LoadError, engine, files};

/// The folder of compiled plugins that fit one engine.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// A plugin that was compiled and tried, and what it said of itself then.
pub(super) struct Made {
    pub(super) component: Component,
    pub(super) description: Description,
}

#[derive(Serialize, Deserialize)]
struct Refusal {
    limits: Value,
    why: String,
}

impl Cache {
    /// Opens the folder for what this engine can run, or makes it.
    pub(super) fn open(root: &Path, running: &Engine) -> Result<Self, LoadError> {
        let folder = root.join(engine::compatibility(running));
        let refuse = |source| LoadError::Cache {
            folder: folder.clone(),
            source,
        };
        for folder in [root, &folder] {
            files::private_folder(folder).map_err(refuse)?;
        }
        Ok(Self { folder })
    }

    /// A plugin that was made before, if it is whole.
    pub(super) fn get(&self, digest: &str, running: &Engine) -> Option<Made> {
        let described = std::fs::read(self.described(digest)).ok()?;
        let made = serde_json::from_slice(&described)
            .map_err(wasmtime::Error::new)
            .and_then(|description| {
                Ok(Made {
                    component: load(running, &self.compiled(digest))?,
                    description,
                })
            });
        made.map_err(|error| {
            tracing::warn!(%error, digest, "ignoring cached code and compiling the plugin again")
        })
        .ok()
    }

    /// Keeps a plugin. The description comes last: with it the plugin counts as made.
    pub(super) fn put(
        &self,
        digest: &str,
        compiled: &[u8],
        description: &Description,
    ) -> Result<(), LoadError> {
        let described = serde_json::to_vec(description).unwrap_or_default();
        files::write_private(&self.compiled(digest), compiled)
            .and_then(|()| files::write_private(&self.described(digest), &described))
            .map_err(|source| LoadError::Cache {
                folder: self.folder.clone(),
                source,
            })
    }

    /// Why a plugin was refused before, under the same limits.
    pub(super) fn refusal(&self, digest: &str, limits: &impl Serialize) -> Option<String> {
        let refusal = std::fs::read(self.refused(digest)).ok()?;
        let refusal: Refusal = serde_json::from_slice(&refusal).ok()?;
        (refusal.limits == serde_json::to_value(limits).ok()?).then_some(refusal.why)
    }

    /// Remembers why a plugin was refused, so that a bomb is not set off with each start.
    pub(super) fn put_refusal(&self, digest: &str, limits: &impl Serialize, why: String) {
        let limits = serde_json::to_value(limits).unwrap_or_default();
        let refusal = serde_json::to_vec(&Refusal { limits, why }).unwrap_or_default();
        if let Err(error) = files::write_private(&self.refused(digest), &refusal) {
            tracing::warn!(%error, "cannot cache a refusal");
        }
    }

    fn refused(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.refused"))
    }

    /// Where this process, or one that it starts, may leave something unfinished.
    pub(super) fn unfinished(&self, digest: &str) -> PathBuf {
        self.folder
            .join(format!("{digest}.{}.tmp", std::process::id()))
    }

    fn compiled(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.cwasm"))
    }

    fn described(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.json"))
    }
}

/// Reads compiled code, which is mapped, not copied.
pub(super) fn load(running: &Engine, file: &Path) -> wasmtime::Result<Component> {
    #[expect(
        unsafe_code,
        reason = "only this host writes the file; see the module documentation"
    )]
    // SAFETY: only this host writes files into this folder, which belongs to this user alone.
    unsafe {
        Component::deserialize_file(running, file)
    }
}
