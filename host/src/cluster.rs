//! Step 4: where PyTorchJobs run. One trait, an implementation a place.

pub mod local;

use async_trait::async_trait;

use crate::job::PyTorchJob;

/// A place where PyTorchJobs run.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Creates a job. A name that is taken is a conflict, never an overwrite.
    ///
    /// # Errors
    ///
    /// [`ClusterError::AlreadyExists`] for a taken name.
    async fn create(&self, job: PyTorchJob) -> Result<Created, ClusterError>;

    /// The job as it stands. Without a namespace: in the default one, or else in the only one that
    /// has a job of this name.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotFound`] when there is none.
    async fn get(&self, namespace: Option<&str>, name: &str) -> Result<PyTorchJob, ClusterError>;

    /// Whether jobs can be created now.
    ///
    /// # Errors
    ///
    /// Why they cannot.
    async fn ready(&self) -> Result<(), ClusterError>;

    /// Lets go of everything that has to end before the process may.
    async fn shut_down(&self);
}

/// A job that was created, and what its author should know about it.
#[derive(Debug)]
pub struct Created {
    pub job: PyTorchJob,
    /// Sentences such as why the job will wait.
    pub warnings: Vec<String>,
}

/// What a cluster cannot do.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("PyTorchJob {name} already exists")]
    AlreadyExists { name: String },
    #[error("Job {name} not found")]
    NotFound { name: String },
    #[error("{action}")]
    Internal {
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClusterError {
    /// An error of ours, with what was being done.
    pub fn internal(
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Internal {
            action,
            source: source.into(),
        }
    }
}
