//! Checks at startup for what jobs need. The service runs without it, but jobs would fail.

use std::path::{Path, PathBuf};

use crate::cluster::local::LocalSettings;

/// The launcher of a replica's processes.
const LAUNCHER: &str = "torchrun";

/// What is missing for jobs of the local cluster, one sentence each, with the path.
pub fn local(settings: &LocalSettings) -> Vec<String> {
    let missing = [script(settings), launcher(settings)];
    missing.into_iter().flatten().collect()
}

fn script(settings: &LocalSettings) -> Option<String> {
    let folder = &settings.working_directory;
    let why = match folder.join("train.py").is_file() {
        true => return None,
        false if folder.is_dir() => "has no train.py",
        false => "is not a folder",
    };
    let shown = absolute(folder);
    Some(format!(
        "jobs will fail: {} {why}; set TRAINER_LOCAL_WORKDIR to the folder that contains train.py",
        shown.display()
    ))
}

fn launcher(settings: &LocalSettings) -> Option<String> {
    if let Some(python) = &settings.python {
        let program = python.join("bin").join(LAUNCHER);
        let shown = absolute(&program);
        return (!program.is_file()).then(|| {
            format!(
                "jobs will fail: {} does not exist; set TRAINER_LOCAL_PYTHON to a Python \
                 environment with PyTorch",
                shown.display()
            )
        });
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(LAUNCHER).is_file());
    (!is_there).then(|| {
        "jobs will fail: torchrun is not on PATH; set TRAINER_LOCAL_PYTHON to a Python environment \
         with PyTorch"
            .to_string()
    })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
