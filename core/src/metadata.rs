//! Kubernetes' rules for names, labels, annotations and environment variables.
//!
//! Source: kubernetes/apimachinery `pkg/util/validation/validation.go`. Otherwise the API server
//! would refuse such a request later, in a message that names none of our fields.

use std::fmt;

/// The maximum length of a label, label value, namespace or service name.
const MAX_LABEL: usize = 63;
/// The maximum length of the prefix of a label or annotation key, a DNS-1123 subdomain.
const MAX_SUBDOMAIN: usize = 253;
/// The maximum size of all annotations of an object, keys and values together, in bytes.
pub const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Prefixes of keys that are reserved for Kubernetes, the training operator and this host.
const RESERVED_PREFIXES: &[&str] = &[
    "kubernetes.io",
    "k8s.io",
    "kueue.x-k8s.io",
    "training.kubeflow.org",
    "trainer.kubeflow.org",
    "trainer.deepfinery",
];

/// Variables that the training operator appends after ours, which would silently override a value
/// of the request (kubeflow/trainer v1.9, pkg/controller.v1/pytorch/envvar.go), and those that
/// torchrun sets for each worker.
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
/// The prefixes of other variables of torchrun, and of variables that configure the service or
/// `train.py`. With `TRAINER_PVC_ROOT`, for example, a request could read what the allowed schemes
/// forbid.
const SERVICE_PREFIXES: &[&str] = &["PET_", "TORCHELASTIC_", "TRAINER_"];
/// The only variable with such a prefix that requests may set: the log level of `train.py`.
const LOG_LEVEL: &str = "TRAINER_LOG_LEVEL";
/// Variables that assign GPUs to a replica. The cluster sets them.
const DEVICE_VARIABLES: &[&str] = &["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];

/// The variables that identify a run. Only this host sets them.
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

/// Makes `train.py` replace the checkpoints of an earlier run.
pub const OVERWRITE_VARIABLE: &str = "TRAINER_OVERWRITE";
/// The file in which `train.py` records that a restart cannot help. The cluster sets it.
pub const FAILURE_FILE_VARIABLE: &str = "TRAINER_FAILURE_FILE";
/// The job of a replica, for the lease of its prefix. The cluster sets them.
pub const JOB_NAME_VARIABLE: &str = "TRAINER_JOB_NAME";
pub const JOB_NAMESPACE_VARIABLE: &str = "TRAINER_JOB_NAMESPACE";

/// Whether a pod has a variable whatever its plugin sets, so that a template may name it.
pub fn is_of_every_pod(name: &str) -> bool {
    OPERATOR_VARIABLES.contains(&name)
        || IDENTITY_VARIABLES.contains(&name)
        || SERVICE_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// The typed arguments. Only plugins set this variable.
pub const ARGUMENTS_VARIABLE: &str = "TRAINING_EXTRA_ARGS_JSON";

/// Why a name is not valid. The message follows the name of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    Namespace,
    LabelKey,
    LabelValue,
    ReservedKey,
    OwnKey,
    VariableName,
    ReservedVariable,
}

impl fmt::Display for NameFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Namespace => {
                "not a valid namespace; use 1-63 characters a-z, 0-9 and '-', starting and ending \
                 with a letter or digit"
            }
            Self::LabelKey => {
                "not a valid key; expected [prefix/]name with 1-63 characters A-Z, a-z, 0-9, '-', \
                 '_' and '.' in the name, starting and ending with a letter or digit"
            }
            Self::LabelValue => {
                "not a valid label value; use at most 63 characters A-Z, a-z, 0-9, '-', '_' and \
                 '.', starting and ending with a letter or digit"
            }
            Self::ReservedKey => {
                "reserved: requests may not set keys of kubernetes.io, k8s.io, kueue.x-k8s.io, \
                 training.kubeflow.org and trainer.deepfinery; use another prefix, or have the \
                 operator set the key in a profile"
            }
            Self::OwnKey => {
                "reserved: the service or the training operator sets this key; remove it"
            }
            Self::VariableName => {
                "not a valid variable name; use A-Z, a-z, 0-9, '-', '_' and '.', not starting with \
                 a digit"
            }
            Self::ReservedVariable => {
                "reserved: the service or the training operator sets this variable; remove it"
            }
        })
    }
}

/// Checks that a namespace is a DNS-1123 label.
pub fn check_namespace(name: &str) -> Result<(), NameFault> {
    match is_dns_label(name) {
        true => Ok(()),
        false => Err(NameFault::Namespace),
    }
}

/// Keys under the prefixes of Kubernetes that only describe a job or protect its pods from
/// disruption. Requests may set them. `app.kubernetes.io/managed-by` is reserved for this host.
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

/// Checks that the key of a label or annotation is valid and not reserved.
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

/// Whether the operator's profiles may set a label or an annotation of this key: all but those that
/// this host and the training operator set themselves.
pub fn check_operator_key(key: &str) -> Result<(), NameFault> {
    const OWN_PREFIXES: [&str; 2] = ["training.kubeflow.org", "trainer.deepfinery"];
    const OWN_KEYS: [&str; 2] = ["app.kubernetes.io/managed-by", "sidecar.istio.io/inject"];
    match check_key(key) {
        Err(NameFault::LabelKey) => return Err(NameFault::LabelKey),
        _ if OWN_KEYS.contains(&key) => return Err(NameFault::OwnKey),
        _ => {}
    }
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    match OWN_PREFIXES.iter().any(|own| is_within(prefix, own)) {
        true => Err(NameFault::OwnKey),
        false => Ok(()),
    }
}

