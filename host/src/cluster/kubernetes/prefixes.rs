//! The writers of checkpoint prefixes: jobs that the watch has reported, jobs that this service is
//! creating, and jobs that it has created and that the watch has not reported yet.
//!
//! The last ones are apart from the jobs of the watch: nothing keeps their status current, so they answer
//! no read. Between two services, and two clusters, the lease that `train.py` takes decides.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::Cache;
use crate::cluster::{ClusterError, WritingJob};
use crate::job::{ObservedJob, Prefix};
use crate::pytorch_job::PyTorchJob;

/// The jobs that this service creates.
#[derive(Clone, Default)]
pub(super) struct Creations(Arc<Mutex<Vec<Writer>>>);

/// A job of this service that writes to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Writer {
    job: WritingJob,
    prefix: Prefix,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// By the call of this number.
    BeingCreated(u64),
    Created(Recent),
}

/// A job that was created, by its uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) job: WritingJob,
    pub(super) uid: String,
}

/// Why a creation cannot begin.
#[derive(Debug)]
pub(super) enum NotBegun {
    Taken(ClusterError),
    /// Unless this job has ended since: only the API server knows.
    TakenBy(Box<Recent>, ClusterError),
}

/// A creation in progress, until it is dropped.
pub(super) struct Creation {
    all: Creations,
    /// Nothing of a job without a prefix.
    number: Option<u64>,
}

impl Creations {
    /// Starts a creation, unless another job writes to the prefix.
    pub(super) fn begin(&self, job: &PyTorchJob, cache: &Cache) -> Result<Creation, NotBegun> {
        let mut writers = self.writers();
        writers.retain(|writer| !writer.is_known_to(cache));
        let all = self.clone();
        let Some(prefix) = Prefix::of(&job.metadata) else {
            return Ok(Creation { all, number: None });
        };
        let job = WritingJob::new(job.namespace(), job.name());
        let others = writers.iter().filter(|writer| writer.job != job);
        let mut writing = others.filter(|writer| writer.prefix.overlaps(&prefix));
        if let Some(writer) = writing.next() {
            let taken = ClusterError::prefix_taken(&prefix, writer.job.clone());
            return Err(match &writer.stage {
                Stage::BeingCreated(_) => NotBegun::Taken(taken),
                Stage::Created(recent) => NotBegun::TakenBy(Box::new(recent.clone()), taken),
            });
        }
        if let Some(writer) = cache.writer(&prefix, &job.namespace, &job.name) {
            let writer = WritingJob::from(&*writer);
            return Err(NotBegun::Taken(ClusterError::prefix_taken(&prefix, writer)));
        }
        let numbers = writers.iter().filter_map(Writer::number);
        let number = numbers.max().map_or(0, |last| last + 1);
        let stage = Stage::BeingCreated(number);
        writers.push(Writer { job, prefix, stage });
        let number = Some(number);
        Ok(Creation { all, number })
    }

    /// Forgets a job that was deleted or has ended.
    pub(super) fn forget(&self, job: &WritingJob) {
        let is_it = |stage: &Stage| matches!(stage, Stage::Created(recent) if recent.job == *job);
        self.writers().retain(|writer| !is_it(&writer.stage));
    }

    fn writers(&self) -> MutexGuard<'_, Vec<Writer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn number(&self) -> Option<u64> {
        match self.stage {
            Stage::BeingCreated(number) => Some(number),
            Stage::Created(_) => None,
        }
    }

    fn is_of(&self, creation: &Creation) -> bool {
        self.number().is_some() && self.number() == creation.number
    }

    /// Whether the watch has reported it, and keeps its status current.
    fn is_known_to(&self, cache: &Cache) -> bool {
        let Stage::Created(recent) = &self.stage else {
            return false;
        };
        let known = cache.get(&recent.job.namespace, &recent.job.name);
        known.is_some_and(|known| known.metadata.uid.as_ref() == Some(&recent.uid))
    }
}

