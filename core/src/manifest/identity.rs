//! Variables of a replica that identify its job and what created it.
//!
//! They are not part of a plan: the job is only known when it is created, and two versions of a
//! plugin with the same plan should have the same preview.

use k8s_openapi::api::core::v1::EnvVar;

use super::{LAST_LINES, escaped, of_field, of_value};
use crate::keys::{
    CONTAINER, PLUGIN_ANNOTATION, PLUGIN_DIGEST_ANNOTATION, PLUGIN_VERSION_ANNOTATION,
    RESOLVED_ARGS_ANNOTATION,
};
use crate::metadata::{FAILURE_FILE_VARIABLE, JOB_NAME_VARIABLE, JOB_NAMESPACE_VARIABLE};
use crate::plan::Text;
use crate::pytorch_job::PyTorchJob;

/// The uid of the job: a job that is created again under the same name is a different job, which
/// `train.py` prevents from writing to the same prefix.
const JOB_UID_VARIABLE: &str = "TRAINER_JOB_UID";
/// The image and the plugin, which `train.py` records in `config/run.json`.
const IMAGE_VARIABLE: &str = "TRAINER_IMAGE";
const PLUGIN_VARIABLE: &str = "TRAINER_PLUGIN_NAME";
const PLUGIN_VERSION_VARIABLE: &str = "TRAINER_PLUGIN_VERSION";
const PLUGIN_DIGEST_VARIABLE: &str = "TRAINER_PLUGIN_SHA256";
/// The arguments of the framework with all defaults and derived values. The runners read these.
const RESOLVED_ARGS_VARIABLE: &str = "TRAINER_RESOLVED_ARGS_JSON";

/// The values of the variables.
pub fn identity_variables(job: &PyTorchJob, uid: &str) -> Vec<(&'static str, String)> {
    let annotations = job.metadata.annotations.as_ref();
    let annotation = |key| annotations.and_then(|all| all.get(key)).map(String::as_str);
    let master = job.spec.pytorch_replica_specs.master.template.spec.as_ref();
    let mut containers = master.iter().flat_map(|pod| &pod.containers);
    let trainer = containers.find(|container| container.name == CONTAINER);
    let digest = annotation(PLUGIN_DIGEST_ANNOTATION);
    let values = [
        (JOB_UID_VARIABLE, Some(uid)),
        (
            IMAGE_VARIABLE,
            trainer.and_then(|container| container.image.as_deref()),
        ),
        (PLUGIN_VARIABLE, annotation(PLUGIN_ANNOTATION)),
        (
            PLUGIN_VERSION_VARIABLE,
            annotation(PLUGIN_VERSION_ANNOTATION),
        ),
        (
            PLUGIN_DIGEST_VARIABLE,
            digest.map(|digest| digest.trim_start_matches("sha256:")),
        ),
        (RESOLVED_ARGS_VARIABLE, annotation(RESOLVED_ARGS_ANNOTATION)),
        (JOB_NAME_VARIABLE, Some(job.name())),
        (JOB_NAMESPACE_VARIABLE, Some(job.namespace())),
    ];
    values
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.to_string())))
        .collect()
}

/// A file in the shared memory of the pod, which survives restarts of the container.
const FAILURE_FILE: &str = "/dev/shm/trainer-failure.json";

/// Adds [`identity_variables`] and the failure file to the pods of a job. Name and namespace are
/// read from the pod, because a copy of the job under another name is a different job.
pub fn identify(job: &mut PyTorchJob, uid: &str) {
    let file = (FAILURE_FILE_VARIABLE, FAILURE_FILE.to_string());
    let variables = identity_variables(job, uid).into_iter().chain([file]);
    let variables: Vec<EnvVar> = variables
        .map(|(name, value)| match field(name) {
            Some(path) => of_field(name, path),
            None => of_value(name, escaped(&Text::Literal(value))),
        })
        .collect();
    let specs = &mut job.spec.pytorch_replica_specs;
    let replicas = std::iter::once(&mut specs.master).chain(&mut specs.worker);
    let pods = replicas.filter_map(|replica| replica.template.spec.as_mut());
    for container in pods.flat_map(|pod| &mut pod.containers) {
        let environment = container.env.get_or_insert_default();
        environment.extend(variables.iter().cloned());
        container.termination_message_policy = Some(LAST_LINES.to_string());
    }
}

/// The field of the pod that provides the value of a variable.
fn field(variable: &str) -> Option<&'static str> {
    match variable {
        JOB_NAME_VARIABLE => Some("metadata.labels['training.kubeflow.org/job-name']"),
        JOB_NAMESPACE_VARIABLE => Some("metadata.namespace"),
        _ => None,
    }
}
