//! Requests of clients that change jobs: create, suspend, resume and delete.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::info;

use super::super::lifecycle::{Event, Job};
use super::super::store::Record;
use super::{JobId, LocalJobs, Service, blocking, not_found};
use crate::cluster::{ClusterError, RunState, WritingJob};
use crate::job::{ObservedJob, Prefix};
use crate::keys::RUN_ID_LABEL;
use crate::pytorch_job::PyTorchJob;

impl LocalJobs {
    /// Stores a job and starts it.
    ///
    /// # Errors
    ///
    /// The service stops, the name or the checkpoint prefix is taken, or the job cannot be stored.
    pub async fn add(self: &Arc<Self>, record: Record) -> Result<(), ClusterError> {
        // A client that gets "already exists" must be able to read the job.
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

    /// Refuses a job whose checkpoint prefix is in use.
    ///
    /// # Errors
    ///
    /// [`ClusterError::PrefixTaken`] with the job that writes to it.
    pub fn check_prefix(&self, job: &PyTorchJob) -> Result<(), ClusterError> {
        let Some(prefix) = Prefix::of(&job.metadata) else {
            return Ok(());
        };
        match self.jobs().writer(&prefix, job.namespace(), job.name()) {
            Some(writer) => Err(ClusterError::prefix_taken(
                &prefix,
                WritingJob::from(writer),
            )),
            None => Ok(()),
        }
    }

    /// Suspends or resumes a job.
    ///
    /// # Errors
    ///
    /// The job does not exist, has ended, or cannot be stored.
    pub async fn set_running(
        self: &Arc<Self>,
        key: &str,
        state: RunState,
    ) -> Result<Arc<ObservedJob>, ClusterError> {
        let _in_order = self.changing.lock().await;
        let job = self.kept(key).ok_or_else(|| not_found(key))?;
        if job.has_ended() {
            let name = job.record.job.name().to_string();
            return Err(ClusterError::Ended { name });
        }
        let event = match state {
            RunState::Suspend => Event::Suspend,
            RunState::Resume => Event::Resume,
        };
        let id = JobId::from(&job.record);
        self.take(&id, job.step(&event, Timestamp::now())).await?;
        self.observed_job(key).ok_or_else(|| not_found(key))
    }

    /// Deletes a job. Its replicas may still have to end.
    ///
    /// # Errors
    ///
    /// The job does not exist, or the store cannot be written.
    pub async fn delete(self: &Arc<Self>, key: &str) -> Result<(), ClusterError> {
        let _in_order = self.changing.lock().await;
        let job = self.kept(key).ok_or_else(|| not_found(key))?;
        let id = JobId::from(&job.record);
        self.take(&id, job.step(&Event::Delete, Timestamp::now()))
            .await?;
        info!(job = key, "a job was deleted");
        Ok(())
    }
}
