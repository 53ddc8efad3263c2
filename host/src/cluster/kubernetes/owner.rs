//! Which job and which replica a pod belongs to, for both kinds of jobs.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::job::ObservedJob;
use crate::job_kind::JobKind;
use crate::keys::{CONTAINER, NODE, SUBMISSION_ANNOTATION};

/// The training operator's labels of a pod (kubeflow/trainer v1.9.4,
/// pkg/apis/kubeflow.org/v1/common_types.go).
const JOB_NAME_LABEL: &str = "training.kubeflow.org/job-name";
const REPLICA_TYPE_LABEL: &str = "training.kubeflow.org/replica-type";
const REPLICA_INDEX_LABEL: &str = "training.kubeflow.org/replica-index";
/// The labels of a pod of a TrainJob, from JobSet (kubernetes-sigs/jobset v0.12.0,
/// api/jobset/v1alpha2/jobset_types.go) and the Job controller. The JobSet has the name of the
/// TrainJob.
const JOB_SET_NAME_LABEL: &str = "jobset.sigs.k8s.io/jobset-name";
const REPLICATED_JOB_LABEL: &str = "jobset.sigs.k8s.io/replicatedjob-name";
const RESTART_LABEL: &str = "jobset.sigs.k8s.io/restart-attempt";
const RANK_LABEL: &str = "batch.kubernetes.io/job-completion-index";

fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let labels = pod.metadata.labels.as_ref()?;
    labels.get(key).map(String::as_str)
}

/// The name of the replica in this API, which is the same for both kinds of jobs.
pub(super) fn replica(pod: &Pod) -> String {
    let rank = label(pod, RANK_LABEL).filter(|_| kind(pod) == JobKind::TrainJob);
    match rank.and_then(|rank| rank.parse::<u32>().ok()) {
        Some(0) => "master-0".to_string(),
        Some(rank) => format!("worker-{}", rank - 1),
        None => format!(
            "{}-{}",
            label(pod, REPLICA_TYPE_LABEL).unwrap_or_default(),
            label(pod, REPLICA_INDEX_LABEL).unwrap_or_default()
        ),
    }
}

/// Whether a pod has rank 0.
pub(super) fn is_master(pod: &Pod) -> bool {
    rank(&replica(pod)) == 0
}

/// The rank of a replica in its job.
fn rank(replica: &str) -> u32 {
    match replica.rsplit_once('-') {
        Some(("worker", index)) => index.parse().unwrap_or(0) + 1,
        _ => 0,
    }
}

/// How often a replica was started again: its container, or the whole job.
pub(super) fn restarts(pod: &Pod, container: Option<&ContainerStatus>) -> u32 {
    let of_container = container.map_or(0, |container| container.restart_count);
    let of_job = label(pod, RESTART_LABEL).and_then(|times| times.parse::<u32>().ok());
    u32::try_from(of_container).unwrap_or(0) + of_job.unwrap_or(0)
}

/// The kind of job that a pod belongs to.
fn kind(pod: &Pod) -> JobKind {
    match label(pod, JOB_SET_NAME_LABEL) {
        Some(_) => JobKind::TrainJob,
        None => JobKind::PyTorchJob,
    }
}

/// The job that a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Controller {
    pub(super) kind: JobKind,
    pub(super) namespace: String,
    pub(super) name: String,
    /// See [`ObservedJob::id_of_pods`]. The name is not sufficient: pods of a deleted job exist until
    /// the end of their grace period, when another job may already have the same name.
    pub(super) id: String,
}

impl Controller {
    pub(super) fn of(job: &ObservedJob) -> Self {
        Self {
            kind: job.kind,
            namespace: job.namespace().to_string(),
            name: job.name().to_string(),
            id: job.id_of_pods().to_string(),
        }
    }
}

/// The job of a pod.
pub(super) fn job(pod: &Pod) -> Option<Controller> {
    let kind = kind(pod);
    let (name, id) = match kind {
        JobKind::PyTorchJob => {
            let mut owners = pod.metadata.owner_references.iter().flatten();
            let is_job = |kind: &str| kind == JobKind::PyTorchJob.name();
            let owner = owners.find(|o| o.controller == Some(true) && is_job(&o.kind))?;
            (owner.name.as_str(), owner.uid.as_str())
        }
        JobKind::TrainJob => {
            let annotations = pod.metadata.annotations.as_ref();
            let id = annotations.and_then(|all| all.get(SUBMISSION_ANNOTATION));
            let name = label(pod, JOB_SET_NAME_LABEL)?;
            (name, id.map_or("", String::as_str))
        }
    };
    Some(Controller {
        kind,
        namespace: pod.metadata.namespace.clone()?,
        name: name.to_string(),
        id: id.to_string(),
    })
}

/// Whether a pod belongs to this job.
pub(super) fn belongs_to(pod: &Pod, controller: &Controller) -> bool {
    job(pod).is_some_and(|job| job == *controller)
}

