//! Jobs over HTTP as TrainJobs, run by the real Kubeflow Trainer, JobSet and Job controller.

use e2e::Server;
use e2e::control_plane::{ControlPlane, Extension};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::operator::submit_example;
use crate::service::{Deployed, request};

/// A service that creates TrainJobs.
fn start(name: &str) -> Deployed {
    Deployed::start(JobKind::TrainJob, name).unwrap()
}

fn post(server: &Server, path: &str) -> u16 {
    server.post(path, &json!(null)).unwrap().0
}

#[test]
fn the_specifications_example_goes_from_submitted_over_running_to_succeeded() {
    let service = start("example");
    let name = submit_example(&service.server);
    let running = service.server.wait_for(name, "running").unwrap();
    assert_eq!(running["detail"], "PyTorchJob pods active");
    let pods = service.pods(name);
    assert_eq!(pods.len(), 4);
    for pod in &pods {
        let container = &pod["spec"]["containers"][0];
        let variable = |name: &str| {
            let env = container["env"].as_array().unwrap();
            let mut variables = env.iter().filter(|variable| variable["name"] == name);
            let value = variables
                .next_back()
                .map(|variable| variable["value"].clone());
            value.and_then(|value| value.as_str().map(str::to_string))
        };
        let master = format!("{name}-node-0-0.{name}");
        assert_eq!(variable("PET_MASTER_ADDR").as_deref(), Some(&*master));
        assert_eq!(variable("MASTER_ADDR"), variable("PET_MASTER_ADDR"));
        assert_eq!(variable("MASTER_PORT"), variable("PET_MASTER_PORT"));
        assert_eq!(variable("PET_NNODES").as_deref(), Some("4"));
        assert_eq!(variable("PET_NPROC_PER_NODE").as_deref(), Some("8"));
        assert_eq!(variable("WORLD_SIZE").as_deref(), Some("32"));
        let command = container["command"].to_string();
        assert!(command.contains("$(PET_NODE_RANK)"), "{command}");
        assert_eq!(
            container["terminationMessagePolicy"],
            "FallbackToLogsOnError"
        );
        assert_eq!(pod["metadata"]["labels"]["deepfinery.com/team"], "aml");
    }
    let full = service.full(name);
    let replicas: Vec<&Value> = full["pods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["replica"])
        .collect();
    assert_eq!(replicas, ["master-0", "worker-0", "worker-1", "worker-2"]);
    let succeeded = service.server.wait_for(name, "succeeded").unwrap();
    assert_eq!(succeeded["detail"], "jobset completed successfully");
    let full = service.full(name);
    assert!(
        full["started_at"].is_string() && full["completed_at"].is_string(),
        "{full}"
    );
}

#[test]
fn what_kubeflow_would_refuse_or_never_start_is_told_before() {
    let service = start("refused");
    let mut long = request("long", &json!({}));
    long["job_name"] = json!("x".repeat(49));
    let (status, problem) = service.server.post("/train", &long).unwrap();
    assert_eq!(status, 400, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("TrainJob") && detail.contains("at most 48"),
        "{detail}"
    );

    let run = request("dry", &json!({}));
    let preview = "/train/preview?dry_run=server";
    let (status, body) = service.server.post(preview, &run).unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["manifest"]["kind"], "TrainJob");
    assert_eq!(service.server.get("/train/meta-dry").unwrap().0, 404);

    let (status, ready) = service.server.get("/readyz?verbose").unwrap();
    assert_eq!(status, 200, "{ready}");
    let ready = ready.to_string();
    assert!(ready.contains("creates TrainJobs"), "{ready}");
    assert!(ready.contains("all 1 runtimes exist"), "{ready}");
}

for_both_kinds! { jobs_of_the_kind_before_a_switch_stay_usable }

/// What an operator does: the service starts again with another setting while jobs run.
fn jobs_of_the_kind_before_a_switch_stay_usable(kind: JobKind) {
    let other = JobKind::ALL.into_iter().find(|other| *other != kind);
    let other = other.unwrap();
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Trainer).unwrap();
    let namespace = kinds::namespace(kind, "switch");
    let start =
        |kind| Deployed::start_with(plane, kind, &namespace, &["trainjob"], |site| site).unwrap();
    let fate = json!({"fake.test/run-for": "1h"});
    let before = start(kind);
    let old = before.server.submit(&request("old", &fate)).unwrap();
    before.server.wait_for(&old, "running").unwrap();
    drop(before);

    let after = start(other);
    let server = &after.server;
    let manifest = |name: &str| server.get(&format!("/train/{name}/manifest")).unwrap().1;
    server.wait_for(&old, "running").unwrap();
    assert_eq!(manifest(&old)["kind"], kind.name());
    let new = server.submit(&request("new", &fate)).unwrap();
    server.wait_for(&new, "running").unwrap();
    assert_eq!(manifest(&new)["kind"], other.name());
    // The name and the prefix of the old job are taken.
    let (status, problem) = server.post("/train", &request("old", &fate)).unwrap();
    assert_eq!(status, 400, "{problem}");
    let (_, list) = server.get("/train").unwrap();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2, "{list}");
    let (status, log) = server.get(&format!("/train/{old}/logs")).unwrap();
    assert_eq!(status, 200, "{log}");
    assert_eq!(post(server, &format!("/train/{old}/suspend")), 200);
    server.wait_for(&old, "submitted").unwrap();
    assert_eq!(post(server, &format!("/train/{old}/resume")), 200);
    server.wait_for(&old, "running").unwrap();
    assert_eq!(server.delete(&format!("/train/{old}")).unwrap().0, 204);
    assert_eq!(server.get(&format!("/train/{old}")).unwrap().0, 404);
}

