//! How many jobs the local cluster keeps, and how large they may be together: each is on disk and in
//! memory until somebody deletes it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cluster::ClusterError;

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most jobs, whether they have ended or not.
    pub jobs: usize,
    /// Most bytes of all their manifests.
    pub manifest_bytes: u64,
    /// Most bytes on disk of each log. Its beginning is dropped.
    pub log_bytes: u64,
    /// Bytes on disk of all logs, above which no job is taken.
    pub all_logs_bytes: u64,
}

/// The jobs that are kept, and the limits for them.
#[derive(Debug)]
pub struct Quota {
    limits: Limits,
    kept: Mutex<Kept>,
}

/// The jobs that are kept.
#[derive(Debug)]
struct Kept {
    /// The sizes of their manifests, by key.
    sizes: BTreeMap<String, u64>,
    /// The sum of the sizes.
    bytes: u64,
}

impl Quota {
    /// The limits, and the sizes of the manifests that are kept, by key.
    pub fn new(limits: Limits, sizes: BTreeMap<String, u64>) -> Self {
        let bytes = sizes.values().sum();
        let kept = Mutex::new(Kept { sizes, bytes });
        Self { limits, kept }
    }

    /// Counts a job for as long as the result lives, or until [`Quota::remove`] once it is kept. A
    /// name that is counted already is another's, whose count stays.
    ///
    /// # Errors
    ///
    /// Which limit it would exceed.
    pub fn add(&self, key: &str, bytes: u64) -> Result<Counted<'_>, ClusterError> {
        let mut kept = self.kept();
        kept.check(self.limits, bytes)?;
        let is_new = kept.add(key, bytes);
        Ok(Counted {
            quota: self,
            key: is_new.then(|| key.to_string()),
        })
    }

    /// Whether a job could be added.
    ///
    /// # Errors
    ///
    /// Which limit it would exceed.
    pub fn check(&self, bytes: u64) -> Result<(), ClusterError> {
        self.kept().check(self.limits, bytes)
    }

    pub fn remove(&self, key: &str) {
        self.kept().remove(key);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job that is counted and not kept yet.
#[derive(Debug)]
pub struct Counted<'a> {
    quota: &'a Quota,
    key: Option<String>,
}

impl Counted<'_> {
    /// Says that the job is kept.
    pub fn keep(mut self) {
        self.key = None;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.quota.remove(key);
        }
    }
}

impl Kept {
    /// Whether a job of this size could be added.
    fn check(&self, limits: Limits, bytes: u64) -> Result<(), ClusterError> {
        let (jobs, held) = (self.sizes.len(), self.bytes);
        let message = if jobs >= limits.jobs {
            format!(
                "{jobs} jobs are kept, the most that TRAINER_LOCAL_MAX_JOBS allows. Delete jobs that have ended"
            )
        } else if held + bytes > limits.manifest_bytes {
            format!(
                "its manifest has {bytes} bytes and those of the jobs that are kept have {held}; \
                 TRAINER_LOCAL_MAX_MANIFEST_MB allows {} together. Delete jobs that have ended",
                limits.manifest_bytes
            )
        } else {
            return Ok(());
        };
        Err(ClusterError::Refused { message })
    }

    /// Adds a job. False if its name is there already, whose size stays.
    fn add(&mut self, key: &str, bytes: u64) -> bool {
        if self.sizes.contains_key(key) {
            return false;
        }
        self.sizes.insert(key.to_string(), bytes);
        self.bytes += bytes;
        true
    }

    fn remove(&mut self, key: &str) {
        self.bytes -= self.sizes.remove(key).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        jobs: 2,
        manifest_bytes: 100,
        log_bytes: 0,
        all_logs_bytes: 0,
    };

    fn refusal(quota: &Quota, bytes: u64) -> String {
        quota.check(bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_job_is_refused_with_the_limit_and_the_way_out() {
        let quota = Quota::new(LIMITS, BTreeMap::new());
        quota.add("default/a", 60).unwrap().keep();
        assert!(refusal(&quota, 41).contains("TRAINER_LOCAL_MAX_MANIFEST_MB allows 100 together"));
        quota.add("default/b", 40).unwrap().keep();
        assert!(refusal(&quota, 0).contains("2 jobs are kept"));
        quota.remove("default/a");
        // One that could not be stored is not counted.
        drop(quota.add("default/c", 60).unwrap());
        quota.add("default/d", 60).unwrap().keep();
    }
}
