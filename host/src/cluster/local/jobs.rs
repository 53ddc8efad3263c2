//! This machine as the local cluster sees it: its jobs, on disk and in memory, its slots, and what
//! is done for each job that has not ended.
//!
//! What happens to a job goes through [`LocalJobs::happen`]: the state machine of [`lifecycle`] says
//! what follows, the store keeps it, then everybody sees it, and then it is done.
//!
//! [`lifecycle`]: super::lifecycle

mod reads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::attempt::{self, Launch};
use super::contain::Containment;
use super::lifecycle::{Action, Attempt, Event, Job, Pace, Step, Write};
use super::ports::HeldPort;
use super::replica::{ReplicaContext, ReplicaIndex};
use super::secrets::Secrets;
use super::slots::{Request, Slots};
use super::store::{Record, Store};
use super::{removal, timer};
use crate::cluster::changes::Changes;
use crate::cluster::{ClusterError, RunState, WritingJob};
use crate::job::{ObservedJob, Prefix};
use crate::keys::RUN_ID_LABEL;
use crate::manifest::gpus_per_replica;
use crate::pytorch_job::PyTorchJob;
use reads::is;

/// How long to wait before writing again what could not be stored.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// The jobs of this machine and what is done for them.
#[derive(Debug)]
pub(super) struct LocalJobs {
    pub settings: MachineSettings,
    slots: Mutex<Slots>,
    store: Arc<Store>,
    jobs: RwLock<Jobs>,
    changes: Changes,
    /// What is done for jobs that are not at rest, by uid.
    efforts: Mutex<BTreeMap<String, Effort>>,
    /// Keeps what happens to the jobs in order.
    changing: tokio::sync::Mutex<Service>,
    /// Attempts and what follows them.
    tasks: TaskTracker,
}

/// Whether new jobs are started.
#[derive(Debug, PartialEq, Eq)]
enum Service {
    Runs,
    Stops,
}

#[derive(Debug, Default)]
struct Jobs {
    /// By key.
    kept: BTreeMap<String, Known>,
    /// Deleted jobs with replicas that have not ended, by uid.
    leaving: BTreeMap<String, Job>,
}

/// A job in memory.
#[derive(Debug)]
struct Known {
    job: Job,
    /// The same, prepared for responses, so that a read copies nothing.
    observed: Arc<ObservedJob>,
}

impl From<Job> for Known {
    fn from(job: Job) -> Self {
        let observed = Arc::new(ObservedJob::from(&job.record.job));
        Self { job, observed }
    }
}

/// Which job, also when another has its name by now.
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

/// What is done for a job.
#[derive(Debug)]
struct Effort {
    /// When [`Event::Wake`] is due.
    wake: watch::Sender<Option<Timestamp>>,
    /// Where the nodes of the job meet.
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
    /// What every replica has in its environment.
    pub environment: BTreeMap<String, String>,
    /// What stands for a pod's own temporary folder.
    pub scratch: PathBuf,
    /// Distinguishes the jobs of this service from those of other services on this machine.
    pub owner: String,
    pub secrets: Secrets,
    pub pace: Pace,
}

impl LocalJobs {
    /// Takes the jobs of a store over. None of them is started yet.
    pub fn open(
        settings: MachineSettings,
        slots: Slots,
        store: Store,
    ) -> Result<Self, ClusterError> {
        let pace = settings.pace;
        let jobs = store.all()?.into_iter();
        let jobs = jobs.map(|record| (record.key(), Job::new(record, pace).into()));
        let jobs = Jobs {
            kept: jobs.collect(),
            leaving: BTreeMap::new(),
        };
        Ok(Self {
            settings,
            slots: Mutex::new(slots),
            store: Arc::new(store),
            jobs: RwLock::new(jobs),
            changes: Changes::default(),
            efforts: Mutex::default(),
            changing: tokio::sync::Mutex::new(Service::Runs),
            tasks: TaskTracker::new(),
        })
    }

    /// Starts again what was cut off, the oldest first, as after a reboot of the machine.
    pub async fn take_up(self: &Arc<Self>) {
        for id in self.unfinished() {
            info!(job = id.key, "taking up a job that was cut off");
            if self.happen(&id, &Event::TakenUp).await.is_err() {
                // The disk does not take writes now. The service serves until it does.
                self.report(id, Event::TakenUp);
            }
        }
    }

    /// Adds a job, on disk first, and sees to it.
    pub async fn add(self: &Arc<Self>, record: Record) -> Result<(), ClusterError> {
        // Who hears that a name is taken has to find the job that has it.
        let service = self.changing.lock().await;
        if *service == Service::Stops {
            let action = "creating a job";
            let source = "the service stops".into();
            return Err(ClusterError::Unavailable { action, source });
        }
        let id = JobId::from(&record);
        if let Some(taken) = self.observed_job(&id.key) {
            return Err(ClusterError::AlreadyExists {
                name: taken.name().to_string(),
                run_id: taken.label(RUN_ID_LABEL).map(str::to_string),
            });
        }
        self.check_prefix(&record.job)?;
        let store = self.store.clone();
        let stored = record.clone();
        blocking("storing a job", move || store.put(&stored)).await?;
        let job = Job::new(record, self.settings.pace);
        let is_blocked = self.jobs().blocking(&job).next().is_some();
        let job = match is_blocked {
            true => job.behind_another(),
            false => job,
        };
        let step = job.step(&Event::Created, Timestamp::now());
        self.take(&id, step).await
    }

