//! Idempotent submissions. The client's key is stored in the job itself, so that every host finds
//! it and it survives restarts.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ObservedJob;
use crate::keys::{IDEMPOTENCY_LABEL, REQUEST_HASH_ANNOTATION};
use crate::pytorch_job::PyTorchJob;

/// The maximum length of a key.
const MAX_KEY: usize = 255;

/// The hashes of a submission's key and request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    pub key_hash: String,
    request_hash: String,
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key must be 1 to {MAX_KEY} visible ASCII characters")]
pub struct BadKey;

impl Submission {
    /// # Errors
    ///
    /// [`BadKey`] for a key that is empty, too long, or not visible ASCII.
    pub fn new(key: &[u8], request: &Value) -> Result<Self, BadKey> {
        let visible = key.iter().all(u8::is_ascii_graphic);
        if key.is_empty() || key.len() > MAX_KEY || !visible {
            return Err(BadKey);
        }
        Ok(Self {
            key_hash: label_hash(key),
            // Members are sorted, so white space and order do not matter.
            request_hash: label_hash(crate::json::to_string(request).as_bytes()),
        })
    }

    /// The same submission of a named caller, whose keys are its own.
    #[must_use]
    pub fn of_owner(self, owner: &str) -> Self {
        let key_hash = label_hash(format!("{owner}\0{}", self.key_hash).as_bytes());
        Self { key_hash, ..self }
    }

    /// Stores this submission in the job.
    pub fn mark(&self, job: &mut PyTorchJob) {
        let metadata = &mut job.metadata;
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(IDEMPOTENCY_LABEL.to_string(), self.key_hash.clone());
        let annotations = metadata.annotations.get_or_insert_default();
        let request = self.request_hash.clone();
        annotations.insert(REQUEST_HASH_ANNOTATION.to_string(), request);
    }

    /// Whether a job was created from this request.
    pub fn has_request_of(&self, job: &ObservedJob) -> bool {
        job.annotation(REQUEST_HASH_ANNOTATION) == Some(&self.request_hash)
    }
}

/// A label value for any text: 32 hexadecimal digits, half of its SHA-256 hash.
pub(crate) fn label_hash(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_members_does_not_count() {
        let one: Value = serde_json::from_str(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"b":{"d":3,"c":2},"a":1}"#).unwrap();
        assert_eq!(Submission::new(b"k", &one), Submission::new(b"k", &other));
        assert_ne!(
            Submission::new(b"k", &one),
            Submission::new(b"k", &json!({"a": 1}))
        );
    }

    #[test]
    fn keys_that_no_header_holds_well_are_refused() {
        for key in ["", "a b", "\u{e9}", &"x".repeat(256)] {
            assert_eq!(Submission::new(key.as_bytes(), &json!({})), Err(BadKey));
        }
        assert!(Submission::new("x".repeat(255).as_bytes(), &json!({})).is_ok());
    }
}
