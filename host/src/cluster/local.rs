//! The embedded cluster: PyTorchJobs on this very machine, supervised as the training operator and
//! a kubelet would do it, with the same manifest, conditions and messages.
//!
//! Jobs are in a [`store`] on disk before a request is answered, so none is lost when the service
//! is killed; a [`shim`] stands by each replica, so none runs twice when it comes back.
//! [`lifecycle`] says what follows from what happens to a job.

mod attempt;
mod checkpoints;
mod conditions;
pub mod contain;
mod expand;
mod failure;
mod folder;
mod inputs;
mod jobs;
mod lifecycle;
mod log;
mod newest;
mod orphans;
mod ports;
mod processes;
pub mod quota;
mod removal;
mod replica;
mod secrets;
mod settings;
pub mod shim;
mod slots;
mod store;
mod timer;
mod times;
mod usage;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use tracing::info;
use uuid::Uuid;

use super::{Cluster, ClusterError, Created, Feed, JobWatch, LogStream, RunState};
use crate::job::{
    EarlierCheckpoints, Inspection, JobPosition, LogSelection, ObservedJob, Prefix, Submission,
};
use crate::job_kind::JobKind;
use crate::keys::RUN_ID_LABEL;
use crate::pytorch_job::PyTorchJob;
use conditions::Transition;
use folder::DataFolder;
use jobs::{LocalJobs, MachineSettings, blocking};
use lifecycle::Pace;
use newest::Newest;
use quota::Quota;
pub use secrets::{NoKey, Secrets, StoreKey};
pub use settings::LocalSettings;
use settings::replica_environment;
use slots::Slots;
use store::{Record, Store, key};
use usage::LogUsage;

/// The embedded cluster.
#[derive(Debug)]
pub struct LocalCluster {
    machine: Arc<LocalJobs>,
    /// Where the claims of `pvc://` URIs are.
    claims: PathBuf,
    secrets: Secrets,
    logs: log::Logs,
    quota: Quota,
    usage: LogUsage,
    newest: Newest,
    /// No other service uses it.
    _folder: DataFolder,
}

impl LocalCluster {
    /// Opens the cluster and resumes every job that has not ended.
    ///
    /// # Errors
    ///
    /// The data folder or the store in it cannot be used.
    pub async fn open(settings: LocalSettings) -> Result<Self, ClusterError> {
        let LocalSettings {
            program,
            data_folder,
            working_directory,
            python,
            slots,
            containment,
            secret_files,
            secrets_key,
            user,
            limits,
            restart_backoff,
            shutdown_grace,
        } = settings;
        let (folder, store, secrets) = blocking("starting the local cluster", move || {
            let folder = DataFolder::open(&data_folder)
                .map_err(|error| ClusterError::internal("starting the local cluster", error))?;
            let store = Store::open(&folder.path)?;
            let secrets = Secrets::of(&folder.path).with_key(secrets_key);
            match secrets.secure() {
                Ok(0) => {}
                Ok(encrypted) => info!(
                    encrypted,
                    "encrypted secrets that were stored without a key"
                ),
                Err(error) => return Err(ClusterError::internal("reading secrets", error)),
            }
            orphans::become_subreaper();
            // Whatever a killed service and its killed shims left.
            orphans::end_marked(&format!("{}/", folder.id));
            Ok((folder, store, secrets))
        })
        .await?;
        let working_directory = working_directory
            .canonicalize()
            .unwrap_or(working_directory);
        let request = contain::Request {
            program: program.clone(),
            data_folder: folder.path.clone(),
            secret_files,
            mode: containment,
            user,
        };
        let containment = blocking("containing jobs", move || {
            let chosen = request.choose();
            chosen.map_err(|error| ClusterError::internal("containing jobs", error))
        })
        .await?;
        let claims = folder.path.join("pvc");
        let settings = MachineSettings {
            containment,
            most_log_bytes: limits.log_bytes,
            program,
            jobs_folder: folder.path.join("jobs"),
            deleted_folder: folder.path.join("deleted"),
            working_directory,
            environment: replica_environment(python, claims.clone()),
            scratch: folder.path.join("scratch"),
            owner: folder.id.clone(),
            secrets: secrets.clone(),
            pace: Pace {
                first_backoff: restart_backoff,
                shutdown_grace,
            },
        };
        let slots = Slots::of_this_machine(slots);
        let machine = Arc::new(LocalJobs::open(settings, slots, store)?);
        removal::sweep(&machine.settings, &machine.keys());
        machine.adopt_stored().await;
        Ok(Self {
            quota: Quota::new(limits, sizes(&machine)),
            usage: LogUsage::new(machine.settings.jobs_folder.clone(), limits.all_logs_bytes),
            machine,
            claims,
            secrets,
            logs: log::Logs::default(),
            newest: Newest::default(),
            _folder: folder,
        })
    }

