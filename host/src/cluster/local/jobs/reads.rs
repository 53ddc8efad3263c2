//! What is read of the jobs of this machine. Nothing here waits for the disk or for a change.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Job, JobId, LocalJobs, blocking};
use crate::cluster::changes::JobWatch;
use crate::cluster::local::store::Record;
use crate::cluster::{ClusterError, Feed};
use crate::job::{JobPosition, ObservedJob, Submission};
use crate::pytorch_job::PyTorchJob;

impl LocalJobs {
    pub fn record(&self, key: &str) -> Option<Record> {
        let jobs = self.jobs();
        jobs.get(key).map(|known| known.job.record.clone())
    }

    /// The state of a job, for responses.
    pub fn observed_job(&self, key: &str) -> Option<Arc<ObservedJob>> {
        let jobs = self.jobs();
        jobs.get(key).map(|known| known.observed.clone())
    }

    /// A job and its changes.
    pub fn follow(&self, key: &str) -> Option<JobWatch> {
        let jobs = self.jobs();
        let known = jobs.get(key)?;
        Some(self.changes.follow(known.observed.clone()))
    }

    /// The changes of all jobs.
    pub fn feed(&self) -> &Arc<Feed> {
        self.changes.feed()
    }

    /// The job of a namespace that was submitted with a key.
    pub fn submitted(&self, namespace: &str, submission: &Submission) -> Option<PyTorchJob> {
        let jobs = self.jobs();
        let found = jobs.submitted(namespace, submission);
        found.map(|job| job.record.job.clone())
    }

    /// All jobs of a name, in whichever namespaces.
    pub fn named(&self, name: &str) -> Vec<Arc<ObservedJob>> {
        let jobs = self.jobs();
        let jobs = jobs.kept().values().map(|known| &known.observed);
        jobs.filter(|job| job.name() == name).cloned().collect()
    }

    /// The newest jobs, or those after a position.
    pub fn observed(&self, position: Option<&JobPosition>, limit: usize) -> Vec<Arc<ObservedJob>> {
        let jobs = self.jobs();
        jobs.after(position).take(limit).cloned().collect()
    }

    /// The keys of all jobs.
    pub fn keys(&self) -> BTreeSet<String> {
        self.jobs().kept().keys().cloned().collect()
    }

    /// Why a job will wait for ever, if it will.
    pub fn never_starts(&self, job: &PyTorchJob) -> Option<String> {
        let needed = self.slots_needed(job);
        self.slots().never(needed)
    }

    /// Sentences about what a job waits for.
    pub fn waits(&self, key: &str) -> Vec<String> {
        let Some(job) = self.kept(key) else {
            return Vec::new();
        };
        let mut waits = job.waits(Timestamp::now());
        if job.is_behind() {
            let jobs = self.jobs();
            waits.extend(jobs.blocking(&job).map(|other| job.waits_behind(other)));
        }
        if job.waits_for_slots() {
            let needed = self.slots_needed(&job.record.job);
            waits.push(self.slots().waiting(needed));
        }
        waits
    }

    /// Whether jobs can be stored now.
    ///
    /// # Errors
    ///
    /// When the last one could not be, and still none can.
    pub async fn check(&self) -> Result<(), ClusterError> {
        let store = self.store.clone();
        blocking("writing to the store of jobs", move || store.check()).await
    }

    /// The jobs that have not ended, oldest first.
    pub(super) fn unfinished(&self) -> Vec<JobId> {
        let jobs = self.jobs();
        let jobs = jobs.kept().values().map(|known| &known.job);
        let mut jobs: Vec<&Job> = jobs.filter(|job| !job.has_ended()).collect();
        jobs.sort_by_key(|job| {
            job.record
                .job
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|t| t.0)
        });
        jobs.into_iter()
            .map(|job| JobId::from(&job.record))
            .collect()
    }

    /// Every job that something may be done for.
    pub(super) fn all(&self) -> Vec<JobId> {
        let jobs = self.jobs();
        let busy = jobs.all().filter(|job| !job.is_at_rest());
        busy.map(|job| JobId::from(&job.record)).collect()
    }

    pub(super) fn kept(&self, key: &str) -> Option<Job> {
        self.jobs().get(key).map(|known| known.job.clone())
    }

    /// A job that is there, or was deleted and has replicas that have not ended.
    pub(super) fn living(&self, id: &JobId) -> Option<Job> {
        self.jobs().living(id).cloned()
    }

    /// The jobs that waited for another one that has ended.
    pub(super) fn unblocked(&self) -> Vec<JobId> {
        let jobs = self.jobs();
        let behind = jobs.kept().values().map(|known| &known.job);
        let behind = behind.filter(|job| job.is_behind());
        let free = behind.filter(|job| jobs.blocking(job).next().is_none());
        free.map(|job| JobId::from(&job.record)).collect()
    }

    /// The job that has a uid.
    pub(super) fn of_uid(&self, uid: &str) -> Option<JobId> {
        let jobs = self.jobs();
        let mut jobs = jobs.kept().values().map(|known| &known.job.record);
        let found = jobs.find(|record| record.job.metadata.uid.as_deref() == Some(uid));
        found.map(JobId::from)
    }
}
