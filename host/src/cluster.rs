//! Step 4: the clusters on which jobs run. One trait, with an implementation for each
//! cluster.

mod changes;
mod feed;
pub mod kubernetes;
pub mod local;
mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde_json::Value;

pub use changes::JobWatch;
pub use feed::{Change, Feed, FeedPosition, Follower, News};
pub use progress::{add_progress, progress};

use crate::job::{
    Inspection, JobPosition, LogSelection, LogStart, Metrics, ObservedJob, Prefix, Submission,
};
use crate::job_kind::JobKind;
use crate::pytorch_job::PyTorchJob;

/// The log of a replica, in chunks of complete lines, except for [`crate::job::Unfinished`] ones.
/// An error means that the rest is missing.
pub type LogStream = BoxStream<'static, std::io::Result<Bytes>>;

/// A cluster that runs jobs.
///
/// Identifies a job by namespace and name.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Creates a job. An existing job with the same name is a conflict and is never overwritten.
    ///
    /// # Errors
    ///
    /// [`ClusterError::AlreadyExists`] for an existing name, [`ClusterError::Refused`] if the
    /// cluster's admission rejects the job.
    async fn create(&self, job: PyTorchJob) -> Result<Created, ClusterError>;

    /// Checks whether a job would be admitted, without creating it.
    ///
    /// # Errors
    ///
    /// As [`Cluster::create`].
    async fn try_create(&self, job: PyTorchJob) -> Result<Created, ClusterError>;

    /// Returns a job.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotFound`] if there is none.
    async fn get(&self, namespace: &str, name: &str) -> Result<Arc<ObservedJob>, ClusterError>;

    /// Returns a job with its pods and events.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`].
    async fn inspect(&self, namespace: &str, name: &str) -> Result<Inspection, ClusterError>;

    /// Returns the PyTorchJob or TrainJob as stored in the cluster.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`].
    async fn manifest(&self, namespace: &str, name: &str) -> Result<Value, ClusterError>;

    /// Returns the newest jobs of all allowed namespaces, or those after a position, in the order of a
    /// list. They are at most as many as `limit`, and fewer only at the end.
    ///
    /// # Errors
    ///
    /// If they are not known yet.
    fn list_after(
        &self,
        position: Option<&JobPosition>,
        limit: usize,
    ) -> Result<Vec<Arc<ObservedJob>>, ClusterError>;

    /// Returns all jobs of all allowed namespaces, newest first.
    ///
    /// # Errors
    ///
    /// If they are not known yet.
    fn list(&self) -> Result<Vec<Arc<ObservedJob>>, ClusterError> {
        self.list_after(None, usize::MAX)
    }

    /// The visible namespaces that have a job with this name. A lookup of others costs the same, so
    /// that the time of a response does not reveal what is in them.
    fn namespaces_of(&self, name: &str, is_visible: &dyn Fn(&str) -> bool) -> Vec<String>;

    /// Deletes a job and everything that belongs to it, except for its checkpoints.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`].
    async fn delete(&self, namespace: &str, name: &str) -> Result<(), ClusterError>;

    /// Suspends or resumes a job. This is idempotent.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`], and [`ClusterError::Ended`] for a finished job.
    async fn set_running(
        &self,
        namespace: &str,
        name: &str,
        state: RunState,
    ) -> Result<Arc<ObservedJob>, ClusterError>;

    /// Watches a job: its current state, and each change.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`].
    async fn follow(&self, namespace: &str, name: &str) -> Result<JobWatch, ClusterError>;

    /// The changes of all jobs.
    fn feed(&self) -> &Arc<Feed>;

    /// Reads the log of a replica, which is one of [`crate::job::replica_names`].
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoLog`] if there is none and it is not followed.
    async fn log(
        &self,
        job: &ObservedJob,
        replica: &str,
        selection: &LogSelection,
    ) -> Result<LogStream, ClusterError>;

    /// The metrics that a job has kept of logs that are gone. A cluster whose logs exist as long as
    /// their jobs keeps none.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`].
    async fn kept_metrics(&self, _job: &ObservedJob) -> Result<Metrics, ClusterError> {
        Ok(Metrics::default())
    }

    /// The job of a namespace that was submitted with an idempotency key.
    ///
    /// # Errors
    ///
    /// If the lookup fails.
    async fn submitted(
        &self,
        namespace: &str,
        submission: &Submission,
    ) -> Result<Option<Created>, ClusterError>;

    /// The kind of jobs that the cluster creates.
    fn job_kind(&self) -> JobKind;

    /// Whether jobs can be created now, and what is worth knowing about that.
    ///
    /// # Errors
    ///
    /// Why not.
    async fn ready(&self) -> Result<String, ClusterError>;

    /// The age of the cached jobs, by namespace, or `*` for all. Empty if jobs are not cached.
    fn watch_ages(&self) -> BTreeMap<String, Duration>;

    /// Releases everything that must end before the process exits.
    async fn shut_down(&self);
}

