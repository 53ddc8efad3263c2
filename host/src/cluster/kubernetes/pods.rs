//! Converts pods and events for responses.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Event, Pod, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::owner::{is_trainer, replica, restarts};
use crate::job::{self, JobEvent, ObservedJob, PodDetails, Restart};

/// Why a pod waits or how it ended.
#[derive(Default)]
struct Cause {
    exit_code: Option<i32>,
    reason: Option<String>,
    message: Option<String>,
}

/// Converts a pod.
pub(super) fn details(pod: &Pod) -> PodDetails {
    let nothing = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&nothing);
    let container = trainer(status);
    let ended = container.and_then(ended);
    let Cause {
        exit_code,
        reason,
        message,
    } = cause(status);
    let hint = exit_code.and_then(|code| search_path(pod, code));
    let message = job::with_hint(message, hint);
    PodDetails {
        name: pod.metadata.name.clone().unwrap_or_default(),
        replica: replica(pod),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        phase: status
            .phase
            .clone()
            .unwrap_or_else(|| "Unknown".to_string()),
        restarts: restarts(pod, container),
        exit_code,
        reason,
        message,
        started_at: status.start_time.clone(),
        finished_at: ended.and_then(|ended| ended.finished_at.clone()),
        restarts_at: None,
    }
}

/// Why the programs of a pod may not be found.
fn search_path(pod: &Pod, code: i32) -> Option<String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut trainers = containers.filter(|container| is_trainer(&container.name));
    job::replaced_in(trainers.next()?.env.as_deref()?, code)
}

/// Whether another start of a pod's container may end otherwise than its last one.
pub(super) fn restart(pod: &Pod) -> Restart {
    let Some(status) = pod.status.as_ref().filter(|s| disrupted(s).is_none()) else {
        return Restart::MayHelp;
    };
    match trainer(status).and_then(ended) {
        Some(ended) if ended.exit_code != 0 => of_end(ended).restart,
        _ => Restart::MayHelp,
    }
}

/// The training container.
pub(super) fn trainer(status: &PodStatus) -> Option<&ContainerStatus> {
    let mut containers = status.container_statuses.iter().flatten();
    containers.find(|container| is_trainer(&container.name))
}

/// The latest termination of the container, possibly before a restart.
fn ended(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let states = [container.state.as_ref(), container.last_state.as_ref()];
    let mut states = states.into_iter().flatten();
    states.find_map(|state| state.terminated.as_ref())
}

/// The problem of a pod: first a disruption of the whole pod, then scheduling, then init
/// containers, then the training container.
fn cause(status: &PodStatus) -> Cause {
    disrupted(status)
        .or_else(|| unscheduled(status))
        .or_else(|| init_container_cause(status))
        .or_else(|| trainer(status).and_then(of_container))
        .unwrap_or_default()
}

/// A disruption: an eviction, a preemption, or the loss of the node. The containers only show the
/// signal that they received.
fn disrupted(status: &PodStatus) -> Option<Cause> {
    let mut conditions = status.conditions.iter().flatten();
    let target = conditions.find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    let by_condition = target.map(|target| (target.reason.clone(), target.message.clone()));
    // The kubelet's own reason is more specific, for example Evicted with the resource.
    let own = status.reason.clone();
    let (reason, message) = match own {
        Some(own) => (Some(own), status.message.clone()),
        None => by_condition?,
    };
    let ended = trainer(status).and_then(ended);
    Some(Cause {
        exit_code: ended.map(|ended| ended.exit_code),
        reason,
        message,
    })
}

fn unscheduled(status: &PodStatus) -> Option<Cause> {
    let mut conditions = status.conditions.iter().flatten();
    let condition = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(Cause {
        exit_code: None,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    })
}

/// An init container that waits or has failed. The operator's init container resolves the master,
/// so it runs until the master exists.
fn init_container_cause(status: &PodStatus) -> Option<Cause> {
    let mut containers = status.init_container_statuses.iter().flatten();
    containers.find_map(|container| {
        let cause = of_container(container).filter(|cause| cause.exit_code != Some(0))?;
        // While init containers run, the pod has no other information.
        if cause.reason.as_deref() == Some("PodInitializing") {
            return None;
        }
        let reason = cause.reason.unwrap_or_else(|| "Error".to_string());
        Some(Cause {
            reason: Some(format!("init container {}: {reason}", container.name)),
            ..cause
        })
    })
}

fn of_container(container: &ContainerStatus) -> Option<Cause> {
    let waiting = container.state.as_ref().and_then(waiting);
    let ended = ended(container).map(|ended| Cause {
        exit_code: Some(ended.exit_code),
        // The generic reason adds nothing to the exit code.
        reason: ended.reason.clone().filter(|reason| reason != "Completed"),
        message: ended.message.as_ref().and_then(|_| of_end(ended).message),
    });
    match (ended, waiting) {
        // The crash itself is more informative than "CrashLoopBackOff".
        (Some(ended), _) => Some(ended),
        (None, waiting) => waiting,
    }
}

/// Why a container ended: by the end of its log, or what it has written in its place.
fn of_end(ended: &ContainerStateTerminated) -> job::Cause {
    let log = ended.message.as_deref().unwrap_or_default();
    job::cause(log.as_bytes(), ended.exit_code)
}

fn waiting(state: &ContainerState) -> Option<Cause> {
    let waiting = state.waiting.as_ref()?;
    // A normal start is not a cause.
    let reason = waiting.reason.clone()?;
    if matches!(reason.as_str(), "ContainerCreating" | "PodInitializing") {
        return None;
    }
    Some(Cause {
        exit_code: None,
        reason: Some(reason),
        message: waiting.message.clone(),
    })
}

