//! The jobs of the cache, by name and by the checkpoint prefix that they write to.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::job::{JobPosition, JobsByAge, ObservedJob, Prefix, PrefixIndex};
use crate::job_kind::JobKind;

/// By name and then namespace, because lookups are by name.
pub(super) type Key = (String, String, JobKind);

#[derive(Debug, Default)]
pub(super) struct Jobs {
    by_key: BTreeMap<Key, Arc<ObservedJob>>,
    by_age: JobsByAge,
    writers: PrefixIndex<Key>,
}

impl Jobs {
    /// Stores a job. Returns its state before.
    pub(super) fn insert(&mut self, job: Arc<ObservedJob>) -> Option<Arc<ObservedJob>> {
        let key = key(&job);
        let before = self.remove(&key);
        self.writers.insert(&job, key.clone());
        self.by_age.insert(job.clone());
        self.by_key.insert(key, job);
        before
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<ObservedJob>> {
        let job = self.by_key.remove(key)?;
        self.writers.remove(&job, key);
        self.by_age.remove(&job);
        Some(job)
    }

    /// Removes the jobs that a predicate selects.
    pub(super) fn take(
        &mut self,
        selects: impl Fn(&ObservedJob) -> bool,
    ) -> BTreeMap<Key, Arc<ObservedJob>> {
        let (taken, others): (BTreeMap<_, _>, _) = std::mem::take(&mut self.by_key)
            .into_iter()
            .partition(|(_, job)| selects(job));
        self.by_key = others;
        for (key, job) in &taken {
            self.writers.remove(job, key);
            self.by_age.remove(job);
        }
        taken
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<ObservedJob>> {
        self.by_key.get(key)
    }

    /// The jobs after a position, newest first.
    pub(super) fn after(
        &self,
        position: Option<&JobPosition>,
    ) -> impl Iterator<Item = &Arc<ObservedJob>> {
        self.by_age.after(position)
    }

    /// The job of a namespace and name, of either kind.
    pub(super) fn named(&self, namespace: &str, name: &str) -> Option<&Arc<ObservedJob>> {
        let mut key = (name.to_string(), namespace.to_string(), JobKind::default());
        JobKind::ALL.into_iter().find_map(|kind| {
            key.2 = kind;
            self.by_key.get(&key)
        })
    }

    /// All jobs with a name, in any namespace.
    pub(super) fn of_name<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Arc<ObservedJob>> {
        let first = (name.to_string(), String::new(), JobKind::ALL[0]);
        let from = (Bound::Included(first), Bound::Unbounded);
        let from = self.by_key.range(from);
        let same = from.take_while(move |((of, ..), _)| of == name);
        same.map(|(_, job)| job)
    }

    /// Another job, with a different name, that has not ended and writes to this prefix.
    pub(super) fn writer(
        &self,
        prefix: &Prefix,
        namespace: &str,
        name: &str,
    ) -> Option<&Arc<ObservedJob>> {
        let overlapping = self.writers.overlapping(prefix);
        let mut writers = overlapping.filter_map(|key| self.get(key));
        writers.find(|other| prefix.is_taken_by(other, namespace, name))
    }
}

pub(super) fn key(job: &ObservedJob) -> Key {
    (
        job.name().to_string(),
        job.namespace().to_string(),
        job.kind,
    )
}
