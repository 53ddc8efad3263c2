//! The TrainJob of a job: what its PyTorchJob says, in the terms of Kubeflow Trainer v2.
//!
//! A TrainJob has only what differs between jobs. The rest is in the runtime of its profile (see
//! [`super::runtime`]), which also has everything that a TrainJob cannot express.

use k8s_openapi::api::batch::v1::{JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, PodTemplateSpec, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::references::{in_command, in_value};
use super::runtime::runtime_name;
use super::{of_field, of_value};
use crate::keys::{CONTAINER, NODE, SUBMISSION_ANNOTATION};
use crate::profile::{PROFILE_ANNOTATION, SHARED_MEMORY_VOLUME};
use crate::pytorch_job::{PyTorchJob, ReplicaSpec};
use crate::train_job::{
    API_VERSION, JobSetSpec, JobSetTemplate, KIND, ReplicatedJob, RuntimePatch, RuntimeRef,
    RuntimeSpec, TrainJob, TrainJobSpec, Trainer,
};

/// Who patches the runtime. Kubeflow asks for the form of a path with a domain.
const MANAGER: &str = "trainer.deepfinery/service";
/// The port on which Kubeflow Trainer has the master listen.
const MASTER_PORT: &str = "29500";
/// Where a pod finds its rank.
const RANK_FIELD: &str = "metadata.annotations['batch.kubernetes.io/job-completion-index']";
/// Where a pod finds the name of its job, for each kind.
const NAME_FIELDS: (&str, &str) = (
    "metadata.labels['training.kubeflow.org/job-name']",
    "metadata.labels['jobset.sigs.k8s.io/jobset-name']",
);

/// The TrainJob that runs what a PyTorchJob of this service runs.
pub fn train_job(job: &PyTorchJob) -> TrainJob {
    let annotations = job.metadata.annotations.as_ref();
    let profile = annotations.and_then(|all| all.get(PROFILE_ANNOTATION));
    let specs = &job.spec.pytorch_replica_specs;
    let workers = specs.worker.as_ref().map_or(0, |worker| worker.replicas);
    let num_nodes = specs.master.replicas + workers;
    let run_policy = &job.spec.run_policy;
    TrainJob {
        api_version: API_VERSION,
        kind: KIND,
        metadata: job.metadata.clone(),
        spec: TrainJobSpec {
            runtime_ref: RuntimeRef {
                name: runtime_name(profile.map(String::as_str)),
            },
            trainer: trainer(job, num_nodes),
            runtime_patches: vec![patch(job)],
            active_deadline_seconds: run_policy.active_deadline_seconds,
            suspend: run_policy.suspend,
        },
    }
}

/// A warning if the job is to be deleted some time after its end, which a TrainJob cannot express. A
/// service that only creates TrainJobs refuses such profiles when it starts.
pub fn no_ttl_warning(job: &PyTorchJob) -> Option<String> {
    let seconds = job.spec.run_policy.ttl_seconds_after_finished?;
    Some(format!(
        "The profile sets ttl_seconds_after_finished to {seconds}, which has no effect on TrainJobs. \
         Delete the job with DELETE /train/{} when it has finished.",
        job.name()
    ))
}

fn trainer(job: &PyTorchJob, num_nodes: u32) -> Trainer {
    let container = container(&job.spec.pytorch_replica_specs.master);
    let command = container.and_then(|container| container.command.as_ref());
    let own = container.and_then(|container| container.env.as_ref());
    let num_proc_per_node = job.spec.nproc_per_node.parse().unwrap_or(1);
    let own = own.map_or(&[][..], Vec::as_slice);
    let mut env = operator_variables(job, num_nodes * num_proc_per_node);
    // The names must be unique, and what the job sets comes first.
    env.retain(|variable| own.iter().all(|set| set.name != variable.name));
    env.extend(own.iter().map(variable));
    Trainer {
        image: container
            .and_then(|container| container.image.clone())
            .unwrap_or_default(),
        num_nodes,
        num_proc_per_node,
        command: command
            .into_iter()
            .flatten()
            .map(|word| in_command(word))
            .collect(),
        env,
        resources_per_node: container.and_then(|container| container.resources.clone()),
    }
}

fn container(replica: &ReplicaSpec) -> Option<&Container> {
    let pod = replica.template.spec.as_ref()?;
    let mut containers = pod.containers.iter();
    containers.find(|container| container.name == CONTAINER)
}

/// The variables that the training operator sets and Kubeflow Trainer does not. They come first:
/// the kubelet expands a reference in a value only to a variable that is further up, and the `PET_`
/// variables are at the end.
fn operator_variables(job: &PyTorchJob, processes: u32) -> Vec<EnvVar> {
    let name = job.name();
    vec![
        of_value("PYTHONUNBUFFERED", "1".to_string()),
        of_value("MASTER_ADDR", format!("{name}-{NODE}-0-0.{name}")),
        of_value("MASTER_PORT", MASTER_PORT.to_string()),
        of_value("WORLD_SIZE", processes.to_string()),
        of_field("RANK", RANK_FIELD),
    ]
}

fn variable(of_pytorch_job: &EnvVar) -> EnvVar {
    let mut variable = of_pytorch_job.clone();
    if let Some(value) = &mut variable.value {
        *value = in_value(value);
    }
    let source = variable.value_from.as_mut();
    let field = source.and_then(|source| source.field_ref.as_mut());
    let (of_pytorch_job, of_train_job) = NAME_FIELDS;
    if let Some(field) = field.filter(|field| field.field_path == of_pytorch_job) {
        field.field_path = of_train_job.to_string();
    }
    variable
}

/// What the job changes in the pods of its runtime.
fn patch(job: &PyTorchJob) -> RuntimePatch {
    let template = &job.spec.pytorch_replica_specs.master.template;
    let pods = PodTemplateSpec {
        metadata: Some(pod_metadata(job, template.metadata.as_ref())),
        spec: template.spec.as_ref().map(pod_patch),
    };
    let job_template = JobTemplateSpec {
        metadata: None,
        spec: Some(JobSpec {
            template: pods,
            ..JobSpec::default()
        }),
    };
    let spec = JobSetSpec {
        replicated_jobs: vec![ReplicatedJob {
            name: NODE,
            replicas: None,
            template: job_template,
        }],
        ..JobSetSpec::default()
    };
    RuntimePatch {
        manager: MANAGER,
        training_runtime_spec: RuntimeSpec {
            ml_policy: None,
            pod_group_policy: None,
            template: JobSetTemplate {
                metadata: None,
                spec,
            },
        },
    }
}

/// The labels and annotations of the pods, with the id of the submission: the owner of a pod is a
/// Job, so nothing else in it identifies the TrainJob.
fn pod_metadata(job: &PyTorchJob, of_template: Option<&ObjectMeta>) -> ObjectMeta {
    let of_job = job.metadata.annotations.as_ref();
    let submission = of_job.and_then(|all| all.get_key_value(SUBMISSION_ANNOTATION));
    let mut metadata = of_template.cloned().unwrap_or_default();
    if let Some((key, id)) = submission {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(key.clone(), id.clone());
    }
    metadata
}

/// The parts of a pod that a patch may have and that the runtime does not.
fn pod_patch(pod: &PodSpec) -> PodSpec {
    let containers = pod.containers.iter();
    let containers = containers.map(|container| Container {
        name: NODE.to_string(),
        volume_mounts: mounts(container.volume_mounts.as_ref()),
        ..Container::default()
    });
    PodSpec {
        affinity: pod.affinity.clone(),
        containers: containers.collect(),
        image_pull_secrets: pod.image_pull_secrets.clone(),
        node_selector: pod.node_selector.clone(),
        service_account_name: pod.service_account_name.clone(),
        tolerations: pod.tolerations.clone(),
        volumes: of_job(pod.volumes.iter().flatten()),
        ..PodSpec::default()
    }
}

/// The mounts of a container, without that of the shared memory, which the runtime has.
fn mounts(all: Option<&Vec<VolumeMount>>) -> Option<Vec<VolumeMount>> {
    let all = all.into_iter().flatten();
    of_job(all.filter(|mount| mount.name != SHARED_MEMORY_VOLUME))
}

/// The volumes or mounts of a job that a patch adds. The runtime has the shared memory as well,
/// but only the job knows the limit of its size.
fn of_job<'a, T>(all: impl Iterator<Item = &'a T>) -> Option<Vec<T>>
where
    T: Clone + Serialize + DeserializeOwned + 'a,
{
    let own: Vec<T> = all.map(without_defaults).collect();
    (!own.is_empty()).then_some(own)
}

/// The same value without members that are `false` or empty texts. Kueue drops them when it writes
/// a job, the API server then takes that for a change of a field that must not change, and the job
/// never starts (kubeflow/trainer#3888).
fn without_defaults<T: Clone + Serialize + DeserializeOwned>(value: &T) -> T {
    let Ok(mut json) = serde_json::to_value(value) else {
        return value.clone();
    };
    prune(&mut json);
    serde_json::from_value(json).unwrap_or_else(|_| value.clone())
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| *member != Value::Bool(false) && member != "");
            members.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
