//! Caches compiled plugins on disk, so that a restart does not compile them.
//!
//! Compiled code is native code: anyone who can write to this folder can run code in this process.
//! So the folder is private, only files that this host wrote are read, and a folder that others can
//! write to is refused.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::{Description, LoadError, engine, files};

/// The cache folder for one engine.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// A compiled and tested plugin, with its description.
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
    /// Opens or creates the cache folder for an engine.
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

    /// A cached plugin, if it is complete.
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

    /// Stores a plugin. The description is written last: it marks the plugin as complete.
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

    /// Why a plugin was refused before with the same limits.
    pub(super) fn refusal(&self, digest: &str, limits: &impl Serialize) -> Option<String> {
        let refusal = std::fs::read(self.refused(digest)).ok()?;
        let refusal: Refusal = serde_json::from_slice(&refusal).ok()?;
        (refusal.limits == serde_json::to_value(limits).ok()?).then_some(refusal.why)
    }

    /// Stores why a plugin was refused, so that a malicious plugin does not exhaust the limits at
    /// every start.
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

    /// A temporary path for this process or its children.
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

/// Memory-maps compiled code.
pub(super) fn load(running: &Engine, file: &Path) -> wasmtime::Result<Component> {
    #[expect(
        unsafe_code,
        reason = "only this host writes the file; see the module documentation"
    )]
    // SAFETY: only this host writes files in this folder, which only this user can access.
    unsafe {
        Component::deserialize_file(running, file)
    }
}
