//! An index of the jobs that write checkpoints, by their prefix.

use std::collections::{BTreeMap, BTreeSet};

use super::{ObservedJob, Prefix};

/// The keys of jobs that have not ended, by the prefix that they write to. A search looks only at
/// jobs whose prefix overlaps, so a submission takes the same time whatever the number of jobs.
#[derive(Debug)]
pub struct PrefixIndex<K> {
    /// By normalized prefix with a trailing slash, so that whatever is within a prefix follows it.
    keys: BTreeMap<String, BTreeSet<K>>,
}

impl<K> Default for PrefixIndex<K> {
    fn default() -> Self {
        let keys = BTreeMap::new();
        Self { keys }
    }
}

impl<K: Ord> PrefixIndex<K> {
    /// Adds a job. A job that has ended writes nothing, and is not added.
    pub fn insert(&mut self, job: &ObservedJob, key: K) {
        if let Some(prefix) = written(job) {
            self.keys.entry(prefix.folder()).or_default().insert(key);
        }
    }

    /// Removes a job, which must be in the state in which it was added.
    pub fn remove(&mut self, job: &ObservedJob, key: &K) {
        let Some(folder) = written(job).map(|prefix| prefix.folder()) else {
            return;
        };
        if let Some(keys) = self.keys.get_mut(&folder) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&folder);
            }
        }
    }

    /// The keys of the jobs whose prefix overlaps this one.
    pub fn overlapping(&self, prefix: &Prefix) -> impl Iterator<Item = &K> {
        let folder = prefix.folder();
        let ends = folder.match_indices('/').map(|(at, _)| at + 1);
        let outer = ends.filter(|end| *end < folder.len());
        let outer: Vec<_> = outer
            .filter_map(|end| self.keys.get(&folder[..end]))
            .collect();
        let inner = self.keys.range(folder.clone()..);
        let inner = inner.take_while(move |(within, _)| within.starts_with(&folder));
        outer
            .into_iter()
            .chain(inner.map(|(_, keys)| keys))
            .flatten()
    }
}

/// The prefix that a job writes to, unless it has ended.
fn written(job: &ObservedJob) -> Option<Prefix> {
    match job.status.has_ended() {
        true => None,
        false => Prefix::of(&job.metadata),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::keys::CHECKPOINT_PREFIX_ANNOTATION;

    fn job(prefix: &str, has_ended: bool) -> ObservedJob {
        let status = if has_ended { "True" } else { "False" };
        let job = json!({
            "metadata": {"annotations": {CHECKPOINT_PREFIX_ANNOTATION: prefix}},
            "spec": {"pytorchReplicaSpecs": {}},
            "status": {"conditions": [{"type": "Succeeded", "status": status}]},
        });
        serde_json::from_value(job).unwrap()
    }

    proptest! {
        #[test]
        fn a_search_finds_what_a_look_at_every_job_finds(
            jobs in proptest::collection::vec(
                ("(s3|abfs|abfss|file)://[a-b]?(/[a-b]{1,2}){0,3}/?", any::<bool>()), 0..40),
            removed in proptest::collection::vec(any::<bool>(), 40),
            wanted in "(s3|abfs|file)://[a-b]?(/[a-b]{1,2}){0,3}/?",
        ) {
            let jobs: Vec<_> = jobs.iter().map(|(prefix, ended)| job(prefix, *ended)).collect();
            let wanted = Prefix::new(&wanted);
            let mut index = PrefixIndex::default();
            for (number, job) in jobs.iter().enumerate() {
                index.insert(job, number);
            }
            for (number, job) in jobs.iter().enumerate().filter(|(n, _)| removed[*n]) {
                index.remove(job, &number);
            }
            let found: BTreeSet<usize> = index.overlapping(&wanted).copied().collect();
            let expected = jobs.iter().enumerate().filter(|(number, job)| {
                !removed[*number] && written(job).is_some_and(|prefix| prefix.overlaps(&wanted))
            });
            prop_assert_eq!(found, expected.map(|(number, _)| number).collect());
        }
    }
}
