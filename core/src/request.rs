//! Step 1: turns the JSON of a request into a [`JobRequest`], or reports everything that is wrong
//! with it.
//!
//! [`TrainingJobRequest`] is the wire type, from which the JSON Schema of requests is generated.
//! [`JobRequest`] is what the later steps get: every field is valid and every default is filled in,
//! so nothing after this step checks again.

mod check;
mod env;
mod image;
pub mod json;
mod name;
pub mod schema;
mod secret;
pub mod size;
mod synonyms;
pub mod uri;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use check::Checker;
use env::EnvValue;
pub use name::{JobName, JobSize};
use schema::Schema;
use uri::{CHECKPOINT_SCHEMES, DATASET_SCHEMES, Scheme, StorageUri};

use crate::finding::{Code, Finding, MAX_FINDINGS};
use crate::job_kind::JobKind;
use crate::packages::{Images, Packages};
use crate::profile::{ChosenProfile, Profiles};
pub use crate::secret_key::SecretKey;
use crate::suggestion::nearest;

/// A training job, as a client requests it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "TrainingJobRequest")]
pub struct TrainingJobRequest {
    /// Framework that the container runs: the name of a loaded plugin.
    #[schemars(required, length(min = 1, max = 63))]
    framework: Option<String>,
    /// Human-readable identifier, forwarded to the trainer container.
    #[schemars(required, length(min = 1, max = 512))]
    model_id: Option<String>,
    /// Unique identifier of the run; becomes part of the PyTorchJob's name and of the prefix.
    #[schemars(
        required,
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"),
        extend("x-form" = "a valid run id; use letters, digits, '.', '_' and '-', starting and \
                           ending with a letter or digit")
    )]
    run_id: Option<String>,
    /// Bucket or prefix for all artifacts of the run. They are written to
    /// `<base>/<run_id>/framework=<framework>/`.
    #[schemars(required)]
    checkpoint_base_uri: Option<String>,
    /// Dataset location, forwarded to the trainer. A trailing slash marks a prefix.
    #[schemars(required)]
    dataset_uri: Option<String>,
    /// Trainer container image. Must bundle `train.py`.
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^\S+$"),
        extend("x-form" = "a valid image name, which contains no white space")
    )]
    image: Option<String>,
    /// Number of replicas of the PyTorchJob. Default 1.
    #[serde(default, deserialize_with = "whole")]
    #[schemars(range(min = 1, max = 10_000))]
    num_nodes: Option<u32>,
    /// GPUs per replica; becomes torchrun's `--nproc_per_node`. Default 1; 0 makes a CPU job with
    /// one process per node.
    #[serde(default, deserialize_with = "whole")]
    #[schemars(range(min = 0, max = 64))]
    gpus_per_node: Option<u32>,
    /// CPU request and limit of each replica.
    #[serde(default, deserialize_with = "whole")]
    #[schemars(range(min = 1, max = 4096))]
    cpus_per_node: Option<u32>,
    /// Memory request and limit of each replica, in GiB.
    #[serde(default, deserialize_with = "whole")]
    #[schemars(range(min = 1, max = 65_536))]
    memory_per_node_gb: Option<u32>,
    /// Path of a configuration file that `train.py` reads.
    #[schemars(length(min = 1, max = 1024))]
    config_path: Option<String>,
    /// Whether `train.py` resumes from the most recent checkpoint. Default false.
    resume_from_checkpoint: Option<bool>,
    /// Whether the run replaces the checkpoints of an earlier run under the same prefix. They are
    /// deleted once the run has committed its first checkpoint. Default false.
    overwrite: Option<bool>,
    /// Framework-specific flags, appended to the command line as `--<key> <value>`.
    extra_args: Option<Map<String, Value>>,
    /// Additional environment variables of each pod: texts, or keys of secrets of the namespace as
    /// `{"secret": NAME, "key": KEY}`.
    #[schemars(extend("maxProperties" = 256))]
    env: Option<BTreeMap<String, EnvValue>>,
    /// Copied to the metadata of the PyTorchJob and its pods.
    #[schemars(extend("maxProperties" = 64))]
    labels: Option<BTreeMap<String, String>>,
    /// Copied to the metadata of the PyTorchJob and its pods.
    #[schemars(extend("maxProperties" = 64))]
    annotations: Option<BTreeMap<String, String>>,
    /// Namespace of the PyTorchJob. Default: the service's own.
    namespace: Option<String>,
    /// Explicit name of the PyTorchJob.
    job_name: Option<String>,
}

