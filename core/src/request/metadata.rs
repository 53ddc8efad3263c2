//! Kubernetes' rules for names, labels, annotations and environment variables.
//!
//! They are those of kubernetes/apimachinery `pkg/util/validation/validation.go`. A request that
//! breaks one would be refused by the API server later, in words that name no field of ours.

use std::fmt;

/// Longest label, label value, namespace and service name.
const MAX_LABEL: usize = 63;
/// Longest prefix of a label's or annotation's key, which is a DNS-1123 subdomain.
const MAX_SUBDOMAIN: usize = 253;
/// Most bytes of all annotations of an object, keys and values together.
pub const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Prefixes of keys that belong to Kubernetes, to the operator and to this host.
const RESERVED_PREFIXES: &[&str] = &[
    "kubernetes.io",
    "k8s.io",
    "training.kubeflow.org",
    "trainer.deepfinery",
];

/// Variables that the training operator appends after ours, so that a value of the request would
/// be lost without a word (kubeflow/trainer v1.9, pkg/controller.v1/pytorch/envvar.go), and those
/// that torchrun sets for each worker.
const OPERATOR_VARIABLES: &[&str] = &[
    "MASTER_ADDR",
    "MASTER_PORT",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "NODE_RANK",
];
/// The prefixes of further variables of torchrun's, and of the service's settings and what it tells
/// `train.py`: with `TRAINER_PVC_ROOT`, say, a request could read what the operator's schemes forbid.
const SERVICE_PREFIXES: &[&str] = &["PET_", "TORCHELASTIC_", "TRAINER_"];
/// The one variable of such a prefix that is for requests: how much `train.py` logs.
const LOG_LEVEL: &str = "TRAINER_LOG_LEVEL";
/// Variables that say which GPUs a replica has: the cluster gives them out.
const DEVICE_VARIABLES: &[&str] = &["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];

/// The variables that identify a run. They are this host's, whatever the request or the plugin say.
pub const IDENTITY_VARIABLES: &[&str] = &[
    "FRAMEWORK",
    "MODEL_ID",
    "RUN_ID",
    "NUM_NODES",
    "GPUS_PER_NODE",
    "CHECKPOINT_BASE_URI",
    "CHECKPOINT_PREFIX",
    "CHECKPOINTS_URI",
    "LOGS_URI",
    "CONFIG_URI",
    "DATASET_URI",
    "CONFIG_PATH",
    "RESUME_FROM_CHECKPOINT",
    OVERWRITE_VARIABLE,
];

/// Whether `train.py` replaces the checkpoints of an earlier run.
pub const OVERWRITE_VARIABLE: &str = "TRAINER_OVERWRITE";
/// Where `train.py` says that a restart cannot help. The cluster sets it.
pub const FAILURE_FILE_VARIABLE: &str = "TRAINER_FAILURE_FILE";
/// How people know the job of a replica, for the lease of its prefix. The cluster sets them.
pub const JOB_NAME_VARIABLE: &str = "TRAINER_JOB_NAME";
pub const JOB_NAMESPACE_VARIABLE: &str = "TRAINER_JOB_NAMESPACE";

/// The variables that say which job a replica is of, and what made it: the cluster sets them when
/// it creates a job, see [`crate::manifest::identify`].
pub const JOB_VARIABLES: [&str; 5] = [
    "TRAINER_JOB_UID",
    "TRAINER_IMAGE",
    "TRAINER_PLUGIN_NAME",
    "TRAINER_PLUGIN_VERSION",
    "TRAINER_PLUGIN_SHA256",
];

/// The typed arguments, which only a plugin sets.
pub const ARGUMENTS_VARIABLE: &str = "TRAINING_EXTRA_ARGS_JSON";

/// Why a name is not valid. The sentence goes after the name of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    Namespace,
    LabelKey,
    LabelValue,
    ReservedKey,
    VariableName,
    ReservedVariable,
}