/// When the master of a TrainJob started, if this is its pod and it runs.
pub(super) fn master(pod: &Pod) -> Option<MasterPod> {
    let is_master = kind(pod) == JobKind::TrainJob && label(pod, RANK_LABEL) == Some("0");
    let status = pod.status.as_ref().filter(|_| is_master)?;
    let runs = status.phase.as_deref() == Some("Running");
    let is_leaving = pod.metadata.deletion_timestamp.is_some();
    Some(match runs && !is_leaving {
        true => MasterPod::Running(status.start_time.clone()),
        false => MasterPod::NotRunning,
    })
}

/// The pod of a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MasterPod {
    /// Since this time.
    Running(Option<Time>),
    NotRunning,
}

/// Selects the pods of a job.
pub(super) fn selector(job: &Controller) -> String {
    match job.kind {
        JobKind::PyTorchJob => format!("{JOB_NAME_LABEL}={}", job.name),
        JobKind::TrainJob => {
            format!(
                "{JOB_SET_NAME_LABEL}={},{REPLICATED_JOB_LABEL}={NODE}",
                job.name
            )
        }
    }
}

/// Selects the pods of a replica, such as `master-0`.
pub(super) fn replica_selector(job: &Controller, replica: &str) -> String {
    let of_job = selector(job);
    match job.kind {
        JobKind::PyTorchJob => {
            let (kind, index) = replica.rsplit_once('-').unwrap_or((replica, "0"));
            format!("{of_job},{REPLICA_TYPE_LABEL}={kind},{REPLICA_INDEX_LABEL}={index}")
        }
        JobKind::TrainJob => format!("{of_job},{RANK_LABEL}={}", rank(replica)),
    }
}

/// The objects whose events explain a job, by kind and name.
pub(super) fn objects(job: &ObservedJob) -> Vec<(&'static str, String)> {
    let name = job.name().to_string();
    match job.kind {
        JobKind::PyTorchJob => vec![(job.kind.name(), name)],
        JobKind::TrainJob => {
            let of_job_set = format!("{name}-{NODE}-0");
            vec![
                (job.kind.name(), name.clone()),
                ("JobSet", name),
                ("Job", of_job_set),
            ]
        }
    }
}

/// The name of the training container.
pub(super) fn container_name(kind: JobKind) -> &'static str {
    match kind {
        JobKind::PyTorchJob => CONTAINER,
        JobKind::TrainJob => NODE,
    }
}

pub(super) fn is_trainer(container: &str) -> bool {
    [CONTAINER, NODE].contains(&container)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(rank: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("run-node-0-{rank}-x7k2p"),
                "namespace": "a",
                "labels": {
                    "jobset.sigs.k8s.io/jobset-name": "run",
                    "jobset.sigs.k8s.io/restart-attempt": "2",
                    "batch.kubernetes.io/job-completion-index": rank,
                },
                "annotations": {"trainer.deepfinery/submission": "s1"},
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "Job", "name": "run-node-0", "uid": "j",
                    "controller": true,
                }],
            },
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn the_pods_of_a_train_job_are_its_master_and_its_workers() {
        assert_eq!(replica(&pod("0", "Running")), "master-0");
        assert_eq!(replica(&pod("3", "Running")), "worker-2");
        assert_eq!(restarts(&pod("0", "Running"), None), 2);
        for (name, of) in [("master-0", 0), ("worker-0", 1), ("worker-12", 13)] {
            assert_eq!(rank(name), of);
        }
    }

    #[test]
    fn a_pod_of_a_train_job_belongs_to_the_submission_that_created_it() {
        let pod = pod("1", "Running");
        let mut job = job(&pod).unwrap();
        assert_eq!((job.kind, job.name.as_str()), (JobKind::TrainJob, "run"));
        assert!(belongs_to(&pod, &job));
        job.id = "s2".to_string();
        assert!(!belongs_to(&pod, &job));
    }

    #[test]
    fn only_the_running_pod_of_rank_0_is_a_running_master() {
        assert_eq!(master(&pod("0", "Running")), Some(MasterPod::Running(None)));
        assert_eq!(master(&pod("0", "Pending")), Some(MasterPod::NotRunning));
        assert_eq!(master(&pod("1", "Running")), None);
    }

    #[test]
    fn a_pod_belongs_to_the_job_that_controls_it_and_not_to_its_namesake() {
        let owner = |uid: &str, controller: bool| {
            json!({
                "apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "run", "uid": uid,
                "controller": controller,
            })
        };
        let pod = |owners: Value| -> Pod {
            serde_json::from_value(json!({"metadata": {
                "name": "run-master-0", "namespace": "team-a",
                "labels": {"training.kubeflow.org/job-name": "run"},
                "ownerReferences": owners,
            }}))
            .unwrap()
        };
        let of = |uid: &str| Controller {
            kind: JobKind::PyTorchJob,
            namespace: "team-a".to_string(),
            name: "run".to_string(),
            id: uid.to_string(),
        };
        let old = pod(json!([owner("old", true)]));
        assert!(belongs_to(&old, &of("old")));
        assert!(!belongs_to(&old, &of("new")));
        assert!(!belongs_to(&pod(json!([owner("new", false)])), &of("new")));
        assert!(!belongs_to(&pod(json!([])), &of("new")));
    }
}
