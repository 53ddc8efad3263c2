//! Step 3: turns a request and its plan into a job. This is pure and cannot fail.
//!
//! The job is a PyTorchJob, the form in which the host and the local cluster handle it. A cluster
//! that creates TrainJobs gets the [`train_job()`] of it. The shape of the PyTorchJob is what the training operator (kubeflow/trainer v1.9.4) accepts and what experienced
//! users write by hand: a container named `pytorch`, a Master with exactly one replica, the exec
//! form of the command, the number of processes as a string.

mod identity;
mod owner;
mod placement;
mod recovered;
mod references;
mod resources;
mod runtime;
mod security;
mod size;
mod train_job;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec, PodTemplateSpec,
    SecretKeySelector,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

pub use identity::{identify, identity_variables};
pub use owner::{label_of, record_owner};
pub use recovered::{recover_arguments, recovered, recovered_fields};
pub use resources::gpus_per_replica;
pub use runtime::{runtime_name, runtimes};
pub use size::{check_size, record_warnings};
pub use train_job::{no_ttl_warning, train_job};

use crate::job_kind::JobKind;

use crate::json::to_string;
use crate::keys::{
    CHECKPOINT_LAYOUT_ANNOTATION, CHECKPOINT_PREFIX_ANNOTATION, CONTAINER, DATASET_URI_ANNOTATION,
    FRAMEWORK_LABEL, MODEL_ID_ANNOTATION, PLUGIN_ANNOTATION, PLUGIN_DIGEST_ANNOTATION,
    PLUGIN_VERSION_ANNOTATION, PRIORITY_CLASS_LABEL, QUEUE_LABEL, RESOLVED_ARGS_ANNOTATION,
    RESUME_VARIABLE, RUN_ID_LABEL,
};
use crate::metadata::OVERWRITE_VARIABLE;
use crate::plan::{Plan, Text};
use crate::profile::{PROFILE_ANNOTATION, Profile};
use crate::pytorch_job::{
    API_VERSION, CleanPodPolicy, KIND, PyTorchJob, PyTorchJobSpec, ReplicaSpec, ReplicaSpecs,
    RestartPolicy, RunPolicy,
};
use crate::request::{JobRequest, SecretKey};
use crate::train_job::TrainJob;
use resources::resources;
use volumes::{claims, mounts, shared_memory_limit, volumes};

/// How many crashes of the whole job are tolerated. The operator counts restarts across all
/// replicas, and a crash of one replica usually crashes the others.
const CRASHES: u32 = 3;
/// Seconds that a pod has to save a last checkpoint after SIGTERM.
const GRACE_SECONDS: i64 = 120;

/// An Istio sidecar never exits, so the job would never succeed.
const NO_SIDECAR: [(&str, &str); 1] = [("sidecar.istio.io/inject", "false")];
/// Has the kubelet keep the end of the log, which explains why the container failed.
const LAST_LINES: &str = "FallbackToLogsOnError";

/// A job in the form in which a cluster creates it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Manifest {
    PyTorchJob(Box<PyTorchJob>),
    TrainJob(Box<TrainJob>),
}

impl Manifest {
    /// The manifest of a job as this kind.
    pub fn of(job: PyTorchJob, kind: JobKind) -> Self {
        match kind {
            JobKind::PyTorchJob => Self::PyTorchJob(Box::new(job)),
            JobKind::TrainJob => Self::TrainJob(Box::new(train_job(&job))),
        }
    }
}

/// The PyTorchJob of a request and its plan.
pub fn manifest(request: &JobRequest, plan: &Plan) -> PyTorchJob {
    let profile = request.profile.as_ref().map(|chosen| &chosen.profile);
    let template = template(request, plan);
    let replica = |replicas| ReplicaSpec {
        replicas,
        restart_policy: RestartPolicy::OnFailure,
        template: template.clone(),
    };
    PyTorchJob {
        api_version: API_VERSION.to_string(),
        kind: KIND.to_string(),
        metadata: ObjectMeta {
            name: Some(request.name.as_str().to_string()),
            namespace: Some(request.namespace.clone()),
            labels: Some(labels(request)),
            annotations: Some(annotations(request, plan)),
            ..ObjectMeta::default()
        },
        spec: PyTorchJobSpec {
            nproc_per_node: request.gpus_per_node.max(1).to_string(),
            run_policy: RunPolicy {
                clean_pod_policy: CleanPodPolicy::Running,
                backoff_limit: profile
                    .and_then(|profile| profile.backoff_limit)
                    .unwrap_or(CRASHES * request.num_nodes),
                ttl_seconds_after_finished: profile.and_then(|p| p.ttl_seconds_after_finished),
                active_deadline_seconds: profile.and_then(|p| p.active_deadline_seconds),
                suspend: None,
                scheduling_policy: profile.and_then(|profile| {
                    let policy = profile.scheduling_policy.as_ref()?;
                    let class = profile.priority_class.as_deref();
                    Some(policy.of_pytorch_job(request.num_nodes, class))
                }),
            },
            pytorch_replica_specs: ReplicaSpecs {
                master: replica(1),
                // The webhook rejects a Worker with zero replicas.
                worker: (request.num_nodes > 1).then(|| replica(request.num_nodes - 1)),
            },
        },
        status: None,
    }
}