/// Checks the value of a label. It may be empty.
pub fn check_label_value(value: &str) -> Result<(), NameFault> {
    match value.is_empty() || is_qualified(value) {
        true => Ok(()),
        false => Err(NameFault::LabelValue),
    }
}

/// Checks that a request may set an environment variable with this name.
pub fn check_request_variable(name: &str) -> Result<(), NameFault> {
    check_plugin_variable(name)?;
    match name == ARGUMENTS_VARIABLE {
        true => Err(NameFault::ReservedVariable),
        false => Ok(()),
    }
}

/// Checks that a plugin may set an environment variable with this name.
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

/// Variables that libraries no longer read, each with its replacement.
const DEPRECATED_VARIABLES: &[(&str, &str)] = &[
    // huggingface_hub/constants.py warns about it.
    ("HF_HUB_ENABLE_HF_TRANSFER", "HF_XET_HIGH_PERFORMANCE"),
    // transformers/utils/hub.py replaced it with the variable of huggingface_hub.
    ("TRANSFORMERS_CACHE", "HF_HOME"),
    ("HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"),
    // torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp.
    (
        "NCCL_ASYNC_ERROR_HANDLING",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    ),
    ("NCCL_BLOCKING_WAIT", "TORCH_NCCL_BLOCKING_WAIT"),
];

/// The replacement of a deprecated variable.
pub fn successor(name: &str) -> Option<&'static str> {
    let mut deprecated = DEPRECATED_VARIABLES.iter();
    let (_, successor) = deprecated.find(|(old, _)| *old == name)?;
    Some(successor)
}

/// Variables of the image that contain search paths. A request that sets one replaces the whole
/// value, because `$PATH` is not expanded.
const SEARCH_PATHS: &[&str] = &[
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
];

/// Whether a variable of the image contains a search path.
pub fn is_search_path(name: &str) -> bool {
    SEARCH_PATHS.contains(&name)
}

/// Prefixes of variables that change what a process loads or runs.
const PROCESS_PREFIXES: &[&str] = &["LD_", "PYTHON", "DYLD_", "MALLOC_", "BASH_FUNC_"];
/// Other variables of this kind: of shells, interpreters, libraries that load code by name, and the
/// certificates that a process trusts.
#[rustfmt::skip]
const PROCESS_VARIABLES: &[&str] = &[
    "BASH_ENV", "CUDA_INJECTION32_PATH", "CUDA_INJECTION64_PATH", "CURL_CA_BUNDLE", "ENV",
    "GCONV_PATH", "GLIBC_TUNABLES", "HF_MODULES_CACHE", "HOME", "HOSTALIASES", "IFS",
    "LOCPATH", "NCCL_CONF_FILE", "NCCL_NET_PLUGIN", "NCCL_PROFILER_PLUGIN", "NCCL_TUNER_PLUGIN",
    "NODE_OPTIONS", "NVIDIA_DRIVER_CAPABILITIES", "OPENSSL_CONF", "OPENSSL_MODULES", "PATH",
    "PERL5LIB", "PERL5OPT", "REQUESTS_CA_BUNDLE", "RESOLV_HOST_CONF", "RUBYOPT", "SHELLOPTS",
    "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_LIBRARY_PATH", "TRITON_CACHE_DIR", "VIRTUAL_ENV",
];
/// Variables with such a prefix that load nothing.
#[rustfmt::skip]
const HARMLESS_VARIABLES: &[&str] = &[
    "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONIOENCODING",
    "PYTHONOPTIMIZE", "PYTHONUNBUFFERED", "PYTHONUTF8", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_",
];

/// Whether a variable changes what a process loads or runs, or whom it trusts.
pub fn changes_process(name: &str) -> bool {
    let is_of_kind = has_prefix(name, PROCESS_PREFIXES) || PROCESS_VARIABLES.contains(&name);
    is_of_kind && !HARMLESS_VARIABLES.contains(&name)
}

/// Whether a name is a DNS label (RFC 1123), as names of namespaces and frameworks must be.
pub fn is_dns_label(name: &str) -> bool {
    name.len() <= MAX_LABEL && is_dns_part(name)
}

/// Whether this is the name of an extended resource such as `nvidia.com/gpu`: not a native resource
/// of Kubernetes, nor the quota of a resource.
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

/// Whether a name is a DNS subdomain (RFC 1123).
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

/// `[-._a-zA-Z][-._a-zA-Z0-9]*`, the strict form that every version of Kubernetes accepts.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn is_reserved_prefix(prefix: &str) -> bool {
    RESERVED_PREFIXES
        .iter()
        .any(|reserved| is_within(prefix, reserved))
}

/// Whether a domain is another one or in it.
fn is_within(prefix: &str, domain: &str) -> bool {
    prefix
        .strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests;