    /// Refuses a job whose checkpoint prefix another one writes to.
    ///
    /// # Errors
    ///
    /// [`ClusterError::PrefixTaken`] with that job.
    pub fn check_prefix(&self, job: &PyTorchJob) -> Result<(), ClusterError> {
        let Some(prefix) = Prefix::of(&job.metadata) else {
            return Ok(());
        };
        let jobs = self.observed(None);
        let taken =
            |other: &&Arc<ObservedJob>| prefix.is_taken_by(other, job.namespace(), job.name());
        match jobs.iter().find(taken) {
            Some(writer) => Err(ClusterError::prefix_taken(
                &prefix,
                WritingJob::from(&**writer),
            )),
            None => Ok(()),
        }
    }

    /// Lets a job run or wait.
    ///
    /// # Errors
    ///
    /// When there is no such job, it has ended, or the wish cannot be stored.
    pub async fn set_running(
        self: &Arc<Self>,
        key: &str,
        wish: RunState,
    ) -> Result<Arc<ObservedJob>, ClusterError> {
        let _in_order = self.changing.lock().await;
        let job = self.kept(key).ok_or_else(|| not_found(key))?;
        if job.has_ended() {
            let name = job.record.job.name().to_string();
            return Err(ClusterError::Ended { name });
        }
        let event = match wish {
            RunState::Suspend => Event::Suspend,
            RunState::Resume => Event::Resume,
        };
        let id = JobId::from(&job.record);
        self.take(&id, job.step(&event, Timestamp::now())).await?;
        self.observed_job(key).ok_or_else(|| not_found(key))
    }

    /// Forgets a job at once, and lets its replicas end.
    ///
    /// # Errors
    ///
    /// When there is no such job, or the store cannot be written.
    pub async fn delete(self: &Arc<Self>, key: &str) -> Result<(), ClusterError> {
        let _in_order = self.changing.lock().await;
        let job = self.kept(key).ok_or_else(|| not_found(key))?;
        let id = JobId::from(&job.record);
        self.take(&id, job.step(&Event::Delete, Timestamp::now()))
            .await?;
        info!(job = key, "a job was deleted");
        Ok(())
    }

