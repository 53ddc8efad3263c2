//! This machine as the local cluster sees it: its jobs, on disk and in memory, its slots, and a
//! supervisor for each job that has not ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::conditions::{self, Transition};
use super::slots::Slots;
use super::store::{Record, Store, key};
use super::supervisor::{self, Order};
use crate::cluster::changes::{Changes, Sight};
use crate::cluster::{ClusterError, Wish};
use crate::job::{ObservedJob, PyTorchJob, RUN_ID_LABEL, Submission};

/// What the supervisors of all jobs share.
#[derive(Debug)]
pub(super) struct Machine {
    pub settings: MachineSettings,
    pub slots: Slots,
    store: Arc<Store>,
    jobs: RwLock<BTreeMap<String, Known>>,
    changes: Changes,
    /// What is to become of each job that has not ended.
    orders: Mutex<BTreeMap<String, watch::Sender<Order>>>,
    /// Keeps the changes of one job in the order in which they happened.
    changing: tokio::sync::Mutex<()>,
    pub stopping: watch::Sender<bool>,
    supervisors: TaskTracker,
}

/// A job in memory.
#[derive(Debug)]
struct Known {
    record: Record,
    /// The same as answers tell it, so that a read copies nothing.
    observed: Arc<ObservedJob>,
}

impl From<Record> for Known {
    fn from(record: Record) -> Self {
        let observed = Arc::new(ObservedJob::from(&record.job));
        Self { record, observed }
    }
}

#[derive(Debug)]
pub(super) struct MachineSettings {
    pub program: PathBuf,
    pub jobs_folder: PathBuf,
    /// Where the folders of deleted jobs wait for the end of their replicas.
    pub deleted_folder: PathBuf,
    pub working_directory: PathBuf,
    /// What every replica has in its environment.
    pub environment: BTreeMap<String, String>,
    pub restart_backoff: Duration,
    pub shutdown_grace: Duration,
}

impl Machine {
    /// Takes the jobs of a store over. None of them is supervised yet.
    pub fn open(
        settings: MachineSettings,
        slots: Slots,
        store: Store,
    ) -> Result<Self, ClusterError> {
        let records = store.all()?;
        Ok(Self {
            settings,
            slots,
            store: Arc::new(store),
            jobs: RwLock::new(records.into_iter().map(|r| (r.key(), r.into())).collect()),
            changes: Changes::default(),
            orders: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
            stopping: watch::Sender::new(false),
            supervisors: TaskTracker::new(),
        })
    }

    /// Adds a job, on disk first, and sees to it.
    pub async fn add(self: &Arc<Self>, record: Record) -> Result<(), ClusterError> {
        // Who hears that a name is taken has to find the job that has it.
        let in_order = self.changing.lock().await;
        let key = record.key();
        if let Some(taken) = self.observed_job(&key) {
            return Err(ClusterError::AlreadyExists {
                name: taken.name().to_string(),
                run_id: taken.label(RUN_ID_LABEL).map(str::to_string),
            });
        }
        let store = self.store.clone();
        let stored = record.clone();
        blocking("storing a job", move || store.insert(&stored)).await?;
        self.jobs_mut().insert(key.clone(), record.into());
        drop(in_order);
        self.supervise(key);
        Ok(())
    }

    /// Sees to a job until it has ended.
    pub fn supervise(self: &Arc<Self>, key: String) {
        let suspended = self
            .record(&key)
            .is_some_and(|record| is_suspended(&record.job));
        let order = match suspended {
            true => Order::Suspend,
            false => Order::Run,
        };
        let (sender, orders) = watch::channel(order);
        self.orders().insert(key.clone(), sender);
        let run = supervisor::run(self.clone(), key, orders);
        self.supervisors.spawn(run);
    }

