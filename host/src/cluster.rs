//! Step 4: where PyTorchJobs run. One trait, an implementation a place.

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
pub use progress::progress;

use crate::job::{Inspection, LogSelection, LogStart, ObservedJob, Prefix, Submission};
use crate::pytorch_job::PyTorchJob;

/// The log of a replica, in pieces of whole lines, but for [`crate::job::Unfinished`] ones. An error
/// says that the rest is missing.
pub type LogStream = BoxStream<'static, std::io::Result<Bytes>>;

/// A place where PyTorchJobs run.
///
/// A job is found by its name in a namespace.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Creates a job. A name that is taken is a conflict, never an overwrite.
    ///
    /// # Errors
    ///
    /// [`ClusterError::AlreadyExists`] for a taken name, [`ClusterError::Refused`] where the
    /// cluster's own rules do not admit the job.
    async fn create(&self, job: PyTorchJob) -> Result<Created, ClusterError>;

    /// Asks whether a job would be admitted. Nothing is created.
    ///
    /// # Errors
    ///
    /// As [`Cluster::create`].
    async fn try_create(&self, job: PyTorchJob) -> Result<Created, ClusterError>;

    /// The job as answers tell it.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotFound`] when there is none.
    async fn get(&self, namespace: &str, name: &str) -> Result<Arc<ObservedJob>, ClusterError>;

    /// The job with its pods and what happened to them.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`].
    async fn inspect(&self, namespace: &str, name: &str) -> Result<Inspection, ClusterError>;

    /// The PyTorchJob as it stands in the cluster.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`].
    async fn manifest(&self, namespace: &str, name: &str) -> Result<Value, ClusterError>;

    /// All jobs of a namespace, or of every namespace that this service may use, in no order.
    ///
    /// # Errors
    ///
    /// When they are not known yet.
    async fn list(&self, namespace: Option<&str>) -> Result<Vec<Arc<ObservedJob>>, ClusterError>;

    /// The namespaces that are known to have a job of this name.
    fn namespaces_of(&self, name: &str) -> Vec<String>;

    /// Deletes a job with all that belongs to it. Its checkpoints stay.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`].
    async fn delete(&self, namespace: &str, name: &str) -> Result<(), ClusterError>;

    /// Stops the replicas of a job and keeps the job, or lets it go on. What is so already stays so.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`], and [`ClusterError::Ended`] for a job that has ended.
    async fn set_running(
        &self,
        namespace: &str,
        name: &str,
        wish: RunState,
    ) -> Result<Arc<ObservedJob>, ClusterError>;

    /// The job as it stands, and each change of it from then on.
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`].
    async fn follow(&self, namespace: &str, name: &str) -> Result<JobWatch, ClusterError>;

    /// The changes of all jobs.
    fn feed(&self) -> &Arc<Feed>;

    /// The log of a replica, which is one of [`crate::job::replica_names`].
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoLog`] when there is none and it is not to be waited for.
    async fn log(
        &self,
        job: &ObservedJob,
        replica: &str,
        selection: &LogSelection,
    ) -> Result<LogStream, ClusterError>;

    /// The job of a namespace that was submitted with a key, as when it was created.
    ///
    /// # Errors
    ///
    /// When that cannot be found out.
    async fn submitted(
        &self,
        namespace: &str,
        submission: &Submission,
    ) -> Result<Option<Created>, ClusterError>;

    /// Whether jobs can be created now.
    ///
    /// # Errors
    ///
    /// Why they cannot.
    async fn ready(&self) -> Result<(), ClusterError>;

    /// How old what is known of the jobs may be, by namespace, `*` for all of them together. Nothing
    /// where nobody else changes them.
    fn watch_ages(&self) -> BTreeMap<String, Duration>;

    /// Lets go of everything that has to end before the process may.
    async fn shut_down(&self);
}

/// What somebody wants of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Suspend,
    Resume,
}

/// A job that was created, and what its author should know about it.
#[derive(Debug)]
pub struct Created {
    pub job: ObservedJob,
    /// Sentences such as why the job will wait.
    pub warnings: Vec<String>,
}

/// What a cluster cannot do.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("PyTorchJob {name} already exists{}", of_run(run_id.as_deref()))]
    AlreadyExists {
        name: String,
        /// The run that has the name, where it is one of this service's.
        run_id: Option<String>,
    },
    /// Another submission with its idempotency key came first.
    #[error("the idempotency key was already used for job {job}")]
    KeyTaken { job: String },
    #[error("checkpoint prefix {prefix} is in use{}", written_by(job.as_ref()))]
    PrefixTaken {
        prefix: String,
        /// The job that writes there, unless its namespace is not for the caller to know.
        job: Option<WritingJob>,
    },
    #[error(
        "{prefix} has checkpoints of an earlier run, the newest of step {step}: set \
         resume_from_checkpoint to continue it, overwrite to replace it, or choose another run_id"
    )]
    HasCheckpoints { prefix: String, step: u64 },
    #[error("Job {name} not found")]
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
    #[error("namespace {namespace} does not exist in the cluster")]
    NoSuchNamespace { namespace: String },
    /// A quota, a policy or a webhook, in the cluster's own words.
    #[error("the cluster rejected the job: {message}")]
    Refused { message: String },
    /// What this service itself may not do.
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
    /// The store of the local cluster. Nothing was changed.
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
        LogStart::Previous => "previous log: it has not been restarted",
    }
}

impl ClusterError {
    /// That a job writes to a prefix that another one asks for.
    pub fn prefix_taken(prefix: &Prefix, by: WritingJob) -> Self {
        Self::PrefixTaken {
            prefix: prefix.as_str().to_string(),
            job: Some(by),
        }
    }

    /// Leaves out jobs of namespaces that the caller may not know of.
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