fn labels(request: &JobRequest) -> BTreeMap<String, String> {
    let own = [
        ("app.kubernetes.io/managed-by", "trainer"),
        (FRAMEWORK_LABEL, &request.framework),
        (RUN_ID_LABEL, &request.run_id),
    ];
    let profile = request.profile.as_ref().map(|chosen| &chosen.profile);
    let queue = profile.and_then(|profile| Some((QUEUE_LABEL, profile.queue.as_deref()?)));
    // A priority class that the profile allows replaces the profile's own.
    let is_chosen = |key: &str| key == PRIORITY_CLASS_LABEL && request.labels.contains_key(key);
    let of_operator = profile
        .into_iter()
        .flat_map(|profile| pairs(&profile.labels))
        .filter(|(key, _)| !is_chosen(key));
    with_own(&request.labels, of_operator.chain(own).chain(queue))
}

fn annotations(request: &JobRequest, plan: &Plan) -> BTreeMap<String, String> {
    let layout = to_string(&plan.layout);
    let own = [
        (MODEL_ID_ANNOTATION, request.model_id.as_str()),
        (DATASET_URI_ANNOTATION, request.dataset_uri.as_str()),
        (CHECKPOINT_PREFIX_ANNOTATION, &plan.layout.prefix),
        (CHECKPOINT_LAYOUT_ANNOTATION, &layout),
        (PLUGIN_ANNOTATION, &plan.plugin.name),
        (PLUGIN_VERSION_ANNOTATION, &plan.plugin.version),
        (PLUGIN_DIGEST_ANNOTATION, &plan.plugin.digest),
        (RESOLVED_ARGS_ANNOTATION, plan.resolved_args.get()),
    ];
    let profile = request.profile.as_ref();
    let name = profile.map(|chosen| (PROFILE_ANNOTATION, chosen.name.as_str()));
    with_own(
        &request.annotations,
        of_operator(request).chain(own).chain(name),
    )
}

/// The annotations of the operator's profile, which come before those of the request.
fn of_operator(request: &JobRequest) -> impl Iterator<Item = (&str, &str)> {
    let profile = request.profile.as_ref().map(|chosen| &chosen.profile);
    profile
        .into_iter()
        .flat_map(|profile| pairs(&profile.annotations))
}

fn pairs(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
}

fn with_own<'a>(
    requested: &BTreeMap<String, String>,
    own: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<String, String> {
    let own = own.into_iter();
    let own = own.map(|(key, value)| (key.to_string(), value.to_string()));
    requested.clone().into_iter().chain(own).collect()
}

fn template(request: &JobRequest, plan: &Plan) -> PodTemplateSpec {
    let claims = claims(request);
    let default = Profile::default();
    let chosen = request.profile.as_ref();
    let profile = chosen.map_or(&default, |chosen| &chosen.profile);
    let shared_memory = shared_memory_limit(profile, request.memory_per_node_gb);
    let mut pod = PodSpec {
        containers: vec![container(request, plan, &claims)],
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        volumes: Some(volumes(&claims, shared_memory)),
        ..PodSpec::default()
    };
    placement::place(&mut pod, profile);
    security::restrict(&mut pod, profile);
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels(request)),
            annotations: Some(with_own(
                &request.annotations,
                of_operator(request).chain(NO_SIDECAR),
            )),
            ..ObjectMeta::default()
        }),
        spec: Some(pod),
    }
}

