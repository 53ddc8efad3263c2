//! The status of a local job, moved as the training operator moves it: the same conditions with
//! the same reasons and messages.
//!
//! Source: kubeflow/trainer v1.9.4, pkg/util/status.go and
//! pkg/controller.v1/pytorch/pytorchjob_controller.go.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pytorch_job::{Condition, ConditionType, PyTorchJob, PyTorchJobStatus};

/// What happens to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    Created,
    Running,
    /// The machine or the service went down under it.
    Restarting,
    Suspended,
    Resumed,
    Succeeded,
    Failed {
        reason: String,
    },
}

/// Moves the status of a job.
pub fn apply(job: &mut PyTorchJob, transition: &Transition, now: Timestamp) {
    let name = job.name().to_string();
    let status = job.status.get_or_insert_default();
    let now = Time(now);
    match transition {
        Transition::Created => {
            let message = format!("PyTorchJob {name} is created.");
            set(status, ConditionType::Created, message, &now);
        }
        Transition::Running => {
            status.start_time.get_or_insert_with(|| now.clone());
            remove(status, ConditionType::Restarting);
            let message = format!("PyTorchJob {name} is running.");
            set(status, ConditionType::Running, message, &now);
        }
        Transition::Restarting => {
            remove(status, ConditionType::Running);
            let message =
                format!("PyTorchJob {name} is restarting because the service was restarted.");
            set(status, ConditionType::Restarting, message, &now);
        }
        Transition::Suspended => {
            stop_running(status, "PyTorchJobSuspended", &now);
            remove(status, ConditionType::Restarting);
            status.start_time = None;
            let message = format!("PyTorchJob {name} is suspended.");
            set(status, ConditionType::Suspended, message, &now);
        }
        Transition::Resumed => {
            let mut conditions = status.conditions.iter_mut();
            let suspended = |c: &&mut Condition| c.condition_type == ConditionType::Suspended;
            if let Some(condition) = conditions.find(suspended) {
                condition.status = "False".to_string();
                condition.reason = "PyTorchJobResumed".to_string();
                condition.message = format!("PyTorchJob {name} is resumed.");
                condition.last_update_time = Some(now.clone());
                condition.last_transition_time = Some(now);
            }
        }
        Transition::Succeeded => {
            let message = format!("PyTorchJob {name} is successfully completed.");
            end(status, ConditionType::Succeeded, message, &now);
        }
        Transition::Failed { reason } => {
            let message = format!("PyTorchJob {name} has failed because {reason}");
            end(status, ConditionType::Failed, message, &now);
        }
    }
}

/// Says what a job that runs is doing: that it runs, or what one of its replicas waits for.
pub fn describe_running(job: &mut PyTorchJob, waiting: Option<String>) {
    let name = job.name().to_string();
    let status = job.status.iter_mut().flat_map(|s| &mut s.conditions);
    let mut running =
        status.filter(|c| c.condition_type == ConditionType::Running && c.status == "True");
    if let Some(running) = running.next() {
        running.message = match waiting {
            Some(waiting) => format!("PyTorchJob {name} waits: {waiting}"),
            None => format!("PyTorchJob {name} is running."),
        };
    }
}

fn end(status: &mut PyTorchJobStatus, condition: ConditionType, message: String, now: &Time) {
    stop_running(status, "PyTorchJobRunning", now);
    remove(status, ConditionType::Restarting);
    set(status, condition, message, now);
    status.completion_time = Some(now.clone());
}

fn stop_running(status: &mut PyTorchJobStatus, reason: &str, now: &Time) {
    for running in &mut status.conditions {
        if running.condition_type == ConditionType::Running {
            running.status = "False".to_string();
            running.reason = reason.to_string();
            running.last_transition_time = Some(now.clone());
        }
    }
}

fn set(status: &mut PyTorchJobStatus, condition: ConditionType, message: String, now: &Time) {
    if status.is_true(condition).is_some() {
        return;
    }
    remove(status, condition);
    status.conditions.push(Condition {
        condition_type: condition,
        status: "True".to_string(),
        reason: format!("PyTorchJob{condition:?}"),
        message,
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    });
}

fn remove(status: &mut PyTorchJobStatus, condition: ConditionType) {
    status.conditions.retain(|c| c.condition_type != condition);
}
