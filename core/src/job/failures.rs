//! Failures of replicas, which a job stores in annotations and shows in its `detail`.

use super::details::problems;
use super::{ObservedJob, PodDetails};

/// Own annotations: the latest failure of each replica, as JSON.
const FAILURE_ANNOTATION_PREFIX: &str = "trainer.deepfinery/failure.";

/// The annotation that stores the failure of a replica.
pub fn failure_annotation(failed: &PodDetails) -> (String, String) {
    let value = serde_json::to_string(failed).unwrap_or_default();
    let key = format!("{FAILURE_ANNOTATION_PREFIX}{}", failed.replica);
    (key, value)
}

/// Whether an annotation stores the failure of a replica.
pub fn is_failure_annotation(key: &str) -> bool {
    key.starts_with(FAILURE_ANNOTATION_PREFIX)
}

/// The failures of replicas that the job has stored.
pub fn failures(job: &ObservedJob) -> Vec<PodDetails> {
    let annotations = job.metadata.annotations.iter().flatten();
    let failures = annotations.filter(|(key, _)| is_failure_annotation(key));
    failures
        .filter_map(|(_, value)| serde_json::from_str(value).ok())
        .map(|gone: PodDetails| PodDetails {
            phase: "Failed".to_string(),
            ..gone
        })
        .collect()
}

/// Describes the stored failures in one line: exit codes and reasons.
pub(super) fn describe_failures(job: &ObservedJob) -> Option<String> {
    let sentences = problems(&failures(job));
    (!sentences.is_empty()).then(|| sentences.join("; "))
}
