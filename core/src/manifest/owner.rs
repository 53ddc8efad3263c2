//! The owner of a job: the caller that submitted it.

use super::gpus_per_replica;
use crate::job::label_hash;
use crate::keys::{GPUS_PER_NODE_ANNOTATION, OWNER_ANNOTATION, OWNER_LABEL};
use crate::metadata::check_label_value;
use crate::pytorch_job::PyTorchJob;

/// Records who owns a job, and how many GPUs each of its nodes has. Requests cannot set these keys.
pub fn record_owner(job: &mut PyTorchJob, owner: &str) {
    let gpus = gpus_per_replica(job).to_string();
    let annotations = job.metadata.annotations.get_or_insert_default();
    annotations.insert(OWNER_ANNOTATION.to_string(), owner.to_string());
    annotations.insert(GPUS_PER_NODE_ANNOTATION.to_string(), gpus);
    let labels = job.metadata.labels.get_or_insert_default();
    labels.insert(OWNER_LABEL.to_string(), label_of(owner));
}

/// The label value for an owner: its name, or a hash if the name is not a valid value.
pub fn label_of(owner: &str) -> String {
    match check_label_value(owner) {
        Ok(()) => owner.to_string(),
        Err(_) => label_hash(owner.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_label_value_becomes_a_hash() {
        assert_eq!(label_of("alice"), "alice");
        let hashed = label_of("alice@example.org");
        assert_eq!(hashed.len(), 32);
        assert_ne!(hashed, label_of("bob@example.org"));
        assert_eq!(check_label_value(&hashed), Ok(()));
    }
}
