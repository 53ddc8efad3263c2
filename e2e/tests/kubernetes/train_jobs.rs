//! Jobs over HTTP as TrainJobs, run by the real Kubeflow Trainer, JobSet and Job controller.

use e2e::Server;
use e2e::control_plane::{ControlPlane, Extension};
use serde_json::{Value, json};

use crate::operator::submit_example;
use crate::service::{Deployed, eventually, request};

/// A service that creates TrainJobs.
fn start(namespace: &str) -> Deployed {
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Trainer).unwrap();
    Deployed::start_with(plane, namespace, &["trainjob"], |site| {
        site.set("TRAINER_JOB_KIND", "trainjob")
    })
    .unwrap()
}

/// The objects of a kind in the namespace of a service.
fn objects(service: &Deployed, kind: &str, selector: &str) -> Vec<Value> {
    let namespace = ["--namespace", &service.namespace];
    let get = ["get", kind, "--output=json", "--selector", selector];
    let listed = service.plane.kubectl(&[&get[..], &namespace].concat());
    let listed: Value = serde_json::from_str(&listed.unwrap()).unwrap();
    listed["items"].as_array().unwrap().clone()
}

fn pods(service: &Deployed, job: &str) -> Vec<Value> {
    let selector = format!("jobset.sigs.k8s.io/jobset-name={job}");
    objects(service, "pods", &selector)
}

fn post(server: &Server, path: &str) -> u16 {
    server.post(path, &json!(null)).unwrap().0
}

#[test]
fn the_specifications_example_goes_from_submitted_over_running_to_succeeded() {
    let service = start("v2-example");
    let name = submit_example(&service.server);
    let running = service.server.wait_for(name, "running").unwrap();
    assert_eq!(running["detail"], "PyTorchJob pods active");
    let pods = pods(&service, name);
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
fn a_train_job_whose_pod_fails_restarts_as_a_whole_and_ends_failed_with_the_exit_code() {
    let service = start("v2-failing");
    let fate = json!({"fake.test/start-after": "10ms", "fake.test/run-for": "100ms", "fake.test/exit-code": "7"});
    let name = service.server.submit(&request("bad", &fate)).unwrap();
    service.server.wait_for(&name, "failed").unwrap();
    eventually(|| {
        let (_, summary) = service.server.get(&format!("/train/{name}")).unwrap();
        let detail = summary["detail"].as_str().unwrap_or_default().to_string();
        match detail.contains("max number of restarts")
            && detail.contains("master-0 exited with code 7")
        {
            true => Ok(()),
            false => Err(detail),
        }
    });
    let full = service.full(&name);
    assert_eq!(full["pods"][0]["exit_code"], 7, "{full}");
    assert_eq!(full["pods"][0]["restarts"], 3, "{full}");
}

#[test]
fn a_train_job_is_suspended_resumed_read_and_deleted() {
    let service = start("v2-held");
    let fate = json!({"fake.test/run-for": "1h"});
    let name = service.server.submit(&request("held", &fate)).unwrap();
    service.server.wait_for(&name, "running").unwrap();
    let (status, log) = service.server.get(&format!("/train/{name}/logs")).unwrap();
    assert_eq!(status, 200, "{log}");
    assert!(log.as_str().unwrap().contains("the beginning"), "{log}");
    let previous = format!("/train/{name}/logs?previous=true");
    assert_eq!(service.server.get(&previous).unwrap().0, 404);
    assert_eq!(
        post(&service.server, &format!("/train/{name}/suspend")),
        200
    );
    let full = service.full_when(&name, |full| full["pods"] == json!([]));
    assert_eq!(full["suspended"], true);
    let submitted = service.server.wait_for(&name, "submitted").unwrap();
    assert_eq!(submitted["detail"], "PyTorchJob submitted");
    assert_eq!(post(&service.server, &format!("/train/{name}/resume")), 200);
    service.server.wait_for(&name, "running").unwrap();
    let path = format!("/train/{name}");
    assert_eq!(service.server.delete(&path).unwrap().0, 204);
    assert_eq!(service.server.get(&path).unwrap().0, 404);
    assert_eq!(service.server.delete(&path).unwrap().0, 404);
    eventually(|| match pods(&service, &name).len() {
        0 => Ok(()),
        left => Err(format!("{left} pods are left")),
    });
}

#[test]
fn what_kubeflow_would_refuse_or_never_start_is_told_before() {
    let service = start("v2-refused");
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

#[test]
fn two_submissions_of_one_name_create_one_train_job() {
    let service = start("v2-taken");
    let first = request("one", &json!({"fake.test/run-for": "1h"}));
    service.server.submit(&first).unwrap();
    let (status, problem) = service.server.post("/train", &first).unwrap();
    assert_eq!(status, 400);
    let detail = "PyTorchJob meta-one already exists for run one";
    assert_eq!(problem["detail"], detail);
    let header = ("Idempotency-Key", "key-1");
    let keyed = request("two", &json!({}));
    for expected in [201, 200] {
        let answer = service.server.post_with_header("/train", header, &keyed);
        let (status, body) = answer.unwrap();
        assert!([expected, 201].contains(&status), "{status}: {body}");
        assert_eq!(body["name"], "meta-two");
    }
    assert_eq!(objects(&service, "trainjobs", "").len(), 2);
}

/// What an operator does: the service starts again with another setting while jobs run.
#[test]
fn jobs_of_the_kind_before_a_switch_stay_usable() {
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Trainer).unwrap();
    let components = ["trainjob"];
    let start = |kind: &'static str| {
        Deployed::start_with(plane, "v2-switch", &components, |site| {
            site.set("TRAINER_JOB_KIND", kind)
        })
        .unwrap()
    };
    let fate = json!({"fake.test/run-for": "1h"});
    let before = start("auto");
    let old = before.server.submit(&request("old", &fate)).unwrap();
    before.server.wait_for(&old, "running").unwrap();
    drop(before);

    let after = start("trainjob");
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
