//! The jobs of the local cluster, on disk and in memory, with their slots and tasks.
//!
//! Every event of a job goes through [`LocalJobs::handle`]: the state machine in [`lifecycle`]
//! computes the next state, which is stored and then published. Then its actions are executed.
//!
//! [`lifecycle`]: super::lifecycle

mod actions;
mod known;
mod reads;
mod requests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::contain::Containment;
use super::lifecycle::{Attempt, Event, Job, Pace, Step, Write};
use super::ports::HeldPort;
use super::removal;
use super::secrets::Secrets;
use super::slots::Slots;
use super::store::{Record, Store};
use crate::cluster::ClusterError;
use crate::cluster::changes::Changes;
use known::Jobs;

/// The wait before a failed write is repeated.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// The jobs of this machine.
#[derive(Debug)]
pub(super) struct LocalJobs {
    pub settings: MachineSettings,
    slots: Mutex<Slots>,
    store: Arc<Store>,
    jobs: RwLock<Jobs>,
    changes: Changes,
    /// The resources of jobs that are not at rest, by uid.
    resources: Mutex<BTreeMap<String, Resources>>,
    /// Serialises the changes of jobs.
    changing: tokio::sync::Mutex<Service>,
    /// The tasks of attempts and their events.
    tasks: TaskTracker,
}

/// Whether new jobs are started.
#[derive(Debug, PartialEq, Eq)]
enum Service {
    Runs,
    Stops,
}

/// Identifies a job, even if another one has its name by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobId {
    pub key: String,
    pub uid: String,
}

impl From<&Record> for JobId {
    fn from(record: &Record) -> Self {
        Self {
            key: record.key(),
            uid: record.job.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// The resources of a job that is not at rest.
#[derive(Debug)]
struct Resources {
    /// When [`Event::Wake`] is due.
    wake: watch::Sender<Option<Timestamp>>,
    /// The port of the master.
    port: Option<HeldPort>,
    /// The channel that asks each attempt to stop.
    stops: BTreeMap<Attempt, mpsc::UnboundedSender<Duration>>,
}

#[derive(Debug)]
pub(super) struct MachineSettings {
    pub containment: Option<Containment>,
    pub most_log_bytes: u64,
    pub program: PathBuf,
    pub jobs_folder: PathBuf,
    /// Where the folders of deleted jobs wait for the end of their replicas.
    pub deleted_folder: PathBuf,
    pub working_directory: PathBuf,
    /// Environment variables of every replica.
    pub environment: BTreeMap<String, String>,
    /// The counterpart of a pod's temporary folder.
    pub scratch: PathBuf,
    /// Distinguishes the jobs of this service from those of other services on this machine.
    pub owner: String,
    pub secrets: Secrets,
    pub pace: Pace,
}

impl LocalJobs {
    /// Loads the jobs of a store. None of them is started yet.
    pub fn open(
        settings: MachineSettings,
        slots: Slots,
        store: Store,
    ) -> Result<Self, ClusterError> {
        let pace = settings.pace;
        let mut jobs = Jobs::default();
        for record in store.all()? {
            jobs.keep(Job::new(record, pace));
        }
        Ok(Self {
            settings,
            slots: Mutex::new(slots),
            store: Arc::new(store),
            jobs: RwLock::new(jobs),
            changes: Changes::default(),
            resources: Mutex::default(),
            changing: tokio::sync::Mutex::new(Service::Runs),
            tasks: TaskTracker::new(),
        })
    }

    /// Resumes jobs that have not ended, the oldest first, as after a reboot of the machine.
    pub async fn adopt_stored(self: &Arc<Self>) {
        for id in self.unfinished() {
            info!(job = id.key, "resuming a job that was interrupted");
            if self.handle(&id, &Event::Adopted).await.is_err() {
                // The disk does not accept writes at the moment. The service serves nevertheless.
                self.report(id, Event::Adopted);
            }
        }
    }

    /// Stops all replicas, and waits until they have ended.
    pub async fn stop(self: &Arc<Self>) {
        let mut service = self.changing.lock().await;
        *service = Service::Stops;
        for id in self.all() {
            if let Some(job) = self.living(&id) {
                let step = job.step(&Event::Leave, Timestamp::now());
                // This step writes nothing.
                let _ = self.take(&id, step).await;
            }
        }
        drop(service);
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Handles an event of a job.
    ///
    /// # Errors
    ///
    /// The new state cannot be stored. The job is then unchanged.
    pub async fn handle(self: &Arc<Self>, id: &JobId, event: &Event) -> Result<(), ClusterError> {
        let _in_order = self.changing.lock().await;
        match self.living(id) {
            Some(job) => self.take(id, job.step(event, Timestamp::now())).await,
            None => Ok(()),
        }
    }

    /// Handles an event of a job, and retries until the new state is stored.
    pub async fn handle_until_stored(self: &Arc<Self>, id: &JobId, event: Event) {
        let mut is_logged = false;
        while let Err(error) = self.handle(id, &event).await {
            if !is_logged {
                is_logged = true;
                let error = &error as &dyn std::error::Error;
                error!(job = id.key, error, "a state cannot be stored; retrying");
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    /// The same, in a task of its own.
    fn report(self: &Arc<Self>, id: JobId, event: Event) {
        let machine = self.clone();
        self.tasks
            .spawn(async move { machine.handle_until_stored(&id, event).await });
    }

    /// Takes a step of a job. It is stored first, so that no client reads a state that a crash would
    /// undo.
    async fn take(self: &Arc<Self>, id: &JobId, step: Step) -> Result<(), ClusterError> {
        let written = self.write(&step).await;
        let (job, actions) = step.stored(written)?;
        self.show(id, job);
        for action in actions {
            self.act(id, action);
        }
        Ok(())
    }

    async fn write(&self, step: &Step) -> Result<(), ClusterError> {
        let store = self.store.clone();
        match step.write {
            Write::Nothing => Ok(()),
            Write::Update => {
                let record = step.record().clone();
                blocking("storing a job's state", move || store.put(&record)).await
            }
            Write::Remove => {
                let key = step.record().key();
                blocking("deleting a job", move || store.remove(&key)).await
            }
        }
    }

    /// Publishes the new state of a job.
    fn show(self: &Arc<Self>, id: &JobId, job: Job) {
        self.set_wake(id, &job);
        let mut jobs = self.jobs_mut();
        if job.is_deleted() {
            if let Some(deleted) = jobs.leave(id, job) {
                self.changes.publish_deletion(&deleted.observed);
                removal::put_away(&self.settings, &deleted.job.record.job);
            }
            return;
        }
        let (before, now) = jobs.keep(job);
        self.changes.publish(before.as_deref(), &now);
    }

    /// The folder of a job: the logs and locks of its replicas.
    pub fn folder(&self, namespace: &str, name: &str) -> PathBuf {
        self.settings.jobs_folder.join(namespace).join(name)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resources(&self) -> MutexGuard<'_, BTreeMap<String, Resources>> {
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> RwLockReadGuard<'_, Jobs> {
        self.jobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs_mut(&self) -> RwLockWriteGuard<'_, Jobs> {
        self.jobs.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error for a job that does not exist.
fn not_found(key: &str) -> ClusterError {
    let (_, name) = key.split_once('/').unwrap_or(("", key));
    ClusterError::NotFound {
        name: name.to_string(),
    }
}

/// Runs a blocking operation on the disk without blocking a thread of the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ClusterError::internal(doing, error))?
}
