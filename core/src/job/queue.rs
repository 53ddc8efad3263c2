//! The place of a job in a Kueue queue, in sentences: whether it waits, where, and for what.

mod capacity;
mod quantity;
mod stops;
mod workload;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use capacity::{ClusterQueue, Excess, PodSet, pod_sets};
pub use workload::Workload;

use super::ObservedJob;
use crate::keys::{HELD_ANNOTATION, QUEUE_LABEL};
use stops::{evicted, suspended};
use workload::{QueueCondition, condition};

/// What was read about the queue of a job.
#[derive(Clone, Debug)]
pub enum QueueReading {
    /// The cluster has no Kueue.
    NotInstalled,
    /// This service may not or cannot read Kueue's objects.
    Unreadable,
    Read(Box<Queueing>),
}

/// A job's Workload and what surrounds it.
#[derive(Clone, Debug, Default)]
pub struct Queueing {
    /// None if Kueue has made none for the job.
    pub workload: Option<Workload>,
    /// The Workloads of the job's namespace. None if there are too many to read.
    pub workloads: Option<Vec<Workload>>,
    pub queue: LocalQueues,
    /// None if it cannot be read.
    pub cluster_queue: Option<ClusterQueue>,
    /// The job that the Workload had to make room for.
    pub preemptor: Option<String>,
}

/// The queues of a namespace, as far as one of them is concerned.
#[derive(Clone, Debug, Default)]
pub enum LocalQueues {
    #[default]
    Unknown,
    Missing {
        /// The names of those that exist.
        known: Vec<String>,
    },
    Found(LocalQueue),
}

