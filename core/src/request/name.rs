//! The name of a job: chosen by the request, or derived from framework and run id.

use sha2::{Digest, Sha256};

use crate::job_kind::JobKind;

/// The maximum length of the name of a Service and of the host name of a pod. Both contain the name
/// of the job.
const MAX_HOST_NAME: usize = 63;
/// Hexadecimal digits of the hash that keeps shortened names unique.
const HASH_DIGITS: usize = 8;

/// What the length of a name depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobSize {
    pub kind: JobKind,
    pub num_nodes: u32,
}

/// A valid name for a job of a certain size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobName(String);

impl JobName {
    /// Checks a name that the request chose.
    ///
    /// # Errors
    ///
    /// What is wrong with it. The message follows the name of the field.
    pub fn chosen(name: &str, size: JobSize) -> Result<Self, String> {
        let longest = size.longest_name();
        let length = name.chars().count();
        if length > longest {
            return Err(format!(
                "{length} characters are too many; a {} with num_nodes {} may have at most {longest}, \
                 because pod names contain the job name",
                size.kind.name(),
                size.num_nodes
            ));
        }
        if !is_dns_1035_label(name) {
            return Err(format!(
                "not a valid {} name; use a-z, 0-9 and '-', starting with a letter and ending with \
                 a letter or digit",
                size.kind.name()
            ));
        }
        Ok(Self(name.to_string()))
    }

    /// Derives a name from framework and run id. A name that is too long is cut and ends with a
    /// hash of the whole, so that two long run ids never get the same name.
    pub fn derived(framework: &str, run_id: &str, size: JobSize) -> Self {
        let whole = format!("{framework}-{run_id}");
        let mut name = dashed(&whole);
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name = format!("job-{name}").trim_end_matches('-').to_string();
        }
        let longest = size.longest_name();
        if name.len() > longest {
            let hash = Sha256::digest(whole.as_bytes());
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            let kept = name[..longest - HASH_DIGITS - 1].trim_end_matches('-');
            name = format!("{kept}-{}", &hash[..HASH_DIGITS]);
        }
        Self(name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Converts to lower case, replaces each sequence of other characters by one dash, and trims
/// dashes.
fn dashed(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    let mut in_run = false;
    for character in text.chars().map(|c| c.to_ascii_lowercase()) {
        let fits = character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
        if fits {
            name.push(character);
        } else if !in_run {
            name.push('-');
        }
        in_run = !fits;
    }
    name.trim_matches('-').to_string()
}

impl JobSize {
    /// What the cluster appends to the name of the job for its last pod.
    ///
    /// The training operator creates a Service and a pod named `<job>-worker-<index>` (kubeflow/
    /// trainer v1.9, common/service.go). JobSet names pods `<job>-node-0-<index>` and five random
    /// characters (kubernetes-sigs/jobset v0.12, jobset_webhook.go). Kubeflow Trainer accepts longer
    /// names, and the job then never starts.
    fn longest_suffix(self) -> String {
        match self.kind {
            JobKind::PyTorchJob => format!("-worker-{}", self.num_nodes.saturating_sub(2)),
            JobKind::TrainJob => format!("-node-0-{}-abcde", self.num_nodes.saturating_sub(1)),
        }
    }

    fn longest_name(self) -> usize {
        MAX_HOST_NAME - self.longest_suffix().len()
    }
}

fn is_dns_1035_label(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && crate::metadata::is_dns_label(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(num_nodes: u32) -> JobSize {
        JobSize {
            kind: JobKind::PyTorchJob,
            num_nodes,
        }
    }

    fn derived(framework: &str, run_id: &str) -> String {
        let name = JobName::derived(framework, run_id, size(1));
        name.as_str().to_string()
    }

    #[test]
    fn names_are_made_of_framework_and_run_id() {
        assert_eq!(derived("meta", "meta_demo_001"), "meta-meta-demo-001");
        assert_eq!(derived("hf", "Run 1!!"), "hf-run-1");
        assert_eq!(derived("hf", "a_-b"), "hf-a--b");
        assert_eq!(derived("hf", "3d.run-04"), "hf-3d-run-04");
        assert_eq!(derived("3d", "x"), "job-3d-x");
    }

    #[test]
    fn long_names_are_cut_and_never_meet() {
        let (a, b) = (
            format!("{}a", "x".repeat(62)),
            format!("{}b", "x".repeat(62)),
        );
        let (a, b) = (derived("nemo", &a), derived("nemo", &b));
        assert_eq!(a.len(), 54);
        assert_ne!(a, b);
        assert!(is_dns_1035_label(&a));
    }

    #[test]
    fn pods_leave_less_room_the_more_nodes_there_are() {
        let limits = [
            (JobKind::PyTorchJob, 1, 54),
            (JobKind::PyTorchJob, 11, 54),
            (JobKind::PyTorchJob, 12, 53),
            (JobKind::PyTorchJob, 101, 53),
            (JobKind::PyTorchJob, 102, 52),
            (JobKind::PyTorchJob, 1001, 52),
            (JobKind::PyTorchJob, 1002, 51),
            (JobKind::TrainJob, 1, 48),
            (JobKind::TrainJob, 10, 48),
            (JobKind::TrainJob, 11, 47),
            (JobKind::TrainJob, 100, 47),
            (JobKind::TrainJob, 101, 46),
            (JobKind::TrainJob, 1000, 46),
        ];
        for (kind, num_nodes, limit) in limits {
            let size = JobSize { kind, num_nodes };
            assert_eq!(size.longest_name(), limit, "{size:?}");
            assert!(JobName::chosen(&"x".repeat(limit), size).is_ok());
            for length in [limit + 1, 64] {
                let message = JobName::chosen(&"x".repeat(length), size).unwrap_err();
                assert!(message.contains(&format!("at most {limit}")), "{message}");
                assert!(message.contains(kind.name()), "{message}");
            }
        }
    }

    #[test]
    fn chosen_names_are_not_changed() {
        for name in ["", "Run", "1run", "run-", "-run", "a.b", "a_b"] {
            assert!(JobName::chosen(name, size(1)).is_err(), "{name}");
        }
    }
}
