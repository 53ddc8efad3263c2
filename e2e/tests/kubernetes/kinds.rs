//! What differs between the kinds of jobs in the tests that run for both.

use std::process::Command;

use anyhow::Result;
use e2e::Site;
use e2e::control_plane::{ControlPlane, Deployment, Extension, Overlay, Part};
use serde_json::Value;
use trainer_host::job_kind::JobKind;

/// Declares a test for each kind of jobs from functions that take the kind.
macro_rules! for_both_kinds {
    ($($(#[$attribute:meta])* $name:ident)*) => {
        mod pytorch_jobs {
            $($(#[$attribute])* #[test] fn $name() {
                super::$name(trainer_host::job_kind::JobKind::PyTorchJob);
            })*
        }
        mod train_jobs {
            $($(#[$attribute])* #[test] fn $name() {
                super::$name(trainer_host::job_kind::JobKind::TrainJob);
            })*
        }
    };
}

/// The namespace of a test for a kind.
pub fn namespace(kind: JobKind, name: &str) -> String {
    match kind {
        JobKind::PyTorchJob => name.to_string(),
        JobKind::TrainJob => format!("{name}-v2"),
    }
}

/// The components of `deploy/` that a kind needs.
pub fn components(kind: JobKind) -> &'static [&'static str] {
    match kind {
        JobKind::PyTorchJob => &[],
        JobKind::TrainJob => &["trainjob"],
    }
}

/// Adds what runs jobs of a kind to a control plane.
pub fn extend(plane: &ControlPlane, kind: JobKind) -> Result<()> {
    match kind {
        JobKind::PyTorchJob => Ok(()),
        JobKind::TrainJob => plane.extend(Extension::Trainer),
    }
}

/// Installs `deploy/` for jobs of a kind.
pub fn install(
    plane: &ControlPlane,
    kind: JobKind,
    overlay: Overlay,
    namespace: &str,
) -> Result<Deployment> {
    extend(plane, kind)?;
    plane.install_with(overlay, components(kind), namespace)
}

/// Stops Kubeflow Trainer and everything else that looks at new jobs.
pub fn stop_trainer(plane: &ControlPlane) {
    for webhooks in [
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
    ] {
        plane.kubectl(&["delete", webhooks, "--all"]).unwrap();
    }
    plane.kill(Part::Trainer).unwrap();
}

/// The value of `TRAINER_JOB_KIND`.
pub fn setting(kind: JobKind) -> &'static str {
    match kind {
        // It is preferred where the cluster has both.
        JobKind::PyTorchJob => "auto",
        JobKind::TrainJob => "trainjob",
    }
}

/// A service that creates jobs of a kind.
pub fn creates(site: Site, kind: JobKind) -> Site {
    site.set("TRAINER_JOB_KIND", setting(kind))
}

/// The name of the training container.
pub fn container(kind: JobKind) -> &'static str {
    match kind {
        JobKind::PyTorchJob => "pytorch",
        JobKind::TrainJob => "node",
    }
}

/// The objects of a resource in a namespace.
pub fn objects(
    plane: &ControlPlane,
    namespace: &str,
    resource: &str,
    selector: &str,
) -> Vec<Value> {
    let arguments = [
        "get",
        resource,
        "--output=json",
        "--namespace",
        namespace,
        "--selector",
        selector,
    ];
    let listed: Value = serde_json::from_str(&plane.kubectl(&arguments).unwrap()).unwrap();
    listed["items"].as_array().unwrap().clone()
}

/// The names of the jobs in a namespace.
pub fn jobs(plane: &ControlPlane, kind: JobKind, namespace: &str) -> Vec<String> {
    let jobs = objects(plane, namespace, kind.plural(), "");
    let names = jobs
        .iter()
        .map(|job| job["metadata"]["name"].as_str().unwrap());
    names.map(str::to_string).collect()
}

/// Selects the pods of a job.
pub fn pods_of(kind: JobKind, job: &str) -> String {
    match kind {
        JobKind::PyTorchJob => format!("training.kubeflow.org/job-name={job}"),
        JobKind::TrainJob => format!("jobset.sigs.k8s.io/jobset-name={job}"),
    }
}

/// The name of the newest pod of a job's master.
pub fn master(plane: &ControlPlane, kind: JobKind, namespace: &str, job: &str) -> String {
    let selector = match kind {
        JobKind::PyTorchJob => return format!("{job}-master-0"),
        JobKind::TrainJob => "batch.kubernetes.io/job-completion-index=0",
    };
    let selector = format!("{},{selector}", pods_of(kind, job));
    let pods = objects(plane, namespace, "pods", &selector);
    let created = |pod: &&Value| pod["metadata"]["creationTimestamp"].to_string();
    let newest = pods.iter().max_by_key(created).unwrap();
    newest["metadata"]["name"].as_str().unwrap().to_string()
}

/// A service with placement profiles.
pub fn with_profiles(site: Site, profiles: &str) -> Site {
    let file = site.data.path().join("profiles.yaml");
    std::fs::write(&file, profiles).unwrap();
    site.set("TRAINER_PROFILES", &file.display().to_string())
}

/// Adds the training runtimes of placement profiles.
pub fn add_runtimes(plane: &ControlPlane, profiles: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profiles.yaml");
    std::fs::write(&file, profiles).unwrap();
    let mut command = Command::new(e2e::binary());
    let runtimes = command.arg("runtimes").arg("--profiles").arg(&file);
    let runtimes = String::from_utf8(runtimes.output().unwrap().stdout).unwrap();
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--filename=-",
    ];
    plane.kubectl_with(&apply, &runtimes).unwrap();
}
