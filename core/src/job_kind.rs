//! The kinds of Kubernetes objects that a job can be.

use serde::{Deserialize, Serialize};

use crate::{pytorch_job, train_job};

/// The kind of a job on Kubernetes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum JobKind {
    /// Of the Kubeflow training operator (Trainer v1).
    #[default]
    PyTorchJob,
    /// Of Kubeflow Trainer v2.
    TrainJob,
}

impl JobKind {
    /// Every kind, in the order in which the service prefers them.
    pub const ALL: [Self; 2] = [Self::PyTorchJob, Self::TrainJob];

    /// The kind of a manifest. Everything except a TrainJob is a PyTorchJob.
    pub fn of(manifest: &serde_json::Value) -> Self {
        match manifest["kind"] == train_job::KIND {
            true => Self::TrainJob,
            false => Self::PyTorchJob,
        }
    }

    /// The name of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::PyTorchJob => pytorch_job::KIND,
            Self::TrainJob => train_job::KIND,
        }
    }

    /// The API group and version, such as `kubeflow.org/v1`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::PyTorchJob => pytorch_job::API_VERSION,
            Self::TrainJob => train_job::API_VERSION,
        }
    }

    /// The name of the resource in paths and roles.
    pub fn plural(self) -> &'static str {
        match self {
            Self::PyTorchJob => "pytorchjobs",
            Self::TrainJob => "trainjobs",
        }
    }
}
