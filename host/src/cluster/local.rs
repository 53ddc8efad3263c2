//! The embedded cluster: PyTorchJobs on this very machine, supervised as the training operator and
//! a kubelet would do it, with the same manifest, conditions and messages.
//!
//! Jobs are in a [`store`] on disk before a request is answered, so none is lost when the service
//! is killed; a [`keeper`] stands by each replica, so none runs twice when it comes back.

mod conditions;
mod expand;
pub mod keeper;
mod log;
mod machine;
mod replica;
mod slots;
mod store;
mod supervisor;
mod times;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use tracing::info;
use uuid::Uuid;

use super::{Cluster, ClusterError, Created, LogStream, Sight, Wish};
use crate::job::{Inspection, LogSelection, ObservedJob, PyTorchJob, RUN_ID_LABEL, Submission};
use conditions::Transition;
use machine::{Machine, MachineSettings};
use slots::Slots;
use store::{Record, Store, key};

/// How long torchrun leaves its processes to write a last checkpoint when it is told to stop: by
/// itself half a minute. `trainer/Dockerfile` says the same; a pod has ten seconds more.
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
    /// The wait before a failed replica starts again; it doubles with each failure.
    pub restart_backoff: Duration,
    /// How long replicas may take to end when the service shuts down.
    pub shutdown_grace: Duration,
}

/// The embedded cluster.
#[derive(Debug)]
pub struct LocalCluster {
    machine: Arc<Machine>,
    logs: log::Logs,
}

impl LocalCluster {
    /// Opens the cluster and takes up every job that had not ended when it was last left.
    ///
    /// # Errors
    ///
    /// When the data folder or the store in it cannot be used.
    pub async fn open(settings: LocalSettings) -> Result<Self, ClusterError> {
        let LocalSettings {
            program,
            data_folder,
            working_directory,
            python,
            slots,
            restart_backoff,
            shutdown_grace,
        } = settings;
        let doing = "preparing the data folder";
        let internal = |error| ClusterError::internal(doing, error);
        // Jobs and logs may hold what their authors would not show to everybody.
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&data_folder).map_err(internal)?;
        let data_folder = data_folder.canonicalize().map_err(internal)?;
        let working_directory = working_directory
            .canonicalize()
            .unwrap_or(working_directory);
        let claims = data_folder.join("pvc");
        let store = Store::open(&data_folder.join("jobs.redb"))?;
        let deleted_folder = data_folder.join("deleted");
        // What their replicas held is free: no keeper outlives the service that started it.
        let _ = std::fs::remove_dir_all(&deleted_folder);
        let settings = MachineSettings {
            program,
            jobs_folder: data_folder.join("jobs"),
            deleted_folder,
            working_directory,
            environment: replica_environment(python, claims),
            restart_backoff,
            shutdown_grace,
        };
        let slots = Slots::of_this_machine(slots);
        let cluster = Self {
            machine: Arc::new(Machine::open(settings, slots, store)?),
            logs: log::Logs::default(),
        };
        cluster.recover().await;
        Ok(cluster)
    }

    /// Starts again what was cut off, as after a reboot of the machine.
    async fn recover(&self) {
        for job in self.machine.unfinished() {
            let key = key(job.namespace(), job.name());
            info!(job = key, "taking up a job that was cut off");
            let status = job.status.as_ref();
            let was_running = status.is_some_and(|status| status.start_time.is_some());
            let transition = was_running.then_some(Transition::Restarting);
            self.machine
                .change(&job, supervisor::no_replicas, transition)
                .await;
            self.machine.supervise(key);
        }
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
        let now = Timestamp::now();
        job.metadata.uid = Some(Uuid::new_v4().to_string());
        // Whole seconds, as Kubernetes counts them: the order of jobs must outlive a restart.
        let created = Timestamp::from_second(now.as_second()).unwrap_or(now);
        job.metadata.creation_timestamp = Some(Time(created));
        conditions::apply(&mut job, &Transition::Created, now);
        let created = self.admitted(&job);
        self.machine.add(Record::new(job)).await?;
        Ok(created)
    }

    async fn try_create(&self, job: PyTorchJob) -> Result<Created, ClusterError> {
        match self.machine.observed_job(&key(job.namespace(), job.name())) {
            Some(taken) => Err(ClusterError::AlreadyExists {
                name: job.name().to_string(),
                run_id: taken.label(RUN_ID_LABEL).map(str::to_string),
            }),
            None => Ok(self.admitted(&job)),
        }
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Arc<ObservedJob>, ClusterError> {
        self.find(namespace, name)
    }

    async fn inspect(&self, namespace: &str, name: &str) -> Result<Inspection, ClusterError> {
        let record = self.record(namespace, name)?;
        let waits = self.machine.waits(&record.job);
        Ok(Inspection {
            job: ObservedJob::from(&record.job),
            pods: record.pods.into_values().collect(),
            events: Vec::new(),
            notes: waits.into_iter().collect(),
        })
    }

    async fn manifest(&self, namespace: &str, name: &str) -> Result<Value, ClusterError> {
        let record = self.record(namespace, name)?;
        serde_json::to_value(&record.job)
            .map_err(|error| ClusterError::internal("writing a manifest", error))
    }

    async fn list(&self, namespace: Option<&str>) -> Result<Vec<Arc<ObservedJob>>, ClusterError> {
        Ok(self.machine.observed(namespace))
    }

    fn namespaces_of(&self, name: &str) -> Vec<String> {
        let named = self.machine.named(name);
        named
            .iter()
            .map(|job| job.namespace().to_string())
            .collect()
    }

    async fn delete(&self, namespace: &str, name: &str) -> Result<(), ClusterError> {
        self.machine.delete(&key(namespace, name)).await
    }

    async fn set_running(
        &self,
        namespace: &str,
        name: &str,
        wish: Wish,
    ) -> Result<Arc<ObservedJob>, ClusterError> {
        self.machine.set_running(&key(namespace, name), wish).await
    }

    async fn follow(&self, namespace: &str, name: &str) -> Result<Sight, ClusterError> {
        let sight = self.machine.follow(&key(namespace, name));
        sight.ok_or_else(|| not_found(name))
    }

    async fn log(
        &self,
        job: &ObservedJob,
        replica: &str,
        selection: &LogSelection,
    ) -> Result<LogStream, ClusterError> {
        let sight = self.follow(job.namespace(), job.name()).await?;
        let folder = self.machine.folder(job.namespace(), job.name());
        let folder = folder.join(format!("{}-{replica}", job.name()));
        self.logs.open(folder, replica, selection, sight).await
    }

    async fn submitted(
        &self,
        namespace: &str,
        submission: &Submission,
    ) -> Result<Option<Created>, ClusterError> {
        let job = self.machine.submitted(namespace, submission);
        Ok(job.map(|job| self.admitted(&job)))
    }

    async fn ready(&self) -> Result<(), ClusterError> {
        Ok(())
    }

    fn watch_ages(&self) -> BTreeMap<String, Duration> {
        BTreeMap::new()
    }

    async fn shut_down(&self) {
        self.machine.stop().await;
    }
}

impl LocalCluster {
    fn admitted(&self, job: &PyTorchJob) -> Created {
        Created {
            job: ObservedJob::from(job),
            warnings: self.machine.never_starts(job).into_iter().collect(),
        }
    }
}

/// What stands for the environment that an image sets: the service's own, without its settings,
/// among which is its token.
fn replica_environment(python: Option<PathBuf>, claims: PathBuf) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !name.starts_with("TRAINER_"))
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
