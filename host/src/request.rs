//! Step 1: a request's JSON becomes a [`JobRequest`], or everything that is wrong with it.
//!
//! [`TrainingJobRequest`] is the wire type: the JSON Schema is generated from it and says what a
//! request may hold. [`JobRequest`] is what the later steps get: each field valid, each default
//! filled, so nothing after this step checks again.

pub mod json;
pub mod metadata;
mod name;
pub mod schema;
pub mod uri;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

pub use name::JobName;
use schema::{Schema, field};
use uri::{Scheme, StorageUri, UriRole};

use crate::fault::{Fault, nearest, pointer};

/// A training job as a client asks for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "TrainingJobRequest")]
pub struct TrainingJobRequest {
    /// Which framework the container executes: the name of a loaded plugin.
    #[schemars(required, length(min = 1, max = 63))]
    framework: Option<String>,
    /// Human-readable identifier, forwarded to the trainer container.
    #[schemars(required, length(min = 1, max = 512))]
    model_id: Option<String>,
    /// Unique identifier of the run; becomes part of the PyTorchJob's name and of the prefix.
    #[schemars(
        required,
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    )]
    run_id: Option<String>,
    /// Bucket or prefix for all artifacts of the run, which go to
    /// `<base>/<run_id>/framework=<framework>/`.
    #[schemars(required)]
    checkpoint_base_uri: Option<String>,
    /// Dataset location, forwarded to the trainer. A trailing slash marks a prefix.
    #[schemars(required)]
    dataset_uri: Option<String>,
    /// Trainer container image. Must bundle `train.py`.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    image: Option<String>,
    /// Number of replicas of the PyTorchJob. Default 1.
    #[serde(default, deserialize_with = "whole")]
    #[schemars(range(min = 1, max = 10_000))]
    num_nodes: Option<u32>,
    /// GPUs of each replica; maps to torchrun's `--nproc_per_node`. Default 1; 0 is a CPU job with
    /// one process a node.
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
    /// Path of a configuration that `train.py` consumes.
    #[schemars(length(min = 1, max = 1024))]
    config_path: Option<String>,
    /// Whether `train.py` resumes from the most recent checkpoint. Default false.
    resume_from_checkpoint: Option<bool>,
    /// Framework-specific flags, appended to the command line as `--<key> <value>`.
    extra_args: Option<Map<String, Value>>,
    /// Further environment variables of each pod.
    #[schemars(extend("maxProperties" = 256))]
    env: Option<BTreeMap<String, String>>,
    /// Copied to the metadata of the PyTorchJob and of its pods.
    #[schemars(extend("maxProperties" = 64))]
    labels: Option<BTreeMap<String, String>>,
    /// Copied to the metadata of the PyTorchJob and of its pods.
    #[schemars(extend("maxProperties" = 64))]
    annotations: Option<BTreeMap<String, String>>,
    /// Namespace of the PyTorchJob. Default: the service's own.
    namespace: Option<String>,
    /// Explicit name of the PyTorchJob.
    job_name: Option<String>,
}

/// A training job that can be planned: every field valid, every default filled.
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
    /// Without members that are `null`, which means "not given".
    pub extra_args: Map<String, Value>,
    pub env: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub namespace: String,
    pub name: JobName,
}

/// What the operator of this host allows, and what stands for fields that a request leaves out.
#[derive(Clone, Debug)]
pub struct RequestPolicy {
    pub default_image: String,
    pub default_namespace: String,
    pub default_cpus_per_node: Option<u32>,
    /// In GiB.
    pub default_memory_per_node_gb: Option<u32>,
    pub dataset_schemes: Vec<Scheme>,
    pub checkpoint_schemes: Vec<Scheme>,
}

/// The compiled schema of each loaded framework's `extra_args`, by the framework's name.
pub type ArgumentSchemas = BTreeMap<String, Schema>;

/// What the request says, checked as far as the host can check it alone.
#[derive(Debug)]
pub struct Checked {
    pub request: Arc<JobRequest>,
    /// What the plugin's schema finds wrong with `extra_args`. The plugin is asked before these
    /// are told, since its own words for the same fault are better.
    pub argument_faults: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| schemars::schema_for!(TrainingJobRequest).to_value());

static COMPILED: LazyLock<Result<Schema, String>> = LazyLock::new(|| Schema::compile(&SCHEMA));

/// The JSON Schema (draft 2020-12) of a request.
pub fn json_schema() -> &'static Value {
    &SCHEMA
}