impl Creation {
    /// The job exists: it writes to its prefix until the watch reports its end.
    pub(super) fn created(&self, job: &ObservedJob) {
        let recent = Recent {
            job: WritingJob::from(job),
            uid: job.metadata.uid.clone().unwrap_or_default(),
        };
        // One of this name that was deleted elsewhere is gone by now.
        self.all.forget(&recent.job);
        let mut writers = self.all.writers();
        let mut writers = writers.iter_mut();
        let of_this = writers.find(|writer| writer.is_of(self));
        if let Some(writer) = of_this {
            writer.stage = Stage::Created(recent);
        }
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        let mut writers = self.all.writers();
        writers.retain(|writer| !writer.is_of(self));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, prefix: &str) -> PyTorchJob {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {
                "name": name,
                "namespace": "team-a",
                "annotations": {"trainer.deepfinery/checkpoint-prefix": prefix},
            },
            "spec": {
                "nprocPerNode": "1",
                "runPolicy": {"cleanPodPolicy": "Running", "backoffLimit": 3},
                "pytorchReplicaSpecs": {
                    "Master": {"replicas": 1, "restartPolicy": "OnFailure", "template": {}},
                },
            },
        }))
        .unwrap()
    }

    fn begin(
        all: &Creations,
        cache: &Cache,
        name: &str,
        prefix: &str,
    ) -> Result<Creation, NotBegun> {
        all.begin(&job(name, prefix), cache)
    }

    fn created(name: &str, prefix: &str) -> ObservedJob {
        let mut job = ObservedJob::from(&job(name, prefix));
        job.metadata.uid = Some(format!("uid-of-{name}"));
        job
    }

    #[test]
    fn a_prefix_is_taken_while_a_job_is_created_and_after_that_until_the_watch_tells_of_it() {
        let (all, cache) = (Creations::default(), Cache::default());
        let prefix = "s3://b/x/framework=hf";
        let first = begin(&all, &cache, "one", prefix).unwrap_or_else(|_| panic!("it is free"));
        let NotBegun::Taken(message) = begin(&all, &cache, "two", "s3://b/x/framework=hf/")
            .map(drop)
            .unwrap_err()
        else {
            panic!("it is being created");
        };
        let message = message.to_string();
        assert!(
            message.contains("by job one in namespace team-a"),
            "{message}"
        );
        assert!(begin(&all, &cache, "two", "s3://b/y/framework=hf").is_ok());
        // A job does not stand in its own way: that its name is taken says more.
        assert!(begin(&all, &cache, "one", prefix).is_ok());
        let one = created("one", prefix);
        first.created(&one);
        drop(first);
        let recent = begin(&all, &cache, "two", prefix).map(drop).unwrap_err();
        let NotBegun::TakenBy(recent, _) = recent else {
            panic!("it was created");
        };
        assert_eq!(recent.uid, "uid-of-one");
        assert!(cache.named("one").is_empty(), "a read asks the API server");
        cache.store(one.clone());
        let known = begin(&all, &cache, "two", prefix).map(drop).unwrap_err();
        assert!(matches!(known, NotBegun::Taken(_)));
        cache.forget(&one);
        assert!(begin(&all, &cache, "two", prefix).is_ok());
    }

    #[test]
    fn a_job_that_is_gone_before_the_watch_tells_of_it_leaves_its_prefix() {
        let (all, cache) = (Creations::default(), Cache::default());
        let prefix = "s3://b/x/framework=hf";
        for name in ["one", "two"] {
            let creation = begin(&all, &cache, name, prefix).unwrap_or_else(|_| panic!("{name}"));
            creation.created(&created(name, prefix));
            drop(creation);
            assert!(begin(&all, &cache, "three", prefix).is_err());
            all.forget(&WritingJob::new("team-a", name));
        }
    }

    #[test]
    fn a_creation_that_failed_leaves_its_prefix() {
        let (all, cache) = (Creations::default(), Cache::default());
        let prefix = "s3://b/x/framework=hf";
        drop(begin(&all, &cache, "one", prefix));
        assert!(begin(&all, &cache, "two", prefix).is_ok());
    }
}