    fn find(&self, namespace: &str, name: &str) -> Result<Arc<ObservedJob>, ClusterError> {
        let job = self.machine.observed_job(&key(namespace, name));
        job.ok_or_else(|| not_found(name))
    }

    fn record(&self, namespace: &str, name: &str) -> Result<Record, ClusterError> {
        let record = self.machine.record(&key(namespace, name));
        record.ok_or_else(|| not_found(name))
    }
}

fn not_found(name: &str) -> ClusterError {
    let name = name.to_string();
    ClusterError::NotFound { name }
}

#[async_trait]
impl Cluster for LocalCluster {
    async fn create(&self, mut job: PyTorchJob) -> Result<Created, ClusterError> {
        let now = self.newest.next(Timestamp::now());
        job.metadata.uid = Some(Uuid::new_v4().to_string());
        job.metadata.creation_timestamp = Some(Time(now));
        conditions::apply(&mut job, &Transition::Created, now);
        self.check_folders(&job).await?;
        let created = self.admitted(&job);
        let key = key(job.namespace(), job.name());
        self.usage.check().await?;
        let counted = self.quota.add(&key, size(&job))?;
        // The specification answers 500 where a job cannot be created through no fault of the request.
        let added = self.machine.add(Record::new(job)).await;
        added.map_err(|error| match error {
            ClusterError::NotStored { .. } => ClusterError::internal("storing the job", error),
            error => error,
        })?;
        counted.keep();
        Ok(created)
    }