/// Whether an event is about exactly this job or one of its pods. Pods that are gone are matched by
/// name, and events from before the job's creation belong to an earlier job.
pub(super) fn is_about(event: &Event, job: &ObservedJob, pods: &[Pod]) -> bool {
    let object = &event.involved_object;
    let mut there = pods.iter().map(|pod| &pod.metadata);
    let uid = match object.kind.as_deref() {
        Some(kind) if kind == job.kind.name() => job.metadata.uid.as_ref(),
        Some("Pod") => there
            .find(|pod| pod.name == object.name)
            .and_then(|pod| pod.uid.as_ref()),
        _ => None,
    };
    match (uid, &object.uid) {
        (Some(uid), Some(of_event)) => uid == of_event,
        _ => time(event) >= job.metadata.creation_timestamp,
    }
}

/// The time of the latest occurrence of an event.
fn time(event: &Event) -> Option<Time> {
    let micro = event.event_time.clone().map(|MicroTime(time)| Time(time));
    let times = [
        event.last_timestamp.clone(),
        micro,
        event.first_timestamp.clone(),
    ];
    times.into_iter().flatten().next()
}

/// Converts an event.
pub(super) fn event(event: Event) -> JobEvent {
    let time = time(&event);
    let object = event.involved_object;
    JobEvent {
        time,
        event_type: event.type_.unwrap_or_else(|| "Normal".to_string()),
        reason: event.reason.unwrap_or_default(),
        message: event.message.unwrap_or_default(),
        object: format!(
            "{}/{}",
            object.kind.unwrap_or_default(),
            object.name.unwrap_or_default()
        ),
        count: event.count.unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> PodDetails {
        details(
            &serde_json::from_value(json!({
                "metadata": {"name": "run-worker-1", "labels": {
                    "training.kubeflow.org/replica-type": "worker",
                    "training.kubeflow.org/replica-index": "1",
                }},
                "status": status,
            }))
            .unwrap(),
        )
    }

    fn reported(status: Value) -> (Option<i32>, Option<String>) {
        let pod = pod(status);
        (pod.exit_code, pod.reason)
    }

    #[test]
    fn a_pod_without_a_place_says_why() {
        let pod = pod(json!({"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        }]}));
        assert_eq!(pod.replica, "worker-1");
        assert_eq!(pod.reason.as_deref(), Some("Unschedulable"));
        assert!(pod.message.unwrap().starts_with("0/1 nodes"));
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_told() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}});
        let status = json!({"phase": "Pending", "containerStatuses": [container(&waiting)]});
        assert_eq!(
            reported(status),
            (None, Some("ImagePullBackOff".to_string()))
        );
    }

    fn container(state: &Value) -> Value {
        json!({
            "name": "pytorch", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
            "state": state,
        })
    }

    #[test]
    fn a_container_that_is_started_again_keeps_the_cause_of_its_last_end() {
        let mut crashed = container(&json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        crashed["lastState"] = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let pod = pod(json!({"phase": "Running", "containerStatuses": [crashed]}));
        assert_eq!(pod.restarts, 3);
        assert_eq!(
            (pod.exit_code, pod.reason.as_deref()),
            (Some(137), Some("OOMKilled"))
        );
    }

    #[test]
    fn a_failed_init_container_is_named() {
        let mut init = container(&json!({"terminated": {"exitCode": 1, "reason": "Error"}}));
        init["name"] = json!("init-pytorch");
        let waits = container(&json!({"waiting": {"reason": "PodInitializing"}}));
        let status = json!({
            "phase": "Pending",
            "initContainerStatuses": [init],
            "containerStatuses": [waits],
        });
        let reason = "init container init-pytorch: Error".to_string();
        assert_eq!(reported(status), (Some(1), Some(reason)));
    }

    #[test]
    fn an_eviction_a_preemption_and_a_lost_node_are_told_before_the_signal_of_the_container() {
        let killed = container(&json!({"terminated": {"exitCode": 137, "reason": "Error"}}));
        let evicted = json!({
            "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
            "containerStatuses": [killed],
            "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
            }],
        });
        assert_eq!(reported(evicted), (Some(137), Some("Evicted".to_string())));
        for reason in [
            "PreemptionByScheduler",
            "DeletionByTaintManager",
            "EvictionByEvictionAPI",
        ] {
            let status = json!({
                "phase": "Running",
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "DisruptionTarget", "status": "True", "reason": reason},
                ],
            });
            assert_eq!(reported(status), (None, Some(reason.to_string())));
        }
        let lost = json!({"phase": "Unknown", "reason": "NodeLost"});
        assert_eq!(reported(lost), (None, Some("NodeLost".to_string())));
        let spared = json!({"phase": "Running", "conditions": [
            {"type": "DisruptionTarget", "status": "False", "reason": "PreemptionByScheduler"},
        ]});
        assert_eq!(reported(spared), (None, None));
    }

    #[test]
    fn a_pod_that_is_well_has_no_cause() {
        let running = container(&json!({"running": {}}));
        let status = json!({"phase": "Running", "containerStatuses": [running]});
        assert_eq!(reported(status), (None, None));
        let done = container(&json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
        let status = json!({"phase": "Succeeded", "containerStatuses": [done]});
        assert_eq!(reported(status), (Some(0), None));
    }
}