/// A valid training job, ready to be planned: every field is valid and every default is filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRequest {
    pub framework: String,
    pub model_id: String,
    pub run_id: String,
    pub checkpoint_base_uri: StorageUri,
    pub dataset_uri: StorageUri,
    pub image: String,
    pub num_nodes: u32,
    pub gpus_per_node: u32,
    pub cpus_per_node: Option<u32>,
    /// In GiB.
    pub memory_per_node_gb: Option<u32>,
    pub config_path: Option<String>,
    pub resume_from_checkpoint: bool,
    pub overwrite: bool,
    /// Without `null` members, which mean "not set".
    pub extra_args: Map<String, Value>,
    pub env: BTreeMap<String, String>,
    /// Variables of `env` whose values are keys of secrets.
    pub secrets: BTreeMap<String, SecretKey>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub namespace: String,
    pub name: JobName,
    /// What the job will be on Kubernetes.
    pub job_kind: JobKind,
    /// The operator's settings for where and how the job runs.
    pub profile: Option<ChosenProfile>,
    /// The packages of the image, if they are known.
    pub packages: Option<Arc<Packages>>,
}

impl JobRequest {
    /// Memory of a GPU in GiB, where the profile says so.
    pub fn gpu_memory_gb(&self) -> Option<u32> {
        self.profile.as_ref()?.profile.gpu_memory_gb
    }
}

/// The namespaces that this host may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedNamespaces {
    All,
    Only(BTreeSet<String>),
}

/// A namespace that this host may not use.
#[derive(Debug, thiserror::Error)]
#[error("namespace {given:?} is not allowed on this service; allowed: {}", known.join(", "))]
pub struct NamespaceNotAllowed {
    given: String,
    known: Vec<String>,
}

impl AllowedNamespaces {
    /// Checks that a namespace may be used.
    ///
    /// # Errors
    ///
    /// [`NamespaceNotAllowed`], with the namespaces that may be used.
    pub fn check(&self, namespace: &str) -> Result<(), NamespaceNotAllowed> {
        match self {
            Self::Only(names) if !names.contains(namespace) => Err(NamespaceNotAllowed {
                given: namespace.to_string(),
                known: names.iter().cloned().collect(),
            }),
            Self::All | Self::Only(_) => Ok(()),
        }
    }
}

/// The operator's policy: what requests may contain, and the defaults of omitted fields.
#[derive(Clone, Debug)]
pub struct RequestPolicy {
    pub default_image: String,
    pub default_namespace: String,
    pub default_cpus_per_node: Option<u32>,
    /// In GiB.
    pub default_memory_per_node_gb: Option<u32>,
    pub dataset_schemes: Vec<Scheme>,
    pub checkpoint_schemes: Vec<Scheme>,
    pub profiles: Profiles,
    /// The secrets that `env` may name; none for all.
    pub secrets: Option<Vec<String>>,
    pub namespaces: AllowedNamespaces,
    /// What jobs will be on Kubernetes.
    pub job_kind: JobKind,
    /// What is known about the packages of images.
    pub images: Images,
}

/// The specification's default for `image`.
pub const DEFAULT_IMAGE: &str = "ghcr.io/deepfinery/trainer:latest";

impl Default for RequestPolicy {
    fn default() -> Self {
        Self {
            default_image: DEFAULT_IMAGE.to_string(),
            default_namespace: "default".to_string(),
            default_cpus_per_node: None,
            default_memory_per_node_gb: None,
            dataset_schemes: DATASET_SCHEMES.to_vec(),
            checkpoint_schemes: CHECKPOINT_SCHEMES.to_vec(),
            profiles: Profiles::default(),
            secrets: None,
            namespaces: AllowedNamespaces::All,
            job_kind: JobKind::default(),
            images: Images::default(),
        }
    }
}

/// The compiled schema of each loaded framework's `extra_args`, by the framework's name.
pub type ArgumentSchemas = BTreeMap<String, Arc<Schema>>;

/// A request, checked as far as the host can without calling the plugin.
#[derive(Debug)]
pub struct Checked {
    pub request: Arc<JobRequest>,
    /// The findings of the plugin's schema about `extra_args`. The plugin's own findings about the
    /// same place take precedence, because their wording is better. None if this check would take
    /// long: the caller of the plugin then performs it.
    pub argument_faults: Option<Vec<Finding>>,
    pub warnings: Vec<Finding>,
}

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| schemars::schema_for!(TrainingJobRequest).to_value());

static COMPILED: LazyLock<Result<Schema, String>> = LazyLock::new(|| Schema::compile(&SCHEMA));

