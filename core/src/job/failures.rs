//! How replicas failed, as a job keeps it in annotations and tells it in its `detail`.

use super::details::troubles;
use super::{ObservedJob, PodDetails};

/// Own annotations: how the replica of this name failed last, as JSON.
const FAILURE_ANNOTATION_PREFIX: &str = "trainer.deepfinery/failure.";

/// The annotation that keeps how a replica failed.
pub fn failure_annotation(failed: &PodDetails) -> (String, String) {
    let value = serde_json::to_string(failed).unwrap_or_default();
    let key = format!("{FAILURE_ANNOTATION_PREFIX}{}", failed.replica);
    (key, value)
}

/// Whether an annotation keeps how a replica failed.
pub fn is_failure_annotation(key: &str) -> bool {
    key.starts_with(FAILURE_ANNOTATION_PREFIX)
}

/// How the replicas of a job failed, as far as the job keeps it.
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

/// How the replicas of a job failed, in one line: exit codes and reasons.
pub(super) fn told_of_failures(job: &ObservedJob) -> Option<String> {
    let told = troubles(&failures(job));
    (!told.is_empty()).then(|| told.join("; "))
}
