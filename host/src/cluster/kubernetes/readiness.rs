//! What the readiness check reports about kinds of jobs and their runtimes.

use serde_json::Value;

use super::KubernetesCluster;
use crate::cluster::ClusterError;
use crate::job::ObservedJob;
use crate::job_kind::JobKind;

impl KubernetesCluster {
    /// What `/readyz` says about kinds and runtimes.
    pub(super) async fn kinds_and_runtimes(&self) -> Result<String, ClusterError> {
        let Some(created) = self.kinds.created() else {
            return Ok("reachable".to_string());
        };
        let read = self.kinds.read();
        let read: Vec<&str> = read.iter().map(|kind| kind.name()).collect();
        let kinds = format!(
            "creates {}s, reads {}s",
            created.name(),
            read.join("s and ")
        );
        if created != JobKind::TrainJob {
            return Ok(format!("reachable; {kinds}"));
        }
        let runtimes = self.runtimes.iter();
        let there = runtimes.map(|name| async move { (name, self.calls.has_runtime(name).await) });
        let there = futures_util::future::join_all(there).await;
        let missing = there.iter().filter(|(_, found)| matches!(found, Ok(false)));
        let missing: Vec<&str> = missing.map(|(name, _)| name.as_str()).collect();
        let unread = there.iter().any(|(_, found)| found.is_err());
        let runtimes = match (missing.as_slice(), unread) {
            ([], false) => format!("all {} runtimes exist", there.len()),
            ([], true) => "the runtimes cannot be read".to_string(),
            (missing, _) if missing.len() == there.len() => {
                let runtime = missing.join(", ");
                return Err(ClusterError::NoRuntime { runtime });
            }
            (missing, _) => format!("missing runtimes: {}", missing.join(", ")),
        };
        Ok(format!("reachable; {kinds}; {runtimes}"))
    }

    /// The error if the runtime of a TrainJob is gone: without it, Kubeflow refuses every change of the
    /// job with the same status as other refusals.
    pub(super) async fn lost_runtime(&self, job: &ObservedJob) -> Option<ClusterError> {
        if job.kind != JobKind::TrainJob {
            return None;
        }
        let manifest: Value = self.live(job.namespace(), job.name()).await.ok()?;
        let reference = &manifest["spec"]["runtimeRef"];
        let runtime = reference["name"].as_str()?.to_string();
        match self.calls.has_runtime(&runtime).await {
            Ok(false) => Some(ClusterError::NoRuntime { runtime }),
            Ok(true) | Err(_) => None,
        }
    }
}
