//! Why Kueue has stopped a job, in sentences.

use super::workload::Workload;
use super::{Queueing, sentence};

/// The sentence for a job that is out of its queue until it is resumed.
pub(super) fn suspended(job: &str, queue: &str, workload: &Workload) -> String {
    let resume = format!("Resume it with POST /train/{job}/resume");
    let evicted = workload.is_true("Evicted");
    // Kueue itself has reasons beyond this one, such as too many attempts to start.
    match evicted.filter(|evicted| evicted.reason != "Deactivated") {
        Some(evicted) if evicted.reason.starts_with("Deactivated") => format!(
            "Kueue has taken the job out of the queue {queue}: {}. {resume}.",
            sentence(&evicted.message)
        ),
        _ => format!("The job is suspended. {resume}; it then waits in the queue {queue} again."),
    }
}

/// Why Kueue has taken quota away from a job that still wants to run, and from whom it came.
pub(super) fn evicted(workload: &Workload, queueing: &Queueing, does: &str) -> Option<String> {
    let evicted = workload.is_true("Evicted")?;
    if evicted.reason.starts_with("Deactivated") {
        // It was resumed since.
        return None;
    }
    let why = match evicted.reason.as_str() {
        "Preempted" => {
            let who = queueing.preemptor.as_deref().unwrap_or("another job");
            let preempted = workload.condition("Preempted");
            format!(
                "to make room for {who}, {}",
                preemption(preempted.map_or("", |preempted| &preempted.reason))
            )
        }
        "PodsReadyTimeout" => "because not all of its pods were ready in time".to_string(),
        "ClusterQueueStopped" => "because the operator has stopped the cluster queue".to_string(),
        "LocalQueueStopped" => "because the operator has stopped the queue".to_string(),
        "NodeFailures" => "because a node failed".to_string(),
        _ => format!("({})", sentence(&evicted.message)),
    };
    Some(format!(
        "Kueue {does} the job {why}. It starts again when the queue admits it."
    ))
}

/// What gives another job the quota of this one, by Kueue's reason of the condition `Preempted`.
fn preemption(reason: &str) -> &'static str {
    match reason {
        "InClusterQueue" => "which has a higher priority in the same cluster queue",
        "InCohortReclamation" => "whose cluster queue takes back quota that it had lent",
        "InCohortFairSharing" => "whose cluster queue has used less than its fair share",
        "InCohortReclaimWhileBorrowing" => {
            "which has a higher priority and borrows quota of the cohort"
        }
        _ => "which Kueue prefers",
    }
}