#[test]
fn a_job_whose_runtime_is_missing_is_refused_and_names_it() {
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Trainer).unwrap();
    let kind = JobKind::TrainJob;
    let service = Deployed::start_with(plane, kind, "no-runtime", &["trainjob"], |site| {
        let profiles = site.data.path().join("profiles.yaml");
        std::fs::write(&profiles, "profiles: {unknown: {backoff_limit: 1}}").unwrap();
        site.set("TRAINER_PROFILES", &profiles.display().to_string())
    });
    let server = service.unwrap().server;
    let (_, ready) = server.get("/readyz?verbose").unwrap();
    let missing = "missing runtimes: deepfinery-torch-unknown";
    assert!(ready.to_string().contains(missing), "{ready}");
    let mut run = request("lost", &json!({}));
    run["annotations"] = json!({"trainer.deepfinery/profile": "unknown"});
    let (status, problem) = server.post("/train", &run).unwrap();
    assert_eq!(status, 503, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("deepfinery-torch-unknown"), "{detail}");
}

/// Kubeflow refuses every change of a job without its runtime.
#[test]
fn a_job_whose_runtime_is_deleted_runs_and_names_it_when_a_change_needs_it() {
    let plane = ControlPlane::start().unwrap();
    let plane: &'static ControlPlane = Box::leak(Box::new(plane));
    plane.extend(Extension::Trainer).unwrap();
    let kind = JobKind::TrainJob;
    let service = Deployed::start_with(plane, kind, "deleted-runtime", &["trainjob"], |site| site);
    let server = service.unwrap().server;
    let fate = json!({"fake.test/run-for": "1h"});
    let name = server.submit(&request("kept", &fate)).unwrap();
    server.wait_for(&name, "running").unwrap();
    plane
        .kubectl(&["delete", "clustertrainingruntime", "deepfinery-torch"])
        .unwrap();
    let suspend = format!("/train/{name}/suspend");
    let (status, problem) = server.post(&suspend, &json!(null)).unwrap();
    assert_eq!(status, 503, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("deepfinery-torch"), "{detail}");
    server.wait_for(&name, "running").unwrap();
    assert_eq!(server.delete(&format!("/train/{name}")).unwrap().0, 204);
}

/// A copy has the labels and annotations of the job, also in its pods.
#[test]
fn a_copy_of_a_job_is_a_job_of_its_own() {
    let service = start("copied");
    let (plane, server) = (service.plane, &service.server);
    let waits = json!({"fake.test/waiting": "ImagePullBackOff"});
    let name = server.submit(&request("original", &waits)).unwrap();
    let (_, mut copy) = server.get(&format!("/train/{name}/manifest")).unwrap();
    let metadata = json!({
        "name": "copy", "namespace": service.namespace,
        "labels": copy["metadata"]["labels"], "annotations": copy["metadata"]["annotations"],
    });
    copy["metadata"] = metadata;
    copy.as_object_mut().unwrap().remove("status");
    // Kueue adds its own when the copy is created, also where it manages no queue.
    let patches = copy["spec"]["runtimePatches"].as_array_mut().unwrap();
    patches.retain(|patch| patch["manager"] != "kueue.x-k8s.io/manager");
    let job = &mut copy["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"];
    let pod = &mut job["replicatedJobs"][0]["template"]["spec"]["template"]["metadata"];
    pod["annotations"]["fake.test/waiting"].take();
    pod["annotations"]
        .as_object_mut()
        .unwrap()
        .remove("fake.test/waiting");
    let create = ["create", "--filename", "-"];
    plane.kubectl_with(&create, &copy.to_string()).unwrap();
    server.wait_for("copy", "succeeded").unwrap();
    let full = service.full(&name);
    assert_eq!(full["status"], "submitted", "{full}");
    assert_eq!(full["pods"].as_array().unwrap().len(), 1, "{full}");
}

#[test]
fn the_longest_names_run_and_longer_ones_are_refused() {
    let service = start("names");
    let server = &service.server;
    for (length, expected) in [(48, 201), (49, 400), (63, 400)] {
        let mut run = request(
            &format!("name-{length}"),
            &json!({"fake.test/run-for": "100ms"}),
        );
        let name = "n".repeat(length);
        run["job_name"] = json!(name);
        let (status, body) = server.post("/train", &run).unwrap();
        assert_eq!(status, expected, "{body}");
        if status == 201 {
            server.wait_for(&name, "succeeded").unwrap();
        }
    }
    let waits = json!({"fake.test/run-for": "1h"});
    let name = server.submit(&request("held", &waits)).unwrap();
    assert_eq!(post(server, &format!("/train/{name}/suspend")), 200);
    assert_eq!(server.delete(&format!("/train/{name}")).unwrap().0, 204);
    assert_eq!(server.get(&format!("/train/{name}")).unwrap().0, 404);
}
