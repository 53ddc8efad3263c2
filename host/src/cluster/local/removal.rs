//! The folders of deleted jobs: moved away at once, removed when their replicas have ended.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::jobs::MachineSettings;
use super::store::key;
use crate::pytorch_job::PyTorchJob;

/// Moves a job's folder away, so that another of the same name finds none.
pub(super) fn put_away(settings: &MachineSettings, job: &PyTorchJob) {
    let folder = settings.jobs_folder.join(job.namespace()).join(job.name());
    let mut builder = DirBuilder::new();
    let moved = builder
        .recursive(true)
        .mode(0o700)
        .create(&settings.deleted_folder)
        .and_then(|()| std::fs::rename(&folder, away(settings, job)));
    if let Err(error) = moved
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(folder = %folder.display(), %error, "the folder of a deleted job stays in its place");
    }
}

/// Where the folder of a deleted job is.
pub(super) fn away(settings: &MachineSettings, job: &PyTorchJob) -> PathBuf {
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    settings.deleted_folder.join(uid)
}

/// Removes a folder, if it is there.
pub(super) async fn remove(folder: PathBuf) {
    if let Err(error) = tokio::fs::remove_dir_all(&folder).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(folder = %folder.display(), %error, "the folder of a deleted job stays");
    }
}

/// Removes what a killed service left of deleted jobs: every folder of a job that is not stored.
pub(super) fn sweep(settings: &MachineSettings, keys: &BTreeSet<String>) {
    let _ = std::fs::remove_dir_all(&settings.deleted_folder);
    for (namespace, folder) in folders(&settings.jobs_folder) {
        for (name, folder) in folders(&folder) {
            if !keys.contains(&key(&namespace, &name)) {
                info!(folder = %folder.display(), "removing the folder of a deleted job");
                let _ = std::fs::remove_dir_all(folder);
            }
        }
    }
}

fn folders(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let named =
        folders.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    named.collect()
}
