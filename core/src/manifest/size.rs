//! Limits on the size of a job and of its annotations, checked before the cluster is called.

use k8s_openapi::api::core::v1::Container;

use crate::finding::{Code, Finding};
use crate::job_kind::JobKind;
use crate::json::to_string;
use crate::keys::{CONTAINER, RESOLVED_ARGS_ANNOTATION, WARNINGS_ANNOTATION};
use crate::metadata::MAX_ANNOTATIONS_BYTES;
use crate::pytorch_job::PyTorchJob;
use crate::request::size::json_bytes;

/// Maximum size of a PyTorchJob as JSON. etcd takes objects of 1.5 MiB (`--max-request-bytes`), and
/// the API server and the operator add to it.
const MAX_MANIFEST_BYTES: usize = 1024 * 1024;
/// Room for annotations that are added later: the call that created the job, and how its replicas
/// failed.
const LATER_ANNOTATIONS_BYTES: usize = 16 * 1024;
/// Maximum size of [`WARNINGS_ANNOTATION`]: an eighth of the limit of all annotations.
const MAX_WARNINGS_BYTES: usize = 32 * 1024;
/// Maximum number of words in the command of a TrainJob, and of its variables.
const MAX_TRAIN_JOB_ITEMS: usize = 128;
/// Variables that a TrainJob gets beside those of its PyTorchJob: the training operator's, and those
/// that identify the job.
const LATER_VARIABLES: usize = 16;
/// Maximum length of the image of a TrainJob, in characters.
const MAX_TRAIN_JOB_IMAGE: usize = 500;

/// Checks that the cluster accepts a job of this size and kind.
///
/// # Errors
///
/// A finding with the size and the limit, about the field that takes most of it.
pub fn check_size(job: &PyTorchJob, kind: JobKind) -> Result<(), Finding> {
    if kind == JobKind::TrainJob {
        check_items(job)?;
    }
    let annotations = annotations(job);
    let allowed = MAX_ANNOTATIONS_BYTES - LATER_ANNOTATIONS_BYTES;
    if annotations > allowed {
        let field = match resolved_args(job) > annotations / 2 {
            true => "extra_args",
            false => "annotations",
        };
        let detail = format!(
            "{field}: the annotations of the job would have {annotations} bytes, {allowed} are \
             allowed; put large values into a file that the job reads"
        );
        return Err(Finding::new(Code::Size, format!("/{field}"), detail));
    }
    let bytes = json_bytes(job);
    if bytes <= MAX_MANIFEST_BYTES {
        return Ok(());
    }
    let field = match env(job) > annotations {
        true => "env",
        false => "annotations",
    };
    let copies = match job.spec.pytorch_replica_specs.worker {
        Some(_) => format!(" (master and workers each have a copy of {field})"),
        None => String::new(),
    };
    let detail = format!(
        "{field}: the PyTorchJob would have {bytes} bytes{copies}, {MAX_MANIFEST_BYTES} are allowed; \
         put large values into a file that the job reads"
    );
    Err(Finding::new(Code::Size, format!("/{field}"), detail))
}

/// Records the warnings of a submission in the annotations of its job, as far as there is room.
/// They are not part of the manifest, because warnings name arguments as the request spells them.
pub fn record_warnings<'a>(job: &mut PyTorchJob, warnings: impl Iterator<Item = &'a Finding>) {
    let taken = annotations(job) + WARNINGS_ANNOTATION.len() + LATER_ANNOTATIONS_BYTES;
    let room = MAX_ANNOTATIONS_BYTES.saturating_sub(taken);
    let room = room.min(MAX_WARNINGS_BYTES);
    let mut bytes = 2;
    let recorded: Vec<&Finding> = warnings
        .take_while(|warning| {
            bytes += to_string(warning).len() + 1;
            bytes < room
        })
        .collect();
    if !recorded.is_empty() {
        let annotations = job.metadata.annotations.get_or_insert_default();
        annotations.insert(WARNINGS_ANNOTATION.to_string(), to_string(&recorded));
    }
}

/// The bytes of the annotations of a job, as Kubernetes counts them.
fn annotations(job: &PyTorchJob) -> usize {
    let annotations = job.metadata.annotations.iter().flatten();
    annotations
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

/// The bytes of the annotation with the arguments of the framework.
fn resolved_args(job: &PyTorchJob) -> usize {
    let annotations = job.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(RESOLVED_ARGS_ANNOTATION))
        .map_or(0, String::len)
}

/// The bytes of the variables of a replica.
fn env(job: &PyTorchJob) -> usize {
    trainer(job).map_or(0, |container| json_bytes(&container.env))
}

/// The training container of the master.
fn trainer(job: &PyTorchJob) -> Option<&Container> {
    let pod = job
        .spec
        .pytorch_replica_specs
        .master
        .template
        .spec
        .as_ref()?;
    let mut containers = pod.containers.iter();
    containers.find(|container| container.name == CONTAINER)
}

/// Checks the lengths of lists and texts that only a TrainJob limits.
fn check_items(job: &PyTorchJob) -> Result<(), Finding> {
    let Some(container) = trainer(job) else {
        return Ok(());
    };
    let words = container.command.as_ref().map_or(0, Vec::len);
    let variables = container.env.as_ref().map_or(0, Vec::len) + LATER_VARIABLES;
    let image = container.image.as_deref().map_or(0, str::len);
    let limits = [
        (
            "extra_args",
            "words of the command",
            words,
            MAX_TRAIN_JOB_ITEMS,
        ),
        (
            "env",
            "variables with those of the service",
            variables,
            MAX_TRAIN_JOB_ITEMS,
        ),
        ("image", "characters", image, MAX_TRAIN_JOB_IMAGE),
    ];
    let beyond = limits.into_iter().find(|(.., size, limit)| size > limit);
    let Some((field, what, size, limit)) = beyond else {
        return Ok(());
    };
    let detail = format!("{field}: {size} {what}, a TrainJob may have at most {limit}");
    Err(Finding::new(Code::Size, format!("/{field}"), detail))
}
