//! A Kueue Workload: the members of a job's place in a queue that are read.
//!
//! Source: kubernetes-sigs/kueue v0.19.2, apis/kueue/v1beta2/workload_types.go.

use std::cmp::Reverse;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use super::capacity::PodSet;

/// What Kueue keeps about a job, which owns it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Workload {
    pub metadata: WorkloadMetadata,
    pub(super) spec: WorkloadSpec,
    pub(super) status: WorkloadStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadMetadata {
    pub name: String,
    pub(super) creation_timestamp: Option<Time>,
    owner_references: Vec<Owner>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Owner {
    uid: String,
    controller: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct WorkloadSpec {
    pub(super) queue_name: String,
    pub(super) priority: i64,
    /// False: it gets no quota, and its job is suspended.
    pub(super) active: bool,
}

impl Default for WorkloadSpec {
    fn default() -> Self {
        Self {
            queue_name: String::new(),
            priority: 0,
            active: true,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct WorkloadStatus {
    pub(super) conditions: Vec<QueueCondition>,
    pub(super) admission: Option<Admission>,
    pub(super) admission_checks: Vec<AdmissionCheck>,
    /// What it requests, as Kueue counts it. Absent once it has quota.
    pub(super) resource_requests: Vec<PodSet>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Admission {
    pub(super) cluster_queue: String,
}

/// Something besides quota that a Workload needs, such as new nodes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct AdmissionCheck {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) message: String,
}

/// A condition of an object of Kueue.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct QueueCondition {
    #[serde(rename = "type")]
    pub(super) condition_type: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) last_transition_time: Option<Time>,
}

/// The condition of a type.
pub(super) fn condition<'a>(
    conditions: &'a [QueueCondition],
    condition_type: &str,
) -> Option<&'a QueueCondition> {
    let mut conditions = conditions.iter();
    conditions.find(|condition| condition.condition_type == condition_type)
}

impl Workload {
    /// Whether it belongs to the job with this uid.
    pub fn is_of(&self, uid: &str) -> bool {
        let mut owners = self.metadata.owner_references.iter();
        owners.any(|owner| owner.controller && owner.uid == uid)
    }

    pub(super) fn condition(&self, condition_type: &str) -> Option<&QueueCondition> {
        condition(&self.status.conditions, condition_type)
    }

    /// The condition of a type, if it is true.
    pub(super) fn is_true(&self, condition_type: &str) -> Option<&QueueCondition> {
        let condition = self.condition(condition_type)?;
        (condition.status == "True").then_some(condition)
    }

    /// What Kueue says of the job that took the place of this one.
    pub fn preemption(&self) -> Option<&str> {
        let evicted = self.is_true("Evicted")?;
        (evicted.reason == "Preempted").then_some(&*evicted.message)
    }

    /// Whether it waits for quota.
    pub fn is_waiting(&self) -> bool {
        self.spec.active
            && self.is_true("QuotaReserved").is_none()
            && self.is_true("Finished").is_none()
    }

    /// Kueue's order within a queue: by priority, then by the time of creation or of an eviction
    /// that sends a Workload to the end.
    pub(super) fn order(&self) -> (Reverse<i64>, Option<&Time>, &str) {
        let evicted = self.is_true("Evicted");
        let sent_back = evicted.filter(|evicted| {
            ["PodsReadyTimeout", "AdmissionCheck"].contains(&evicted.reason.as_str())
        });
        let time = match sent_back {
            Some(evicted) => evicted.last_transition_time.as_ref(),
            None => self.metadata.creation_timestamp.as_ref(),
        };
        (Reverse(self.spec.priority), time, &self.metadata.name)
    }

    /// The checks that it still waits for.
    pub(super) fn pending_checks(&self) -> impl Iterator<Item = &AdmissionCheck> {
        let checks = self.status.admission_checks.iter();
        checks.filter(|check| check.state != "Ready")
    }
}