/// The parts of a Kueue LocalQueue that are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LocalQueue {
    pub metadata: Named,
    pub spec: LocalQueueSpec,
    status: LocalQueueStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Named {
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LocalQueueSpec {
    pub cluster_queue: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct LocalQueueStatus {
    conditions: Vec<QueueCondition>,
}

/// Where a job stands with its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QueueState {
    /// It waits to be admitted.
    Waiting,
    /// It has quota.
    Admitted,
    /// A user or Kueue has taken it out of the queue until it is resumed.
    Suspended,
    /// Kueue does not manage it: it runs outside of every quota.
    Unmanaged,
    /// This service cannot read it.
    Unknown,
}

/// The place of a job in its queue.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct QueueDetails {
    /// The local queue that the job names.
    pub name: String,
    pub state: QueueState,
    /// The cluster queue whose quota it uses or waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_queue: Option<String>,
    /// Its position among the waiting jobs of the local queue; the first is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// The number of waiting jobs of the local queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Why it waits, in Kueue's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The queue that a job names.
pub fn queue_of(job: &ObservedJob) -> Option<&str> {
    job.label(QUEUE_LABEL).filter(|queue| !queue.is_empty())
}

/// The queue in which a job waits: it is suspended, but not because a user wishes so.
pub fn waits_in(job: &ObservedJob) -> Option<&str> {
    let waits = job.spec.run_policy.suspend
        && !job.status.has_ended()
        && job.annotation(HELD_ANNOTATION).is_none();
    queue_of(job).filter(|_| waits)
}

/// The place of a job in its queue, and the sentences that explain it.
pub fn explain(job: &ObservedJob, reading: &QueueReading) -> Option<(QueueDetails, Vec<String>)> {
    let name = queue_of(job)?;
    let mut details = QueueDetails {
        name: name.to_string(),
        state: QueueState::Unknown,
        cluster_queue: None,
        position: None,
        waiting: None,
        priority: None,
        message: None,
    };
    let sentences = match reading {
        QueueReading::Unreadable => unreadable(job, name),
        QueueReading::NotInstalled => {
            details.state = QueueState::Unmanaged;
            vec![unmanaged(name, "the cluster has no Kueue")]
        }
        QueueReading::Read(queueing) => read(job, queueing, &mut details),
    };
    let ended = job.status.has_ended();
    Some((details, if ended { Vec::new() } else { sentences }))
}

fn unreadable(job: &ObservedJob, queue: &str) -> Vec<String> {
    if !job.spec.run_policy.suspend {
        return Vec::new();
    }
    vec![format!(
        "The job is suspended: it waits for the Kueue queue {queue} to admit it, or a user has \
         suspended it."
    )]
}

/// The sentence for a job that Kueue lets run as if it named no queue.
pub fn unmanaged(queue: &str, why: &str) -> String {
    format!("The job names the queue {queue}, but {why}, so the job runs outside of its quota.")
}

/// Why Kueue lets a job of an existing queue run at once.
pub const KIND_IS_NOT_MANAGED: &str = "Kueue does not manage this kind of job (the operator enables \
                                       it in integrations.frameworks of Kueue's configuration)";

fn read(job: &ObservedJob, queueing: &Queueing, details: &mut QueueDetails) -> Vec<String> {
    if let LocalQueues::Found(queue) = &queueing.queue {
        details.cluster_queue = Some(queue.spec.cluster_queue.clone());
    }
    let Some(workload) = &queueing.workload else {
        return without_workload(job, details);
    };
    if let Some(admission) = &workload.status.admission {
        details.cluster_queue = Some(admission.cluster_queue.clone());
    }
    details.priority = Some(workload.spec.priority);
    if !workload.spec.active {
        details.state = QueueState::Suspended;
        return vec![suspended(job.name(), &details.name, workload)];
    }
    if !workload.is_waiting() {
        details.state = QueueState::Admitted;
        return admitted(workload, queueing);
    }
    details.state = QueueState::Waiting;
    waiting(job, workload, queueing, details)
}

fn without_workload(job: &ObservedJob, details: &mut QueueDetails) -> Vec<String> {
    let queue = &details.name;
    if !job.spec.run_policy.suspend {
        details.state = QueueState::Unmanaged;
        return vec![unmanaged(queue, KIND_IS_NOT_MANAGED)];
    }
    if job.annotation(HELD_ANNOTATION).is_some() {
        details.state = QueueState::Suspended;
        let name = job.name();
        return vec![format!(
            "The job is suspended. Resume it with POST /train/{name}/resume."
        )];
    }
    details.state = QueueState::Waiting;
    vec![format!(
        "The job waits for the queue {queue}: Kueue has not picked it up yet."
    )]
}

fn admitted(workload: &Workload, queueing: &Queueing) -> Vec<String> {
    let mut sentences: Vec<String> = evicted(workload, queueing, "stops").into_iter().collect();
    if workload.is_true("Admitted").is_none() && workload.is_true("Finished").is_none() {
        sentences.extend(workload.pending_checks().map(|check| {
            let message = match check.message.is_empty() {
                true => String::new(),
                false => format!(": {}", sentence(&check.message)),
            };
            format!(
                "Kueue has reserved quota for the job, which waits for the admission check {}{message}.",
                check.name
            )
        }));
    }
    sentences
}

fn waiting(
    job: &ObservedJob,
    workload: &Workload,
    queueing: &Queueing,
    details: &mut QueueDetails,
) -> Vec<String> {
    let message = workload.condition("QuotaReserved").map(|c| &c.message);
    details.message = message.filter(|message| !message.is_empty()).cloned();
    if let Some(workloads) = &queueing.workloads {
        let (position, waiting) = position(workload, workloads);
        details.position = Some(position);
        details.waiting = Some(waiting);
    }
    let mut sentences: Vec<String> = evicted(workload, queueing, "has stopped")
        .into_iter()
        .collect();
    let queue = &details.name;
    if let Some(missing) = missing_queue(queue, job.namespace(), &queueing.queue) {
        sentences.push(missing);
        return sentences;
    }
    let never = never(queue, workload, queueing.cluster_queue.as_ref());
    let place = match (never, details.position, details.waiting) {
        (Some(never), ..) => never,
        (None, Some(position), Some(waiting)) => {
            format!("The job waits in the queue {queue} at position {position} of {waiting}")
        }
        (None, ..) => format!("The job waits in the queue {queue}"),
    };
    sentences.push(match &details.message {
        Some(message) => format!("{place}. Kueue says: {}.", sentence(message)),
        None => format!("{place}."),
    });
    sentences.extend(stopped_queue(queue, &queueing.queue));
    sentences
}

/// The position of a Workload among those that wait in its queue, and how many these are.
fn position(workload: &Workload, workloads: &[Workload]) -> (usize, usize) {
    let same = workloads.iter().filter(|other| {
        other.is_waiting()
            && other.spec.queue_name == workload.spec.queue_name
            && other.metadata.name != workload.metadata.name
    });
    let others: Vec<&Workload> = same.collect();
    let before = others
        .iter()
        .filter(|other| other.order() < workload.order());
    (before.count() + 1, others.len() + 1)
}

/// Says that a job can never start, which Kueue itself treats as waiting.
fn never(queue: &str, workload: &Workload, of: Option<&ClusterQueue>) -> Option<String> {
    let excess = of.map(|of| of.excess(&workload.status.resource_requests));
    let excess = excess.unwrap_or_default();
    let reserved = workload.condition("QuotaReserved");
    let is_told = reserved.is_some_and(|c| c.status != "True" && c.reason == "ExceedsMaxQuota");
    match excess.is_empty() {
        false => Some(format!(
            "The job can never start in the queue {queue}: {}. Delete it and request less, or \
             choose another queue",
            listed(&excess)
        )),
        true if is_told => Some(format!(
            "The job can never start in the queue {queue}, because it requests more than the \
             queue's quota. Delete it and request less, or choose another queue"
        )),
        true => None,
    }
}

fn listed(excess: &[Excess]) -> String {
    let excess: Vec<String> = excess.iter().map(ToString::to_string).collect();
    excess.join("; ")
}

/// The sentence for a queue that does not exist.
pub fn missing_queue(queue: &str, namespace: &str, queues: &LocalQueues) -> Option<String> {
    let LocalQueues::Missing { known } = queues else {
        return None;
    };
    let known = match known.as_slice() {
        [] => "it has none".to_string(),
        known => format!("it has {}", known.join(", ")),
    };
    Some(format!(
        "The queue {queue} does not exist in the namespace {namespace} ({known}), so the job waits \
         until the operator creates it."
    ))
}

/// The sentence for a queue that admits nothing now.
pub fn stopped_queue(queue: &str, queues: &LocalQueues) -> Option<String> {
    let LocalQueues::Found(found) = queues else {
        return None;
    };
    let active = condition(&found.status.conditions, "Active")?;
    (active.status == "False").then(|| {
        format!(
            "The queue {queue} admits no jobs now: {}.",
            sentence(&active.message)
        )
    })
}

/// The sentence for a job that has not been created yet and would never start in its queue.
pub fn would_never_start(queue: &str, of: &ClusterQueue, pods: &[PodSet]) -> Option<String> {
    let excess = of.excess(pods);
    (!excess.is_empty()).then(|| {
        format!(
            "The job can never start in the queue {queue}: {}.",
            listed(&excess)
        )
    })
}

/// A message of Kueue as a part of a sentence.
fn sentence(message: &str) -> &str {
    message.trim_end_matches('.')
}

#[cfg(test)]
mod tests;