impl fmt::Display for NameFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Namespace => {
                "not a namespace: 1 to 63 of a-z, 0-9 and -, first and last a letter or digit"
            }
            Self::LabelKey => {
                "not a key: [prefix/]name, name 1 to 63 of A-Z, a-z, 0-9, -, _ and ., \
                 first and last a letter or digit"
            }
            Self::LabelValue => {
                "not a label value: at most 63 of A-Z, a-z, 0-9, -, _ and ., \
                 first and last a letter or digit"
            }
            Self::ReservedKey => {
                "reserved: keys of kubernetes.io, k8s.io, training.kubeflow.org and \
                 trainer.deepfinery are not for requests"
            }
            Self::VariableName => {
                "not an environment name: A-Z, a-z, 0-9, -, _ and ., first not a digit"
            }
            Self::ReservedVariable => {
                "reserved: this variable is set by the service or the training operator"
            }
        })
    }
}

/// Whether a namespace is a DNS-1123 label.
pub fn check_namespace(name: &str) -> Result<(), NameFault> {
    match is_dns_label(name) {
        true => Ok(()),
        false => Err(NameFault::Namespace),
    }
}

/// Keys of Kubernetes' own prefixes that only describe a job, or keep its pods from being disturbed.
/// Requests may set them. `app.kubernetes.io/managed-by` is this host's.
const HARMLESS_KEYS: &[&str] = &[
    "app.kubernetes.io/component",
    "app.kubernetes.io/created-by",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
    "cluster-autoscaler.kubernetes.io/safe-to-evict",
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
    "controller.kubernetes.io/pod-deletion-cost",
    "descheduler.alpha.kubernetes.io/evict",
    "descheduler.alpha.kubernetes.io/prefer-no-eviction",
    "kubectl.kubernetes.io/default-container",
    "kubectl.kubernetes.io/default-logs-container",
    "kubernetes.io/change-cause",
    "kubernetes.io/description",
];

/// Whether a key of a label or annotation is valid and free.
pub fn check_key(key: &str) -> Result<(), NameFault> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if !is_qualified(name) || prefix.is_some_and(|prefix| !is_dns_subdomain(prefix)) {
        return Err(NameFault::LabelKey);
    }
    match prefix.is_some_and(is_reserved_prefix) && !HARMLESS_KEYS.contains(&key) {
        true => Err(NameFault::ReservedKey),
        false => Ok(()),
    }
}

/// Whether a label's value is valid. It may be empty.
pub fn check_label_value(value: &str) -> Result<(), NameFault> {
    match value.is_empty() || is_qualified(value) {
        true => Ok(()),
        false => Err(NameFault::LabelValue),
    }
}

/// Whether a request may set an environment variable of this name.
pub fn check_request_variable(name: &str) -> Result<(), NameFault> {
    check_plugin_variable(name)?;
    match name == ARGUMENTS_VARIABLE {
        true => Err(NameFault::ReservedVariable),
        false => Ok(()),
    }
}

/// Whether a plugin may set an environment variable of this name.
pub fn check_plugin_variable(name: &str) -> Result<(), NameFault> {
    if !is_variable_name(name) {
        return Err(NameFault::VariableName);
    }
    let reserved = OPERATOR_VARIABLES.contains(&name)
        || IDENTITY_VARIABLES.contains(&name)
        || DEVICE_VARIABLES.contains(&name)
        || name != LOG_LEVEL && has_prefix(name, SERVICE_PREFIXES);
    match reserved {
        true => Err(NameFault::ReservedVariable),
        false => Ok(()),
    }
}

fn has_prefix(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Variables that libraries read no more, each with what they read now.
const DEPRECATED_VARIABLES: &[(&str, &str)] = &[
    // huggingface_hub/constants.py warns of it.
    ("HF_HUB_ENABLE_HF_TRANSFER", "HF_XET_HIGH_PERFORMANCE"),
    // transformers/utils/hub.py has dropped it for huggingface_hub's own.
    ("TRANSFORMERS_CACHE", "HF_HOME"),
    ("HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"),
    // torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp.
    (
        "NCCL_ASYNC_ERROR_HANDLING",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    ),
    ("NCCL_BLOCKING_WAIT", "TORCH_NCCL_BLOCKING_WAIT"),
];

/// What took the place of a variable that is read no more.
pub fn successor(name: &str) -> Option<&'static str> {
    let mut deprecated = DEPRECATED_VARIABLES.iter();
    let (_, successor) = deprecated.find(|(old, _)| *old == name)?;
    Some(successor)
}

