//! The jobs in memory, with indexes for everything that a submission looks up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Job, JobId};
use crate::job::{JobPosition, JobsByAge, ObservedJob, Prefix, PrefixIndex, Submission};
use crate::keys::IDEMPOTENCY_LABEL;

/// All jobs, by key. A job that is deleted leaves when its replicas have ended.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    kept: BTreeMap<String, Known>,
    by_age: JobsByAge,
    /// Deleted jobs with replicas that have not ended, by uid.
    leaving: BTreeMap<String, Job>,
    /// The kept jobs that have not ended.
    writers: PrefixIndex<String>,
    /// The keys of kept jobs that have ended and whose replicas have not.
    ending: BTreeSet<String>,
    /// The keys of kept jobs by namespace and idempotency key.
    submissions: BTreeMap<(String, String), String>,
}

/// A job in memory.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) job: Job,
    /// The same, prepared for responses, so that a read copies nothing.
    pub(super) observed: Arc<ObservedJob>,
}

impl Jobs {
    /// Keeps a job in a new state. Returns the states before and after.
    pub(super) fn keep(&mut self, job: Job) -> (Option<Arc<ObservedJob>>, Arc<ObservedJob>) {
        let key = job.record.key();
        let before = self.remove(&key);
        let observed = Arc::new(ObservedJob::from(&job.record.job));
        self.writers.insert(&observed, key.clone());
        self.by_age.insert(observed.clone());
        if job.is_over() && job.is_live() {
            self.ending.insert(key.clone());
        }
        if let Some(submission) = submission(&observed) {
            self.submissions.insert(submission, key.clone());
        }
        let now = observed.clone();
        self.kept.insert(key, Known { job, observed });
        (before.map(|known| known.observed), now)
    }

    /// Stops keeping a job that was deleted. Returns it if it was still kept.
    pub(super) fn leave(&mut self, id: &JobId, job: Job) -> Option<Known> {
        let is_kept = self.of(id).is_some();
        let before = is_kept.then(|| self.remove(&id.key)).flatten();
        self.leaving.insert(id.uid.clone(), job);
        before
    }

    /// Forgets a deleted job whose replicas have ended.
    pub(super) fn forget(&mut self, uid: &str) -> Option<Job> {
        self.leaving.remove(uid)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Known> {
        self.kept.get(key)
    }

    /// The kept jobs, by key.
    pub(super) fn kept(&self) -> &BTreeMap<String, Known> {
        &self.kept
    }

    /// The kept jobs after a position, newest first.
    pub(super) fn after(
        &self,
        position: Option<&JobPosition>,
    ) -> impl Iterator<Item = &Arc<ObservedJob>> {
        self.by_age.after(position)
    }

    /// Every job, kept or leaving.
    pub(super) fn all(&self) -> impl Iterator<Item = &Job> {
        let kept = self.kept.values().map(|known| &known.job);
        kept.chain(self.leaving.values())
    }

    /// A job that is kept, or was deleted and has replicas that have not ended.
    pub(super) fn living(&self, id: &JobId) -> Option<&Job> {
        self.of(id).or_else(|| self.leaving.get(&id.uid))
    }

    /// The job of a namespace that was submitted with a key.
    pub(super) fn submitted(&self, namespace: &str, submission: &Submission) -> Option<&Job> {
        let submission = (namespace.to_string(), submission.key_hash.clone());
        let known = self.get(self.submissions.get(&submission)?)?;
        Some(&known.job)
    }

    /// Another job, with a different name, that has not ended and writes to this prefix.
    pub(super) fn writer(
        &self,
        prefix: &Prefix,
        namespace: &str,
        name: &str,
    ) -> Option<&ObservedJob> {
        let overlapping = self.writers.overlapping(prefix);
        let mut writers = overlapping.filter_map(|key| Some(&*self.get(key)?.observed));
        writers.find(|other| prefix.is_taken_by(other, namespace, name))
    }

    /// The jobs that have to end before this one starts.
    pub(super) fn blocking<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = &'a Job> {
        let ending = self.ending.iter().filter_map(|key| self.get(key));
        let over = ending.map(|known| &known.job).chain(self.leaving.values());
        over.filter(move |other| other.blocks(job))
    }

    /// The kept job that is meant, and not another of its name.
    fn of(&self, id: &JobId) -> Option<&Job> {
        let job = &self.get(&id.key)?.job;
        (job.record.job.metadata.uid.as_deref() == Some(&id.uid)).then_some(job)
    }

    fn remove(&mut self, key: &str) -> Option<Known> {
        let known = self.kept.remove(key)?;
        self.writers.remove(&known.observed, &key.to_string());
        self.by_age.remove(&known.observed);
        self.ending.remove(key);
        if let Some(submission) = submission(&known.observed) {
            self.submissions.remove(&submission);
        }
        Some(known)
    }
}

/// The namespace and the idempotency key of a job that was submitted with one.
fn submission(job: &ObservedJob) -> Option<(String, String)> {
    let key = job.label(IDEMPOTENCY_LABEL)?;
    Some((job.namespace().to_string(), key.to_string()))
}
