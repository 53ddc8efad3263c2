//! How the local cluster runs jobs, and the environment that it gives them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::contain::{Mode, User};
use super::quota::Limits;
use super::secrets::StoreKey;

/// The time in seconds that torchrun gives its processes to write a last checkpoint after SIGTERM.
/// The default of torchrun is 30 s. `trainer/Dockerfile` has the same value; a pod has 10 s more.
const PROCESS_GRACE_SECONDS: u32 = 110;

/// How the local cluster runs jobs.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// This program, which also keeps replicas.
    pub program: PathBuf,
    /// The folder for the store, the logs and the claims.
    pub data_folder: PathBuf,
    /// The folder that holds `train.py`.
    pub working_directory: PathBuf,
    /// A Python environment whose `bin` comes first on a replica's `PATH`.
    pub python: Option<PathBuf>,
    /// Slots in place of the machine's GPUs or cores.
    pub slots: Option<u32>,
    /// Whether jobs are kept from the service, its files and each other.
    pub containment: Mode,
    /// Files of the service outside of the data folder that contained jobs do not see.
    pub secret_files: Vec<PathBuf>,
    /// The key by which secrets in the data folder are encrypted.
    pub secrets_key: Option<StoreKey>,
    /// The user that jobs run as, where the service is root.
    pub user: Option<User>,
    pub limits: Limits,
    /// The wait before a failed replica starts again; it doubles with each failure.
    pub restart_backoff: Duration,
    /// How long replicas may take to end when the service shuts down.
    pub shutdown_grace: Duration,
}

/// Where `train.py` looks up models by name first: the operator's choice, and not a secret.
const MODELS_URI: &str = "TRAINER_MODELS_URI";

/// What stands for the environment that an image sets: the service's own, without its settings,
/// among which is its token.
pub(super) fn replica_environment(
    python: Option<PathBuf>,
    claims: PathBuf,
) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        // The collector's credentials are the service's, too.
        .filter(|(name, _)| {
            name == MODELS_URI || !name.starts_with("TRAINER_") && !name.starts_with("OTEL_")
        })
        .collect();
    if let Some(python) = python {
        let bin = python.canonicalize().unwrap_or(python).join("bin");
        let path = environment.entry("PATH".to_string()).or_default();
        *path = format!("{}:{path}", bin.display());
    }
    environment
        .entry("TORCH_ELASTIC_SHUTDOWN_TIMEOUT".to_string())
        .or_insert_with(|| PROCESS_GRACE_SECONDS.to_string());
    let claims = claims.display().to_string();
    environment.insert("TRAINER_PVC_ROOT".to_string(), claims);
    environment
}