/// The JSON Schema (draft 2020-12) of a request.
pub fn json_schema() -> &'static Value {
    &SCHEMA
}

/// The maximum size of `extra_args` as JSON, in bytes. They are passed in one environment variable,
/// which Linux limits to 128 KiB.
const MAX_ARGUMENTS_BYTES: usize = 64 * 1024;

/// Checks a request against the schema, the loaded frameworks and the operator's policy.
///
/// # Errors
///
/// All findings about the request, including `extra_args` if the framework is known, but not many
/// more than [`MAX_FINDINGS`].
pub fn check(
    mut value: Value,
    frameworks: &ArgumentSchemas,
    policy: &RequestPolicy,
) -> Result<Checked, Vec<Finding>> {
    let schema = match &*COMPILED {
        Ok(schema) => schema,
        Err(error) => return Err(vec![Finding::new(Code::Schema, "", error.as_str())]),
    };
    let too_large = take_large_arguments(&mut value);
    let framework = value["framework"]
        .as_str()
        .and_then(|name| frameworks.get(name));
    let mut findings = schema.findings_with(&value, "", &|name| meant(name, framework));
    let wire = deserialize_valid_fields(value, &findings);
    findings.extend(too_large);
    let mut checker = Checker::new(frameworks, policy, findings);
    let request = checker.check(wire);
    let Checker {
        mut findings,
        argument_faults,
        warnings,
        ..
    } = checker;
    match request {
        Some(request) if findings.is_empty() => Ok(Checked {
            request: Arc::new(request),
            argument_faults,
            warnings,
        }),
        _ => {
            findings.extend(argument_faults.into_iter().flatten());
            if findings.is_empty() {
                let detail = "request: does not match the schema; GET /openapi.json describes \
                              every field";
                findings.push(Finding::new(Code::Schema, "", detail));
            }
            Err(findings)
        }
    }
}

/// Removes `extra_args` from a request if they are too large to check.
fn take_large_arguments(value: &mut Value) -> Option<Finding> {
    let arguments = value.get_mut("extra_args")?;
    let bytes = size::json_bytes(arguments);
    if bytes <= MAX_ARGUMENTS_BYTES {
        return None;
    }
    arguments.take();
    let detail = format!(
        "extra_args: {bytes} bytes of JSON, but at most {MAX_ARGUMENTS_BYTES} are allowed; put \
         large data into a file and set config_path to it"
    );
    Some(Finding::new(Code::Size, "/extra_args", detail))
}

/// The field or framework argument that the user probably meant by an unknown field name.
fn meant(name: &str, framework: Option<&Arc<Schema>>) -> Option<String> {
    let argument = || framework.and_then(|schema| schema.property(name));
    let fields = || SCHEMA["properties"].as_object().into_iter().flatten();
    synonyms::field_meant(name)
        .map(str::to_string)
        .or_else(|| argument().map(|name| format!("extra_args.{name}")))
        .or_else(|| nearest(name, fields().map(|(field, _)| field.as_str())).map(str::to_string))
}

/// Deserializes the members of a request that the schema accepts; none of them if there were too
/// many findings to check every member.
fn deserialize_valid_fields(mut value: Value, findings: &[Finding]) -> TrainingJobRequest {
    if findings.len() > MAX_FINDINGS {
        return TrainingJobRequest::empty();
    }
    for finding in findings {
        let Some((parent, token)) = finding.pointer.rsplit_once('/') else {
            return TrainingJobRequest::empty();
        };
        let name = token.replace("~1", "/").replace("~0", "~");
        if let Some(Value::Object(members)) = value.pointer_mut(parent) {
            members.remove(&name);
        }
    }
    // The schema has accepted the remaining members, so they can be deserialized.
    serde_json::from_value(value).unwrap_or_else(|_| TrainingJobRequest::empty())
}

/// Deserializes an integer. JSON has only one number type, so 4.0 is 4.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = Option::<f64>::deserialize(deserializer)?;
    // The schema has checked that this is an integer in range; a cast saturates in any case.
    Ok(number.map(|number| number as u32))
}

impl TrainingJobRequest {
    fn empty() -> Self {
        Self {
            framework: None,
            model_id: None,
            run_id: None,
            checkpoint_base_uri: None,
            dataset_uri: None,
            image: None,
            num_nodes: None,
            gpus_per_node: None,
            cpus_per_node: None,
            memory_per_node_gb: None,
            config_path: None,
            resume_from_checkpoint: None,
            overwrite: None,
            extra_args: None,
            env: None,
            labels: None,
            annotations: None,
            namespace: None,
            job_name: None,
        }
    }
}