fn container(request: &JobRequest, plan: &Plan, claims: &[&str]) -> Container {
    Container {
        name: CONTAINER.to_string(),
        image: Some(request.image.clone()),
        command: Some(plan.command.iter().map(escaped).collect()),
        env: Some(
            environment(request, plan)
                .into_iter()
                .map(|(name, value)| variable(name, value))
                .collect(),
        ),
        resources: resources(request),
        volume_mounts: Some(mounts(claims)),
        ..Container::default()
    }
}

/// The value of a variable of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariableValue {
    Text(Text),
    Secret(SecretKey),
}

fn variable(name: String, value: VariableValue) -> EnvVar {
    match value {
        VariableValue::Text(text) => EnvVar {
            name,
            value: Some(escaped(&text)),
            ..EnvVar::default()
        },
        VariableValue::Secret(SecretKey { secret, key }) => EnvVar {
            name,
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: secret,
                    key,
                    ..SecretKeySelector::default()
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        },
    }
}

/// The variables of a pod, in order: the plugin's, the profile's and the request's (each overrides
/// those before), and last those that identify the run, which only this function sets.
pub fn environment(request: &JobRequest, plan: &Plan) -> Vec<(String, VariableValue)> {
    let profile = request.profile.as_ref().map(|chosen| &chosen.profile);
    let is_requested =
        |name: &String| request.env.contains_key(name) || request.secrets.contains_key(name);
    let is_of_profile = |name: &String| {
        profile.is_some_and(|p| p.env.contains_key(name) || p.env_secrets.contains_key(name))
    };
    let plugin = plan
        .environment
        .iter()
        .filter(|setting| !is_requested(&setting.name) && !is_of_profile(&setting.name))
        .map(|setting| {
            let value = VariableValue::Text(setting.value.clone());
            (setting.name.clone(), value)
        });
    let of_profile = profile
        .into_iter()
        .flat_map(|profile| given(&profile.env, &profile.env_secrets))
        .filter(|(name, _)| !is_requested(name));
    plugin
        .chain(of_profile)
        .chain(given(&request.env, &request.secrets))
        .chain(identity(request, plan))
        .collect()
}

/// Texts and keys of secrets that somebody gave.
fn given(
    texts: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, SecretKey>,
) -> impl Iterator<Item = (String, VariableValue)> {
    let texts = texts.iter().map(|(name, text)| {
        let value = VariableValue::Text(Text::Literal(text.clone()));
        (name.clone(), value)
    });
    let secrets = secrets
        .iter()
        .map(|(name, key)| (name.clone(), VariableValue::Secret(key.clone())));
    texts.chain(secrets)
}

fn identity(request: &JobRequest, plan: &Plan) -> Vec<(String, VariableValue)> {
    let layout = &plan.layout;
    let num_nodes = request.num_nodes.to_string();
    let gpus_per_node = request.gpus_per_node.to_string();
    let mut identity = vec![
        ("FRAMEWORK", request.framework.as_str()),
        ("MODEL_ID", &request.model_id),
        ("RUN_ID", &request.run_id),
        ("NUM_NODES", &num_nodes),
        ("GPUS_PER_NODE", &gpus_per_node),
        ("CHECKPOINT_BASE_URI", request.checkpoint_base_uri.as_str()),
        ("CHECKPOINT_PREFIX", &layout.prefix),
        ("CHECKPOINTS_URI", &layout.checkpoints_uri),
        ("LOGS_URI", &layout.logs_uri),
        ("CONFIG_URI", &layout.config_uri),
        ("DATASET_URI", request.dataset_uri.as_str()),
    ];
    if let Some(path) = &request.config_path {
        identity.push(("CONFIG_PATH", path));
    }
    if request.resume_from_checkpoint {
        identity.push((RESUME_VARIABLE, "1"));
    }
    if request.overwrite {
        identity.push((OVERWRITE_VARIABLE, "1"));
    }
    let text = |value: &str| VariableValue::Text(Text::Literal(value.to_string()));
    identity
        .into_iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// Escapes a text for the manifest. The kubelet expands `$(NAME)` in commands and values and reads
/// `$$` as `$`, so the dollar signs of a literal are doubled, here and nowhere else. Otherwise a
/// request could read any variable of the pod into a flag.
fn escaped(text: &Text) -> String {
    match text {
        Text::Literal(text) => text.replace('$', "$$"),
        Text::Template(text) => text.clone(),
    }
}

fn of_value(name: impl Into<String>, value: String) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value),
        ..EnvVar::default()
    }
}

/// A variable whose value is a field of the pod.
fn of_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_string(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_string(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
