//! The embedded cluster: PyTorchJobs on this very machine, supervised as the training operator and
//! a kubelet would do it, with the same manifest, conditions and messages.
//!
//! Jobs are in a [`store`] on disk before a request is answered, so none is lost when the service
//! is killed; a [`keeper`] stands by each replica, so none runs twice when it comes back.

mod conditions;
mod expand;
pub mod keeper;
mod replica;
mod slots;
mod store;
mod supervisor;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{error, info};
use uuid::Uuid;

use super::{Cluster, ClusterError, Created};
use crate::job::PyTorchJob;
use conditions::Transition;
use slots::Slots;
use store::{Record, Store, key};

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
    /// The namespace of reads that name none.
    pub default_namespace: String,
    /// The wait before a failed replica starts again; it doubles with each failure.
    pub restart_backoff: Duration,
    /// How long replicas may take to end when the service shuts down.
    pub shutdown_grace: Duration,
}

/// The embedded cluster.
#[derive(Debug)]
pub struct LocalCluster {
    machine: Arc<Machine>,
    default_namespace: String,
}

/// What the supervisors of all jobs share.
#[derive(Debug)]
struct Machine {
    settings: MachineSettings,
    slots: Slots,
    store: Arc<Store>,
    jobs: RwLock<BTreeMap<String, Record>>,
    /// Keeps the changes of one job in the order in which they happened.
    changing: tokio::sync::Mutex<()>,
    stopping: watch::Sender<bool>,
    supervisors: TaskTracker,
}

#[derive(Debug)]
struct MachineSettings {
    program: PathBuf,
    jobs_folder: PathBuf,
    working_directory: PathBuf,
    /// What every replica has in its environment.
    environment: BTreeMap<String, String>,
    restart_backoff: Duration,
    shutdown_grace: Duration,
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
            default_namespace,
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
        let store = Arc::new(Store::open(&data_folder.join("jobs.redb"))?);
        let records = store.all()?;
        let machine = Arc::new(Machine {
            settings: MachineSettings {
                program,
                jobs_folder: data_folder.join("jobs"),
                working_directory,
                environment: replica_environment(python, claims),
                restart_backoff,
                shutdown_grace,
            },
            slots: Slots::of_this_machine(slots),
            store,
            jobs: RwLock::new(records.into_iter().map(|r| (r.key(), r)).collect()),
            changing: tokio::sync::Mutex::new(()),
            stopping: watch::Sender::new(false),
            supervisors: TaskTracker::new(),
        });
        let cluster = Self {
            machine,
            default_namespace,
        };
        cluster.recover().await;
        Ok(cluster)
    }

    /// Starts again what was cut off, as after a reboot of the machine.
    async fn recover(&self) {
        let cut_off: Vec<String> = {
            let jobs = self.machine.jobs.read();
            let jobs = jobs.unwrap_or_else(PoisonError::into_inner);
            let unfinished = jobs.iter().filter(|(_, r)| !conditions::has_ended(&r.job));
            unfinished.map(|(key, _)| key.clone()).collect()
        };
        for key in cut_off {
            info!(job = key, "taking up a job that was cut off");
            let was_running = self.machine.job(&key).is_some_and(|job| {
                let status = job.status.as_ref();
                status.is_some_and(|status| status.start_time.is_some())
            });
            let transition = was_running.then_some(Transition::Restarting);
            let forget = |record: &mut Record| {
                let status = record.job.status.get_or_insert_default();
                supervisor::no_replicas(&mut status.replica_statuses);
            };
            self.machine.change(&key, forget, transition).await;
            self.machine.supervise(key);
        }
    }

    fn find(&self, namespace: Option<&str>, name: &str) -> Option<PyTorchJob> {
        let jobs = self
            .machine
            .jobs
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let home = namespace.unwrap_or(&self.default_namespace);
        if let Some(record) = jobs.get(&key(home, name)) {
            return Some(record.job.clone());
        }
        if namespace.is_some() {
            return None;
        }
        let mut named = jobs.values().filter(|record| record.job.name() == name);
        let only = named.next()?;
        named.next().is_none().then(|| only.job.clone())
    }
}

#[async_trait]
impl Cluster for LocalCluster {
    async fn create(&self, mut job: PyTorchJob) -> Result<Created, ClusterError> {
        let now = Timestamp::now();
        job.metadata.uid = Some(Uuid::new_v4().to_string());
        job.metadata.creation_timestamp = Some(Time(now));
        conditions::apply(&mut job, &Transition::Created, now);
        let record = Record { job, restarts: 0 };
        let store = self.machine.store.clone();
        let stored = record.clone();
        blocking("storing a job", move || store.insert(&stored)).await?;
        let key = record.key();
        let job = record.job.clone();
        let mut jobs = self
            .machine
            .jobs
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        jobs.insert(key.clone(), record);
        drop(jobs);
        self.machine.supervise(key);
        let warnings = self.machine.never_starts(&job).into_iter().collect();
        Ok(Created { job, warnings })
    }

    async fn get(&self, namespace: Option<&str>, name: &str) -> Result<PyTorchJob, ClusterError> {
        self.find(namespace, name)
            .ok_or_else(|| ClusterError::NotFound {
                name: name.to_string(),
            })
    }

    async fn ready(&self) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn shut_down(&self) {
        self.machine.stopping.send_replace(true);
        self.machine.supervisors.close();
        self.machine.supervisors.wait().await;
    }
}

impl Machine {
    fn supervise(self: &Arc<Self>, key: String) {
        self.supervisors.spawn(supervisor::run(self.clone(), key));
    }

    fn job(&self, key: &str) -> Option<PyTorchJob> {
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        jobs.get(key).map(|record| record.job.clone())
    }

    /// Why a job will wait for ever, if it will.
    fn never_starts(&self, job: &PyTorchJob) -> Option<String> {
        self.slots.never(supervisor::slots_needed(self, job))
    }

    /// Changes a job, on disk first, so that nobody reads what a crash would take back.
    async fn change(
        &self,
        key: &str,
        change: impl FnOnce(&mut Record),
        transition: Option<Transition>,
    ) {
        let _in_order = self.changing.lock().await;
        let record = {
            let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
            jobs.get(key).cloned()
        };
        let Some(mut record) = record else {
            return;
        };
        change(&mut record);
        if let Some(transition) = transition {
            conditions::apply(&mut record.job, &transition, Timestamp::now());
            info!(job = key, ?transition, "a job moved on");
        }
        let store = self.store.clone();
        let stored = record.clone();
        let written = blocking("storing a job's state", move || store.update(&stored)).await;
        if let Err(error) = written {
            // The job goes on; at worst a crash now starts it again.
            error!(
                job = key,
                error = &error as &dyn std::error::Error,
                "a state was not stored"
            );
        }
        let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
        jobs.insert(key.to_string(), record);
    }
}

/// Waits for the disk without keeping a thread of the runtime from its other work.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ClusterError::internal(doing, error))?
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
    let claims = claims.display().to_string();
    environment.insert("TRAINER_PVC_ROOT".to_string(), claims);
    environment
}