    /// Stops all replicas, and waits until they have ended.
    pub async fn stop(self: &Arc<Self>) {
        let mut service = self.changing.lock().await;
        *service = Service::Stops;
        for id in self.all() {
            if let Some(job) = self.living(&id) {
                let step = job.step(&Event::Leave, Timestamp::now());
                // Nothing is written of a job that is left.
                let _ = self.take(&id, step).await;
            }
        }
        drop(service);
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes note of something that happened.
    ///
    /// # Errors
    ///
    /// When it cannot be stored. Then it did not happen yet.
    pub async fn happen(self: &Arc<Self>, id: &JobId, event: &Event) -> Result<(), ClusterError> {
        let _in_order = self.changing.lock().await;
        match self.living(id) {
            Some(job) => self.take(id, job.step(event, Timestamp::now())).await,
            None => Ok(()),
        }
    }

    /// Takes note of something that happened, as soon as the disk takes it.
    pub async fn insist(self: &Arc<Self>, id: &JobId, event: Event) {
        let mut told = false;
        while let Err(error) = self.happen(id, &event).await {
            if !told {
                told = true;
                let error = &error as &dyn std::error::Error;
                error!(
                    job = id.key,
                    error, "a state cannot be stored; trying again"
                );
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    /// The same, beside whatever else is done.
    fn report(self: &Arc<Self>, id: JobId, event: Event) {
        let machine = self.clone();
        self.tasks
            .spawn(async move { machine.insist(&id, event).await });
    }

    /// Takes a step of a job, on disk first, so that nobody reads what a crash would take back.
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
            let is_news = jobs
                .kept
                .get(&id.key)
                .is_some_and(|known| is(&known.job, id));
            if is_news {
                jobs.kept.remove(&id.key);
                self.changes.tell_gone(&ObservedJob::from(&job.record.job));
                removal::put_away(&self.settings, &job.record.job);
            }
            jobs.leaving.insert(id.uid.clone(), job);
            return;
        }
        let known = Known::from(job);
        let before = jobs.kept.get(&id.key).map(|before| &*before.observed);
        self.changes.tell(before, &known.observed);
        jobs.kept.insert(id.key.clone(), known);
    }

    fn act(self: &Arc<Self>, id: &JobId, action: Action) {
        match action {
            Action::AskForSlots(number) => {
                if let Some(job) = self.living(id) {
                    let needed = self.slots_needed(&job.record.job);
                    let job = id.uid.clone();
                    let granted = self.slots().ask(Request { job, number }, needed);
                    self.grant(granted);
                }
            }
            Action::ReturnSlots => {
                let granted = self.slots().give_back(&id.uid);
                self.grant(granted);
                self.unblock();
            }
            Action::ChoosePort => self.choose_port(id),
            Action::Start(attempt) => self.start(id, attempt),
            Action::Stop(attempt, grace) => {
                if let Some(stop) = self
                    .efforts()
                    .get(&id.uid)
                    .and_then(|e| e.stops.get(&attempt))
                {
                    // An attempt that does not listen has ended.
                    let _ = stop.send(grace);
                }
            }
            Action::EndLost(attempt) => {
                let lost = attempt::end_lost(self.clone(), id.clone(), attempt);
                self.tasks.spawn(lost);
            }
            Action::Forget => self.forget(id),
        }
    }

    fn grant(self: &Arc<Self>, granted: Vec<Request>) {
        for Request { job, number } in granted {
            if let Some(id) = self.of_uid(&job) {
                self.report(id, Event::SlotsGranted(number));
            }
        }
    }

    fn choose_port(&self, id: &JobId) {
        let port = HeldPort::choose();
        let port = port.inspect_err(|error| error!(job = id.key, %error, "no port is free"));
        if let Some(effort) = self.efforts().get_mut(&id.uid) {
            effort.port = port.ok();
        }
    }

    fn start(self: &Arc<Self>, id: &JobId, attempt: Attempt) {
        let Some(job) = self.living(id) else { return };
        let Some(index) = job.index(attempt) else {
            return;
        };
        let record = job.record;
        let mut efforts = self.efforts();
        let Some(effort) = efforts.get_mut(&id.uid) else {
            return;
        };
        let context = ReplicaContext {
            containment: self.settings.containment.clone(),
            most_log_bytes: self.settings.most_log_bytes,
            program: self.settings.program.clone(),
            working_directory: self.settings.working_directory.clone(),
            base: self.settings.environment.clone(),
            folder: self.folder(record.job.namespace(), record.job.name()),
            master_port: effort.port.as_ref().map_or(0, HeldPort::number),
            job_uid: id.uid.clone(),
            owner: self.settings.owner.clone(),
            scratch: self.settings.scratch.clone(),
            secrets: self.settings.secrets.clone(),
        };
        let launch = Launch {
            id: id.clone(),
            attempt,
            gpus: self.gpus_of(id, attempt.replica, &record.job),
            job: record.job,
            index,
            context,
        };
        let (stop, stops) = mpsc::unbounded_channel();
        effort
            .stops
            .retain(|other, _| other.replica != attempt.replica);
        effort.stops.insert(attempt, stop);
        self.tasks.spawn(attempt::run(self.clone(), launch, stops));
    }

    /// Nothing is left of a deleted job.
    fn forget(self: &Arc<Self>, id: &JobId) {
        let job = self.jobs_mut().leaving.remove(&id.uid);
        self.efforts().remove(&id.uid);
        if let Some(job) = job {
            let folder = removal::away(&self.settings, &job.record.job);
            self.tasks.spawn(removal::remove(folder));
        }
    }

    /// Lets the jobs start that waited for another one to end.
    fn unblock(self: &Arc<Self>) {
        for id in self.unblocked() {
            self.report(id, Event::Unblocked);
        }
    }

    /// Sets the alarm of a job, or lets go of everything when nothing is left to do for it.
    fn set_wake(self: &Arc<Self>, id: &JobId, job: &Job) {
        let mut efforts = self.efforts();
        if job.is_at_rest() {
            efforts.remove(&id.uid);
            return;
        }
        let effort = efforts.entry(id.uid.clone()).or_insert_with(|| {
            let (wake, due) = watch::channel(None);
            tokio::spawn(timer::run(self.clone(), id.clone(), due));
            Effort {
                wake,
                port: None,
                stops: BTreeMap::new(),
            }
        });
        let next = job.next_wake();
        effort
            .wake
            .send_if_modified(|wake| std::mem::replace(wake, next) != next);
    }

    fn gpus_of(&self, id: &JobId, number: usize, job: &PyTorchJob) -> Option<Vec<u32>> {
        let each = gpus_per_replica(job) as usize;
        let gpus = self.slots().gpus(&id.uid)?;
        Some(gpus.into_iter().skip(number * each).take(each).collect())
    }

    fn slots_needed(&self, job: &PyTorchJob) -> u32 {
        let replicas = ReplicaIndex::all(&job.spec).len();
        let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
        self.slots().needed(replicas, gpus_per_replica(job))
    }

    /// The folder of a job: the logs and locks of its replicas.
    pub fn folder(&self, namespace: &str, name: &str) -> PathBuf {
        self.settings.jobs_folder.join(namespace).join(name)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn efforts(&self) -> MutexGuard<'_, BTreeMap<String, Effort>> {
        self.efforts.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Waits for the disk without keeping a thread of the runtime from its other work.
pub(super) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ClusterError::internal(doing, error))?
}
