//! Jobs and chance for the simulated machine.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::world::{Uid, World};
use crate::cluster::local::conditions::{self, Transition};
use crate::cluster::local::store::Record;
use crate::keys::CHECKPOINT_PREFIX_ANNOTATION;
use crate::pytorch_job::PyTorchJob;

pub fn uid_of(record: &Record) -> Uid {
    record.job.metadata.uid.clone().unwrap_or_default()
}

/// A job that was just created.
pub fn job(
    name: &str,
    uid: &str,
    prefix: &str,
    workers: usize,
    deadline: Option<Duration>,
) -> PyTorchJob {
    let replicas = |replicas: usize| {
        json!({
            "replicas": replicas,
            "restartPolicy": "OnFailure",
            "template": {"spec": {"containers": [], "terminationGracePeriodSeconds": 30}},
        })
    };
    let mut specs = json!({"Master": replicas(1)});
    if workers > 0 {
        specs["Worker"] = replicas(workers);
    }
    let mut manifest = json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid,
            "annotations": {CHECKPOINT_PREFIX_ANNOTATION: prefix},
        },
        "spec": {
            "nprocPerNode": "1",
            "runPolicy": {"backoffLimit": 3, "cleanPodPolicy": "Running"},
            "pytorchReplicaSpecs": specs,
        },
    });
    if let Some(deadline) = deadline {
        manifest["spec"]["runPolicy"]["activeDeadlineSeconds"] = json!(deadline.as_secs());
    }
    let mut job: PyTorchJob = serde_json::from_value(manifest).unwrap();
    conditions::apply(&mut job, &Transition::Created, Timestamp::UNIX_EPOCH);
    job
}

impl World {
    /// A number below a bound (xorshift).
    pub fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as usize
    }

    pub fn note(&mut self, what: String) {
        self.trace.push(what);
    }
}