    async fn try_create(&self, job: PyTorchJob) -> Result<Created, ClusterError> {
        match self.machine.observed_job(&key(job.namespace(), job.name())) {
            Some(taken) => Err(ClusterError::AlreadyExists {
                name: job.name().to_string(),
                run_id: taken.label(RUN_ID_LABEL).map(str::to_string),
            }),
            None => {
                self.machine.check_prefix(&job)?;
                self.check_folders(&job).await?;
                self.quota.check(size(&job))?;
                self.usage.check().await?;
                Ok(self.admitted(&job))
            }
        }
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Arc<ObservedJob>, ClusterError> {
        self.find(namespace, name)
    }

    async fn inspect(&self, namespace: &str, name: &str) -> Result<Inspection, ClusterError> {
        let record = self.record(namespace, name)?;
        let notes = self.machine.waits(&record.key());
        Ok(Inspection {
            job: ObservedJob::from(&record.job),
            pods: record.pods.into_values().collect(),
            events: Vec::new(),
            notes,
            queue: None,
        })
    }

    async fn manifest(&self, namespace: &str, name: &str) -> Result<Value, ClusterError> {
        let record = self.record(namespace, name)?;
        serde_json::to_value(&record.job)
            .map_err(|error| ClusterError::internal("writing a manifest", error))
    }

    fn list_after(
        &self,
        position: Option<&JobPosition>,
        limit: usize,
    ) -> Result<Vec<Arc<ObservedJob>>, ClusterError> {
        Ok(self.machine.observed(position, limit))
    }

    fn namespaces_of(&self, name: &str, is_visible: &dyn Fn(&str) -> bool) -> Vec<String> {
        let named = self.machine.named(name);
        let namespaces = named.iter().map(|job| job.namespace());
        let visible = namespaces.filter(|namespace| is_visible(namespace));
        visible.map(str::to_string).collect()
    }

    async fn delete(&self, namespace: &str, name: &str) -> Result<(), ClusterError> {
        let key = key(namespace, name);
        self.machine.delete(&key).await?;
        self.quota.remove(&key);
        Ok(())
    }

    async fn set_running(
        &self,
        namespace: &str,
        name: &str,
        state: RunState,
    ) -> Result<Arc<ObservedJob>, ClusterError> {
        self.machine.set_running(&key(namespace, name), state).await
    }

    async fn follow(&self, namespace: &str, name: &str) -> Result<JobWatch, ClusterError> {
        let watch = self.machine.follow(&key(namespace, name));
        watch.ok_or_else(|| not_found(name))
    }

    fn feed(&self) -> &Arc<Feed> {
        self.machine.feed()
    }

    async fn log(
        &self,
        job: &ObservedJob,
        replica: &str,
        selection: &LogSelection,
    ) -> Result<LogStream, ClusterError> {
        let watch = self.follow(job.namespace(), job.name()).await?;
        let folder = self.machine.folder(job.namespace(), job.name());
        let folder = folder.join(format!("{}-{replica}", job.name()));
        let log = self.logs.open(folder, replica, selection, watch).await?;
        let (secrets, namespace) = (self.secrets.clone(), job.namespace().to_string());
        let mask = tokio::task::spawn_blocking(move || secrets.mask(&namespace)).await;
        let mask = mask.map_err(|error| ClusterError::internal("masking a log", error))?;
        Ok(log::masked(log, mask))
    }

    async fn submitted(
        &self,
        namespace: &str,
        submission: &Submission,
    ) -> Result<Option<Created>, ClusterError> {
        let job = self.machine.submitted(namespace, submission);
        Ok(job.map(|job| self.admitted(&job)))
    }

    fn job_kind(&self) -> JobKind {
        JobKind::PyTorchJob
    }

    async fn ready(&self) -> Result<String, ClusterError> {
        self.machine.check().await?;
        Ok("reachable".to_string())
    }

    fn watch_ages(&self) -> BTreeMap<String, Duration> {
        BTreeMap::new()
    }

    async fn shut_down(&self) {
        self.machine.stop().await;
    }
}

impl LocalCluster {
    /// Refuses a job whose dataset or model is missing on this machine, and a prefix on this machine
    /// that has checkpoints, unless the job resumes or overwrites them.
    async fn check_folders(&self, job: &PyTorchJob) -> Result<(), ClusterError> {
        let key = key(job.namespace(), job.name());
        if self.machine.observed_job(&key).is_some() {
            // Its name is taken, which says more.
            return Ok(());
        }
        inputs::check(&ObservedJob::from(job)).await?;
        self.check_secrets(job).await?;
        let prefix = Prefix::of(&job.metadata);
        let (Some(prefix), EarlierCheckpoints::Refuse) = (prefix, EarlierCheckpoints::of(job))
        else {
            return Ok(());
        };
        match checkpoints::newest_step(prefix.as_str(), &self.claims).await {
            Some(step) => Err(ClusterError::HasCheckpoints {
                prefix: prefix.as_str().to_string(),
                step,
            }),
            None => Ok(()),
        }
    }

    async fn check_secrets(&self, job: &PyTorchJob) -> Result<(), ClusterError> {
        let (secrets, job) = (self.secrets.clone(), job.clone());
        let checked = tokio::task::spawn_blocking(move || secrets.check(&job)).await;
        let checked = checked.map_err(|error| ClusterError::internal("reading secrets", error))?;
        checked.map_err(|missing| ClusterError::MissingSecret {
            detail: missing.to_string(),
        })
    }

    fn admitted(&self, job: &PyTorchJob) -> Created {
        Created {
            job: ObservedJob::from(job),
            warnings: self.machine.never_starts(job).into_iter().collect(),
        }
    }
}

/// The bytes of a job as it is stored.
fn size(job: &PyTorchJob) -> u64 {
    serde_json::to_vec(job).map_or(0, |manifest| manifest.len() as u64)
}

/// The sizes of the jobs that are kept, by key.
fn sizes(machine: &LocalJobs) -> BTreeMap<String, u64> {
    let jobs = machine.observed(None, usize::MAX);
    let keys = jobs.iter().map(|job| key(job.namespace(), job.name()));
    keys.filter_map(|key| {
        let size = size(&machine.record(&key)?.job);
        Some((key, size))
    })
    .collect()
}
