//! Settings for jobs that commands share: their kind, and the file of placement profiles.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::job_kind::JobKind;
use crate::profile::Profiles;
use crate::{document, text};

/// The kind of jobs on Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum JobKindSetting {
    #[default]
    Auto,
    /// Of the Kubeflow training operator.
    #[value(name = "pytorchjob")]
    PyTorchJob,
    /// Of Kubeflow Trainer v2.
    #[value(name = "trainjob")]
    TrainJob,
}

impl JobKindSetting {
    /// The kind, unless it depends on the cluster.
    pub fn kind(self) -> Option<JobKind> {
        match self {
            Self::Auto => None,
            Self::PyTorchJob => Some(JobKind::PyTorchJob),
            Self::TrainJob => Some(JobKind::TrainJob),
        }
    }
}

/// The placement profiles of a file, or none without a file.
///
/// # Errors
///
/// Everything that is wrong with the file.
pub fn profiles_in(file: Option<&PathBuf>) -> anyhow::Result<Profiles> {
    let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else {
        return Ok(Profiles::default());
    };
    let file_name = file.display();
    let text = text::read(file)?;
    let wrong = |wrong: Vec<String>| anyhow::anyhow!("{file_name}:\n  {}", wrong.join("\n  "));
    let profiles: Profiles = document::from_yaml(&text).map_err(wrong)?;
    profiles.check().map_err(wrong)?;
    Ok(profiles)
}