/// Checks a request against the schema, the loaded frameworks and the operator's policy.
///
/// # Errors
///
/// Every fault of the request at once, `extra_args` included where the framework is known.
pub fn check(
    value: Value,
    frameworks: &ArgumentSchemas,
    policy: &RequestPolicy,
) -> Result<Checked, Vec<Fault>> {
    let schema = match &*COMPILED {
        Ok(schema) => schema,
        Err(error) => return Err(vec![Fault::new("schema", "", error.as_str())]),
    };
    let mut faults = schema.faults(&value, "");
    let wire = read_what_is_sound(value, &faults).unwrap_or_else(|fault| {
        faults.push(fault);
        TrainingJobRequest::empty()
    });
    let mut checker = Checker {
        frameworks,
        policy,
        faults,
        argument_faults: Vec::new(),
        warnings: Vec::new(),
    };
    let request = checker.check(wire);
    let Checker {
        mut faults,
        argument_faults,
        warnings,
        ..
    } = checker;
    match request {
        Some(request) if faults.is_empty() => Ok(Checked {
            request: Arc::new(request),
            argument_faults,
            warnings,
        }),
        _ => {
            faults.extend(argument_faults);
            Err(faults)
        }
    }
}

/// The members of a request that the schema finds nothing wrong with.
fn read_what_is_sound(mut value: Value, faults: &[Fault]) -> Result<TrainingJobRequest, Fault> {
    for fault in faults {
        let Some((parent, token)) = fault.pointer.rsplit_once('/') else {
            return Ok(TrainingJobRequest::empty());
        };
        let name = token.replace("~1", "/").replace("~0", "~");
        if let Some(Value::Object(members)) = value.pointer_mut(parent) {
            members.remove(&name);
        }
    }
    serde_json::from_value(value)
        .map_err(|error| Fault::new("schema", "", format!("request: {error}")))
}

/// A whole number. JSON has one kind of number, so 4.0 is 4.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = Option::<f64>::deserialize(deserializer)?;
    // The schema has checked range and wholeness; a cast saturates in any case.
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
            extra_args: None,
            env: None,
            labels: None,
            annotations: None,
            namespace: None,
            job_name: None,
        }
    }
}