/// Variables of the image that programs are found by. A request that sets one replaces it whole:
/// nothing expands `$PATH` in a value.
const SEARCH_PATHS: &[&str] = &[
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
];

/// Whether a variable is one of the image's that programs are found by.
pub fn is_search_path(name: &str) -> bool {
    SEARCH_PATHS.contains(&name)
}

/// A label of a domain name, RFC 1123: what namespaces and frameworks are named by.
pub fn is_dns_label(name: &str) -> bool {
    name.len() <= MAX_LABEL && is_dns_part(name)
}

/// The name of a resource that is neither Kubernetes' own nor the quota of one, such as
/// `nvidia.com/gpu`.
pub fn is_extended_resource(name: &str) -> bool {
    let Some((domain, name)) = name.split_once('/') else {
        return false;
    };
    let is_of_kubernetes = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    is_dns_subdomain(domain)
        && is_qualified(name)
        && !is_of_kubernetes
        && !domain.starts_with("requests.")
}

/// A domain name, RFC 1123.
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= MAX_SUBDOMAIN && name.split('.').all(is_dns_part)
}

fn is_dns_part(part: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !part.is_empty() && !part.starts_with('-') && !part.ends_with('-') && part.bytes().all(inner)
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`, at most 63 characters.
pub fn is_qualified(name: &str) -> bool {
    let bytes = name.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= MAX_LABEL
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// `[-._a-zA-Z][-._a-zA-Z0-9]*`, the strict form that every cluster version takes.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn is_reserved_prefix(prefix: &str) -> bool {
    RESERVED_PREFIXES.iter().any(|reserved| {
        prefix
            .strip_suffix(reserved)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_kubernetes_and_leave_its_own_alone() {
        for key in [
            "team",
            "deepfinery.com/team",
            "kueue.x-k8s.io/queue-name",
            "a.b/C_d.e",
            "app.kubernetes.io/part-of",
            "cluster-autoscaler.kubernetes.io/safe-to-evict",
            "kubernetes.io/description",
        ] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for key in [
            "",
            "-a",
            "a/",
            "/a",
            "A.b/c",
            "a b",
            "a/b/c",
            &"x".repeat(64),
        ] {
            assert_eq!(check_key(key), Err(NameFault::LabelKey), "{key}");
        }
        for key in [
            "kubernetes.io/x",
            "app.kubernetes.io/managed-by",
            "cluster-autoscaler.kubernetes.io/x",
            "seccomp.security.alpha.kubernetes.io/pod",
            "k8s.io/x",
            "training.kubeflow.org/job-name",
            "trainer.deepfinery/run-id",
        ] {
            assert_eq!(check_key(key), Err(NameFault::ReservedKey), "{key}");
        }
    }

    #[test]
    fn the_variables_of_operator_and_host_are_reserved() {
        for name in [
            "RANK",
            "PET_NNODES",
            "TORCHELASTIC_X",
            "RUN_ID",
            "TRAINER_PVC_ROOT",
            "TRAINER_API_TOKEN",
            "TRAINER_JOB_UID",
            "TRAINER_",
            "CUDA_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES",
            ARGUMENTS_VARIABLE,
        ] {
            let finding = Err(NameFault::ReservedVariable);
            assert_eq!(check_request_variable(name), finding, "{name}");
        }
        for name in ["", "1A", "A B", "A=B", "É"] {
            let finding = Err(NameFault::VariableName);
            assert_eq!(check_request_variable(name), finding, "{name}");
        }
        for name in [
            "HF_HOME",
            "TRAINER_LOG_LEVEL",
            "TRAINERS",
            "CUDA_LAUNCH_BLOCKING",
        ] {
            assert_eq!(check_request_variable(name), Ok(()), "{name}");
        }
        assert_eq!(check_plugin_variable(ARGUMENTS_VARIABLE), Ok(()));
    }
}