/// The desired state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Suspend,
    Resume,
}

/// A created job, with notes for its author.
#[derive(Debug)]
pub struct Created {
    pub job: ObservedJob,
    /// Sentences, for example why the job will wait.
    pub warnings: Vec<String>,
}

/// Errors of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("PyTorchJob {name} already exists{}", of_run(run_id.as_deref()))]
    AlreadyExists {
        name: String,
        /// The run of the existing job, if this service created it.
        run_id: Option<String>,
    },
    /// Another submission with the same idempotency key was first.
    #[error("the idempotency key was already used for job {job}")]
    KeyTaken { job: String },
    #[error("checkpoint prefix {prefix} is in use{}", written_by(job.as_ref()))]
    PrefixTaken {
        prefix: String,
        /// The job that writes there, unless the caller may not see its namespace.
        job: Option<WritingJob>,
    },
    #[error(
        "{prefix} has checkpoints of an earlier run, the newest of step {step}: set \
         resume_from_checkpoint to continue it, overwrite to replace it, or choose another run_id"
    )]
    HasCheckpoints { prefix: String, step: u64 },
    #[error("Job {name} not found; list the jobs to see their names")]
    NotFound { name: String },
    #[error(
        "job {name} does not exist in namespace {namespace}, but in {}; choose one with \
         ?namespace=",
        namespaces.join(", ")
    )]
    Elsewhere {
        name: String,
        namespace: String,
        namespaces: Vec<String>,
    },
    #[error("job {name} exists in several namespaces ({}); choose one with ?namespace=", namespaces.join(", "))]
    Ambiguous {
        name: String,
        namespaces: Vec<String>,
    },
    #[error("job {name} has finished and cannot be suspended or resumed")]
    Ended { name: String },
    #[error("{replica} has no {}", no_log(*start))]
    NoLog { replica: String, start: LogStart },
    /// What the job reads is not where the request says.
    #[error("{detail}")]
    MissingInput {
        /// JSON Pointer to the field of the request.
        pointer: &'static str,
        detail: String,
    },
    /// The job names a secret that the cluster does not have.
    #[error("{detail}")]
    MissingSecret { detail: String },
    #[error("namespace {namespace} does not exist in the cluster")]
    NoSuchNamespace { namespace: String },
    /// What TrainJobs refer to does not exist.
    #[error(
        "the cluster has no ClusterTrainingRuntime {runtime}; an administrator can create it with \
         trainer runtimes | kubectl apply --server-side -f -"
    )]
    NoRuntime { runtime: String },
    /// A quota, a policy or a webhook rejected the job; the message is the cluster's.
    #[error("the cluster rejected the job: {message}")]
    Refused { message: String },
    /// The service does not have a permission.
    #[error("{action}: permission denied by the cluster")]
    Forbidden {
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{action}: the cluster cannot be reached or is too busy")]
    Unavailable {
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{action}: the cluster did not respond in time")]
    TimedOut {
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store of the local cluster cannot be written. Nothing was changed.
    #[error("{action}: cannot write to the data folder")]
    NotStored {
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{action}")]
    Internal {
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A job that writes to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritingJob {
    pub name: String,
    pub namespace: String,
}

impl WritingJob {
    /// Of a namespace and a name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            name: name.to_string(),
            namespace: namespace.to_string(),
        }
    }
}

impl From<&ObservedJob> for WritingJob {
    fn from(job: &ObservedJob) -> Self {
        Self::new(job.namespace(), job.name())
    }
}

fn written_by(job: Option<&WritingJob>) -> String {
    match job {
        Some(WritingJob { name, namespace }) => format!(
            " by job {name} in namespace {namespace}; wait until it finishes, delete it, or choose \
             another run_id"
        ),
        None => " by a job in another namespace; choose another run_id".to_string(),
    }
}

fn of_run(run_id: Option<&str>) -> String {
    run_id.map_or_else(String::new, |run_id| format!(" for run {run_id}"))
}

fn no_log(start: LogStart) -> &'static str {
    match start {
        LogStart::First | LogStart::Latest => {
            "log yet: it has not started, or its pod was removed; use follow=true to wait for it"
        }
        LogStart::Previous => {
            "previous log: it has not been restarted, or the pod of the attempt before was removed"
        }
    }
}

impl ClusterError {
    /// The error for a prefix that another job writes to.
    pub fn prefix_taken(prefix: &Prefix, by: WritingJob) -> Self {
        Self::PrefixTaken {
            prefix: prefix.as_str().to_string(),
            job: Some(by),
        }
    }

    /// Removes jobs in namespaces that the caller may not see.
    #[must_use]
    pub fn for_caller(self, may_know: impl Fn(&str) -> bool) -> Self {
        match self {
            Self::PrefixTaken { prefix, job } => Self::PrefixTaken {
                prefix,
                job: job.filter(|job| may_know(&job.namespace)),
            },
            other => other,
        }
    }

    /// An internal error, with the action that failed.
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