/// Checks what no schema can say, and collects the faults.
struct Checker<'a> {
    frameworks: &'a ArgumentSchemas,
    policy: &'a RequestPolicy,
    faults: Vec<Fault>,
    argument_faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Checker<'_> {
    /// The valid request, if every field that it needs is there and sound.
    fn check(&mut self, wire: TrainingJobRequest) -> Option<JobRequest> {
        // A new field breaks the build here, where it has to be considered.
        let TrainingJobRequest {
            framework,
            model_id,
            run_id,
            checkpoint_base_uri,
            dataset_uri,
            image,
            num_nodes,
            gpus_per_node,
            cpus_per_node,
            memory_per_node_gb,
            config_path,
            resume_from_checkpoint,
            extra_args,
            env,
            labels,
            annotations,
            namespace,
            job_name,
        } = wire;
        let num_nodes = num_nodes.unwrap_or(1);
        let mut extra_args = extra_args.unwrap_or_default();
        extra_args.retain(|_, value| !value.is_null());

        let framework = framework.and_then(|name| self.framework(name, &extra_args));
        for (name, text) in [("model_id", &model_id), ("config_path", &config_path)] {
            self.no_control_characters(name, text.as_deref());
        }
        let checkpoint_base_uri = checkpoint_base_uri
            .and_then(|text| self.uri(UriRole::Checkpoint, "checkpoint_base_uri", &text));
        let dataset_uri =
            dataset_uri.and_then(|text| self.uri(UriRole::Dataset, "dataset_uri", &text));
        let env = env.unwrap_or_default();
        self.environment(&env);
        let labels = labels.unwrap_or_default();
        self.labels(&labels);
        let annotations = annotations.unwrap_or_default();
        self.annotations(&annotations);
        let namespace = namespace.unwrap_or_else(|| self.policy.default_namespace.clone());
        self.keep("name", "namespace", metadata::check_namespace(&namespace));
        let name = match (job_name, &framework, &run_id) {
            (Some(name), ..) => self.keep("name", "job_name", JobName::given(&name, num_nodes)),
            (None, Some(framework), Some(run_id)) => {
                Some(JobName::made(framework, run_id, num_nodes))
            }
            _ => None,
        };
        Some(JobRequest {
            framework: framework?,
            model_id: model_id?,
            run_id: run_id?,
            checkpoint_base_uri: checkpoint_base_uri?,
            dataset_uri: dataset_uri?,
            image: image.unwrap_or_else(|| self.policy.default_image.clone()),
            num_nodes,
            gpus_per_node: gpus_per_node.unwrap_or(1),
            cpus_per_node: cpus_per_node.or(self.policy.default_cpus_per_node),
            memory_per_node_gb: memory_per_node_gb.or(self.policy.default_memory_per_node_gb),
            config_path,
            resume_from_checkpoint: resume_from_checkpoint.unwrap_or(false),
            extra_args,
            env,
            labels,
            annotations,
            namespace,
            name: name?,
        })
    }

    fn framework(&mut self, name: String, extra_args: &Map<String, Value>) -> Option<String> {
        if let Some(schema) = self.frameworks.get(&name) {
            let extra_args = Value::Object(extra_args.clone());
            self.argument_faults = schema.faults(&extra_args, "/extra_args");
            return Some(name);
        }
        let known: Vec<&str> = self.frameworks.keys().map(String::as_str).collect();
        let hint = nearest(known.iter().copied(), &name)
            .map(|near| format!(", did you mean \"{near}\"?"))
            .unwrap_or_default();
        let detail = format!(
            "framework: {} is not loaded here; known: {}{hint}",
            schema::quote(&Value::from(name)),
            known.join(", ")
        );
        self.fault("unknown-framework", "framework", detail);
        None
    }

    fn uri(&mut self, role: UriRole, name: &str, text: &str) -> Option<StorageUri> {
        let allowed = match role {
            UriRole::Dataset => &self.policy.dataset_schemes,
            UriRole::Checkpoint => &self.policy.checkpoint_schemes,
        };
        self.keep("uri", name, StorageUri::parse(role, text, allowed))
    }

    fn environment(&mut self, env: &BTreeMap<String, String>) {
        for (name, value) in env {
            let at = pointer(["env", name.as_str()]);
            if let Err(fault) = metadata::check_request_variable(name) {
                let detail = format!("{}: {fault}", field(&at));
                self.faults.push(Fault::new("environment", at, detail));
            } else if value.contains('\0') {
                let detail = format!("{}: must not hold a NUL character", field(&at));
                self.faults.push(Fault::new("environment", at, detail));
            } else if metadata::looks_secret(name) && !value.is_empty() {
                let detail = format!(
                    "{}: a secret in env stands in the PyTorchJob in clear; \
                     mount a Kubernetes Secret instead",
                    field(&at)
                );
                self.warnings.push(Fault::new("secret-in-env", at, detail));
            }
        }
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        for (key, value) in labels {
            let checked =
                metadata::check_key(key).and_then(|()| metadata::check_label_value(value));
            self.metadata("labels", key, checked);
        }
    }

    fn annotations(&mut self, annotations: &BTreeMap<String, String>) {
        for key in annotations.keys() {
            self.metadata("annotations", key, metadata::check_key(key));
        }
        let size: usize = annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
        if size > metadata::MAX_ANNOTATIONS_BYTES {
            let most = metadata::MAX_ANNOTATIONS_BYTES;
            let detail = format!("annotations: {size} bytes are more than the {most} allowed");
            self.fault("length", "annotations", detail);
        }
    }

    fn metadata(&mut self, name: &str, key: &str, checked: Result<(), metadata::NameFault>) {
        if let Err(fault) = checked {
            let detail = format!("{name}: {}: {fault}", schema::quote(&Value::from(key)));
            self.faults
                .push(Fault::new("name", pointer([name, key]), detail));
        }
    }

    fn no_control_characters(&mut self, name: &str, text: Option<&str>) {
        if text.is_some_and(|text| text.chars().any(char::is_control)) {
            let detail = format!("{name}: control characters are not allowed");
            self.fault("format", name, detail);
        }
    }

    fn keep<T>(
        &mut self,
        code: &str,
        name: &str,
        checked: Result<T, impl std::fmt::Display>,
    ) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(fault) => {
                self.fault(code, name, format!("{name}: {fault}"));
                None
            }
        }
    }

    fn fault(&mut self, code: &str, name: &str, detail: String) {
        self.faults.push(Fault::new(code, pointer([name]), detail));
    }
}