    /// Stops the supervisors, and waits until they have stopped their replicas.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        self.supervisors.close();
        self.supervisors.wait().await;
    }

    pub fn record(&self, key: &str) -> Option<Record> {
        self.jobs().get(key).map(|known| known.record.clone())
    }

    /// A job as answers tell it.
    pub fn observed_job(&self, key: &str) -> Option<Arc<ObservedJob>> {
        self.jobs().get(key).map(|known| known.observed.clone())
    }

    /// A job and its changes.
    pub fn follow(&self, key: &str) -> Option<Sight> {
        let jobs = self.jobs();
        let known = jobs.get(key)?;
        Some(self.changes.follow(known.observed.clone()))
    }

    /// The job of a namespace that was submitted with a key.
    pub fn submitted(&self, namespace: &str, submission: &Submission) -> Option<PyTorchJob> {
        let jobs = self.jobs();
        let mut jobs = jobs.values();
        let found = jobs.find(|Known { observed, .. }| {
            observed.namespace() == namespace && submission.has_key_of(observed)
        });
        found.map(|known| known.record.job.clone())
    }

    pub fn job(&self, key: &str) -> Option<PyTorchJob> {
        self.record(key).map(|record| record.job)
    }

    /// All jobs of a name, in whichever namespaces.
    pub fn named(&self, name: &str) -> Vec<Arc<ObservedJob>> {
        let jobs = self.jobs();
        let jobs = jobs.values().map(|known| &known.observed);
        jobs.filter(|job| job.name() == name).cloned().collect()
    }

    /// The jobs that have not ended.
    pub fn unfinished(&self) -> Vec<PyTorchJob> {
        let jobs = self.jobs();
        let jobs = jobs.values().map(|known| &known.record.job);
        jobs.filter(|job| !has_ended(job)).cloned().collect()
    }

    /// All jobs of a namespace, or of all.
    pub fn observed(&self, namespace: Option<&str>) -> Vec<Arc<ObservedJob>> {
        let jobs = self.jobs();
        let jobs = jobs.values().map(|known| &known.observed);
        jobs.filter(|job| namespace.is_none_or(|namespace| job.namespace() == namespace))
            .cloned()
            .collect()
    }

    /// Why a job will wait for ever, if it will.
    pub fn never_starts(&self, job: &PyTorchJob) -> Option<String> {
        self.slots.never(supervisor::slots_needed(self, job))
    }

    /// Why a job that has not been started waits.
    pub fn waits(&self, job: &PyTorchJob) -> Option<String> {
        let started = job.status.as_ref().is_some_and(|s| s.start_time.is_some());
        let waits = !started && !has_ended(job) && !is_suspended(job);
        waits.then(|| self.slots.waiting(supervisor::slots_needed(self, job)))
    }

    /// Changes a job, on disk first, so that nobody reads what a crash would take back. A job that
    /// is deleted is not changed, nor is another that has its name by now.
    pub async fn change(
        &self,
        job: &PyTorchJob,
        change: impl FnOnce(&mut Record),
        transition: Option<Transition>,
    ) {
        let _in_order = self.changing.lock().await;
        let record = self.record(&key(job.namespace(), job.name()));
        let record = record.filter(|record| record.job.metadata.uid == job.metadata.uid);
        if let Some(record) = record {
            self.change_in_order(record, change, transition).await;
        }
    }

    async fn change_in_order(
        &self,
        mut record: Record,
        change: impl FnOnce(&mut Record),
        transition: Option<Transition>,
    ) {
        let key = record.key();
        change(&mut record);
        if let Some(transition) = transition {
            conditions::apply(&mut record.job, &transition, Timestamp::now());
            info!(job = key.as_str(), ?transition, "a job moved on");
        }
        let store = self.store.clone();
        let stored = record.clone();
        let written = blocking("storing a job's state", move || store.update(&stored)).await;
        if let Err(error) = written {
            // The job goes on; at worst a crash now starts it again.
            error!(
                job = key.as_str(),
                error = &error as &dyn std::error::Error,
                "a state was not stored"
            );
        }
        let known = Known::from(record);
        let mut jobs = self.jobs_mut();
        self.changes.tell(&known.observed);
        jobs.insert(key, known);
    }

    /// Lets a job run or wait.
    ///
    /// # Errors
    ///
    /// When there is no such job, or it has ended.
    pub async fn set_running(
        &self,
        key: &str,
        wish: Wish,
    ) -> Result<Arc<ObservedJob>, ClusterError> {
        let in_order = self.changing.lock().await;
        let record = self.record(key).ok_or_else(|| not_found(key))?;
        if has_ended(&record.job) {
            let name = record.job.name().to_string();
            return Err(ClusterError::Ended { name });
        }
        let wanted = wish == Wish::Suspend;
        if is_suspended(&record.job) != wanted {
            let (order, transition) = match wish {
                Wish::Suspend => (Order::Suspend, Transition::Suspended),
                Wish::Resume => (Order::Run, Transition::Resumed),
            };
            let change = |record: &mut Record| {
                record.job.spec.run_policy.suspend = Some(wanted);
                supervisor::no_replicas(record);
            };
            self.change_in_order(record, change, Some(transition)).await;
            self.order(key, order);
        }
        drop(in_order);
        self.observed_job(key).ok_or_else(|| not_found(key))
    }

    /// Forgets a job at once, and lets its replicas end.
    ///
    /// # Errors
    ///
    /// When there is no such job, or the store cannot be written.
    pub async fn delete(&self, key: &str) -> Result<(), ClusterError> {
        let _in_order = self.changing.lock().await;
        let record = self.record(key).ok_or_else(|| not_found(key))?;
        let store = self.store.clone();
        let of = key.to_string();
        blocking("deleting a job", move || store.remove(&of)).await?;
        let mut jobs = self.jobs_mut();
        jobs.remove(key);
        self.changes.tell_gone(&ObservedJob::from(&record.job));
        drop(jobs);
        info!(job = key, "a job was deleted");
        let folder = self.put_away(&record.job);
        let orders = self.orders().remove(key);
        let ended = async move {
            if let Some(orders) = orders {
                orders.send_replace(Order::Delete);
                orders.closed().await;
            }
            remove(folder).await;
        };
        self.supervisors.spawn(ended);
        Ok(())
    }

    /// The folder of a job: the logs and locks of its replicas.
    pub fn folder(&self, namespace: &str, name: &str) -> PathBuf {
        self.settings.jobs_folder.join(namespace).join(name)
    }

    /// Moves a job's folder away, so that another of the same name finds none.
    fn put_away(&self, job: &PyTorchJob) -> PathBuf {
        let folders = &self.settings;
        let folder = self.folder(job.namespace(), job.name());
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let away = folders.deleted_folder.join(uid);
        let moved = std::fs::create_dir_all(&folders.deleted_folder)
            .and_then(|()| std::fs::rename(&folder, &away));
        match moved {
            Ok(()) => away,
            // A job that was never started has none.
            Err(_) => folder,
        }
    }

    fn order(&self, key: &str, order: Order) {
        if let Some(orders) = self.orders().get(key) {
            orders.send_replace(order);
        }
    }

    fn orders(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, watch::Sender<Order>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> RwLockReadGuard<'_, BTreeMap<String, Known>> {
        self.jobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Known>> {
        self.jobs.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_ended(job: &PyTorchJob) -> bool {
    job.status.as_ref().is_some_and(|status| status.has_ended())
}

fn is_suspended(job: &PyTorchJob) -> bool {
    job.spec.run_policy.suspend == Some(true)
}

/// There is no job of a key any more.
fn not_found(key: &str) -> ClusterError {
    let (_, name) = key.split_once('/').unwrap_or(("", key));
    ClusterError::NotFound {
        name: name.to_string(),
    }
}

/// Removes a folder, if it is there.
async fn remove(folder: PathBuf) {
    if let Err(error) = tokio::fs::remove_dir_all(&folder).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(folder = %folder.display(), %error, "the folder of a deleted job stays");
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
