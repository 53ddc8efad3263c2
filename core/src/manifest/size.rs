//! How large a PyTorchJob may be, and its annotations: known before the cluster is asked.

use crate::finding::{Code, Finding};
use crate::json::to_string;
use crate::keys::{CONTAINER, WARNINGS_ANNOTATION};
use crate::pytorch_job::PyTorchJob;
use crate::request::metadata::MAX_ANNOTATIONS_BYTES;
use crate::request::size::json_bytes;

/// Most bytes of a PyTorchJob as JSON. etcd takes objects of 1.5 MiB (`--max-request-bytes`), and
/// the API server and the operator add to it.
const MAX_MANIFEST_BYTES: usize = 1024 * 1024;
/// Room in the annotations for what is added when the job is there: which call created it, and how
/// its replicas failed.
const LATER_ANNOTATIONS_BYTES: usize = 16 * 1024;
/// Most bytes of [`WARNINGS_ANNOTATION`]: an eighth of what all annotations may take.
const MAX_WARNINGS_BYTES: usize = 32 * 1024;

/// Checks that the cluster can take a PyTorchJob of this size.
///
/// # Errors
///
/// A finding with the size and the limit, about the field that takes most of it.
pub fn check_size(job: &PyTorchJob) -> Result<(), Finding> {
    let annotations = annotations(job);
    let allowed = MAX_ANNOTATIONS_BYTES - LATER_ANNOTATIONS_BYTES;
    if annotations > allowed {
        let detail = format!(
            "annotations: {annotations} bytes with those of the service are more than the {allowed} \
             that Kubernetes has room for; put large values into a file that the job reads"
        );
        return Err(Finding::new(Code::Size, "/annotations", detail));
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

/// Has a job record what its submission was warned of, as far as its annotations have room for it.
/// It is not part of the manifest: warnings name arguments as the request spells them.
pub fn record_warnings<'a>(job: &mut PyTorchJob, warnings: impl Iterator<Item = &'a Finding>) {
    let taken = annotations(job) + WARNINGS_ANNOTATION.len() + LATER_ANNOTATIONS_BYTES;
    let room = MAX_ANNOTATIONS_BYTES.saturating_sub(taken);
    let room = room.min(MAX_WARNINGS_BYTES);
    let mut bytes = 2;
    let told: Vec<&Finding> = warnings
        .take_while(|warning| {
            bytes += to_string(warning).len() + 1;
            bytes < room
        })
        .collect();
    if !told.is_empty() {
        let annotations = job.metadata.annotations.get_or_insert_default();
        annotations.insert(WARNINGS_ANNOTATION.to_string(), to_string(&told));
    }
}

/// The bytes of the annotations of a job, as Kubernetes counts them.
fn annotations(job: &PyTorchJob) -> usize {
    let annotations = job.metadata.annotations.iter().flatten();
    annotations
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

/// The bytes of the variables of a replica.
fn env(job: &PyTorchJob) -> usize {
    let pod = job.spec.pytorch_replica_specs.master.template.spec.as_ref();
    let mut containers = pod.into_iter().flat_map(|pod| &pod.containers);
    let trainer = containers.find(|container| container.name == CONTAINER);
    trainer.map_or(0, |container| json_bytes(&container.env))
}
