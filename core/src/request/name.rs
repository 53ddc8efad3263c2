//! The name of a PyTorchJob: chosen by the request, or derived from framework and run id.

use sha2::{Digest, Sha256};

/// The maximum length of a Kubernetes Service name. The operator creates a Service and a pod for
/// each replica, named `<job>-master-0` and `<job>-worker-<index>` (kubeflow/trainer v1.9,
/// common/service.go).
const MAX_SERVICE_NAME: usize = 63;
/// Hexadecimal digits of the hash that keeps shortened names unique.
const HASH_DIGITS: usize = 8;

/// A valid name for a PyTorchJob with a certain number of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobName(String);

impl JobName {
    /// Checks a name that the request chose.
    ///
    /// # Errors
    ///
    /// What is wrong with it. The message follows the name of the field.
    pub fn chosen(name: &str, num_nodes: u32) -> Result<Self, String> {
        let longest = longest_name(num_nodes);
        if !is_dns_1035_label(name) {
            return Err(
                "not a valid PyTorchJob name; use a-z, 0-9 and '-', starting with a letter and \
                 ending with a letter or digit"
                    .to_string(),
            );
        }
        if name.len() > longest {
            return Err(format!(
                "{} characters are too many; with num_nodes {num_nodes} at most {longest} are \
                 allowed, because pod names contain the job name",
                name.len()
            ));
        }
        Ok(Self(name.to_string()))
    }

    /// Derives a name from framework and run id. A name that is too long is cut and ends with a
    /// hash of the whole, so that two long run ids never get the same name.
    pub fn derived(framework: &str, run_id: &str, num_nodes: u32) -> Self {
        let whole = format!("{framework}-{run_id}");
        let mut name = dashed(&whole);
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name = format!("job-{name}").trim_end_matches('-').to_string();
        }
        let longest = longest_name(num_nodes);
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

/// 54 for up to 11 nodes, 53 for up to 101, 52 for up to 1001.
fn longest_name(num_nodes: u32) -> usize {
    let last_worker = num_nodes.saturating_sub(2);
    let suffix = format!("-worker-{last_worker}").len();
    MAX_SERVICE_NAME - suffix
}

fn is_dns_1035_label(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && super::metadata::is_dns_label(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(framework: &str, run_id: &str) -> String {
        JobName::derived(framework, run_id, 1).as_str().to_string()
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
            (1, 54),
            (11, 54),
            (12, 53),
            (101, 53),
            (102, 52),
            (1001, 52),
            (1002, 51),
        ];
        for (num_nodes, limit) in limits {
            assert_eq!(longest_name(num_nodes), limit, "{num_nodes}");
            assert!(JobName::chosen(&"x".repeat(limit), num_nodes).is_ok());
            assert!(JobName::chosen(&"x".repeat(limit + 1), num_nodes).is_err());
        }
    }

    #[test]
    fn given_names_are_not_mended() {
        for name in ["", "Run", "1run", "run-", "-run", "a.b", "a_b"] {
            assert!(JobName::chosen(name, 1).is_err(), "{name}");
        }
    }
}
