//! Jobs over HTTP as TrainJobs, run by the real Kubeflow Trainer, JobSet and Job controller.

use e2e::Server;
use e2e::control_plane::{ControlPlane, Extension};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

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

/// What an operator does: the service starts again with another setting while jobs run.
#[test]
fn jobs_of_the_kind_before_a_switch_stay_usable() {
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Trainer).unwrap();
    let start =
        |kind| Deployed::start_with(plane, kind, "switch", &["trainjob"], |site| site).unwrap();
    let fate = json!({"fake.test/run-for": "1h"});
    let before = start(JobKind::PyTorchJob);
    let old = before.server.submit(&request("old", &fate)).unwrap();
    before.server.wait_for(&old, "running").unwrap();
    drop(before);

    let after = start(JobKind::TrainJob);
    let server = &after.server;
    let manifest = |name: &str| server.get(&format!("/train/{name}/manifest")).unwrap().1;
    server.wait_for(&old, "running").unwrap();
    assert_eq!(manifest(&old)["kind"], "PyTorchJob");
    let new = server.submit(&request("new", &fate)).unwrap();
    server.wait_for(&new, "running").unwrap();
    assert_eq!(manifest(&new)["kind"], "TrainJob");
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
