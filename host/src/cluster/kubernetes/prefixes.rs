//! Who writes to which checkpoint prefix: jobs that are there, and those that are being created here.
//!
//! A service knows its own creations at once, and those of others as soon as its watch tells of
//! them. Between two services, and two clusters, the lease that `train.py` takes decides.

use std::sync::{Arc, Mutex, PoisonError};

use super::cache::Cache;
use crate::cluster::ClusterError;
use crate::job::{ObservedJob, Prefix};
use crate::pytorch_job::PyTorchJob;

/// The jobs that are being created.
#[derive(Clone, Default)]
pub(super) struct Creations(Arc<Mutex<Vec<Arc<ObservedJob>>>>);

/// A creation, until it is dropped.
pub(super) struct Creation {
    all: Creations,
    job: Arc<ObservedJob>,
}

impl Creations {
    /// Begins a creation, unless another job writes to its prefix.
    pub(super) fn begin(&self, job: &PyTorchJob, cache: &Cache) -> Result<Creation, ClusterError> {
        let job = Arc::new(ObservedJob::from(job));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prefix) = Prefix::of(&job) {
            let (namespace, name) = (job.namespace(), job.name());
            let created = all
                .iter()
                .find(|other| prefix.is_taken_by(other, namespace, name));
            let writer = created.cloned();
            let writer = writer.or_else(|| cache.writer(&prefix, namespace, name));
            if let Some(writer) = writer {
                return Err(ClusterError::prefix_taken(&prefix, &writer));
            }
        }
        all.push(job.clone());
        Ok(Creation {
            all: self.clone(),
            job,
        })
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|job| !Arc::ptr_eq(job, &self.job));
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

    #[test]
    fn a_prefix_is_taken_while_a_job_is_created_and_when_it_is_there() {
        let (creations, cache) = (Creations::default(), Cache::default());
        let begin = |name: &str, prefix: &str| creations.begin(&job(name, prefix), &cache);
        let first = begin("one", "s3://b/x/framework=hf").map_err(|e| e.to_string());
        let first = first.unwrap();
        let told = begin("two", "s3://b/x/framework=hf/")
            .map(drop)
            .unwrap_err();
        assert!(
            told.to_string().contains("by job one in namespace team-a"),
            "{told}"
        );
        assert!(begin("two", "s3://b/y/framework=hf").is_ok());
        // A job does not stand in its own way: that its name is taken says more.
        assert!(begin("one", "s3://b/x/framework=hf").is_ok());
        cache.add(&first.job);
        drop(first);
        assert!(begin("two", "s3://b/x/framework=hf").is_err());
        cache.forget(&ObservedJob::from(&job("one", "")));
        assert!(begin("two", "s3://b/x/framework=hf").is_ok());
    }
}
