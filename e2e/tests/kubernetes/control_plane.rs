//! The control plane is what the other tests take it for: the operator's webhook refuses, its
//! reconciler runs jobs to their end, and a killed API server comes back with everything in it.

use e2e::control_plane::{ControlPlane, Part};
use serde_json::{Value, json};

/// A job of one master and three workers whose pods do what annotations say.
fn job(name: &str, fate: &Value) -> Value {
    let replica = |count: u32| {
        json!({
            "replicas": count,
            "restartPolicy": "OnFailure",
            "template": {
                "metadata": {"annotations": fate},
                "spec": {"containers": [{"name": "pytorch", "image": "trainer", "command": ["torchrun", "train.py"]}]},
            },
        })
    };
    json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "runPolicy": {"backoffLimit": 2, "cleanPodPolicy": "None"},
            "pytorchReplicaSpecs": {"Master": replica(1), "Worker": replica(3)},
        },
    })
}

fn create(plane: &ControlPlane, object: &Value) -> anyhow::Result<String> {
    plane.kubectl_with(
        &["create", "--validate=strict", "--filename", "-"],
        &object.to_string(),
    )
}

/// Waits until a job has a condition.
fn wait_for(plane: &ControlPlane, job: &str, condition: &str) -> anyhow::Result<String> {
    let condition = format!("--for=condition={condition}");
    plane.kubectl(&["wait", "pytorchjob", job, &condition, "--timeout=60s"])
}

#[test]
fn the_operator_runs_a_job_to_its_end() {
    let plane = ControlPlane::shared().unwrap();
    create(plane, &job("good", &json!({"fake.test/run-for": "1s"}))).unwrap();
    wait_for(plane, "good", "Succeeded").unwrap();
    let pods = ["get", "pods", "--output=json", "--selector"];
    let pods = [&pods[..], &["training.kubeflow.org/job-name=good"]].concat();
    let pods: Value = serde_json::from_str(&plane.kubectl(&pods).unwrap()).unwrap();
    let pods = pods["items"].as_array().unwrap();
    assert_eq!(pods.len(), 4);
    let env = pods[0]["spec"]["containers"][0]["env"].as_array().unwrap();
    assert!(
        env.iter().any(|variable| variable["name"] == "MASTER_ADDR"),
        "{env:?}"
    );
}

#[test]
fn a_job_whose_pods_fail_reaches_its_backoff_limit() {
    let plane = ControlPlane::shared().unwrap();
    let fate = json!({"fake.test/run-for": "1s", "fake.test/exit-code": "7"});
    create(plane, &job("bad", &fate)).unwrap();
    wait_for(plane, "bad", "Failed").unwrap();
    let path = "--output=jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}";
    let code = plane.kubectl(&["get", "pod", "bad-master-0", path]);
    assert_eq!(code.unwrap(), "7");
}

#[test]
fn the_operators_webhook_refuses_what_the_operator_would_not_run() {
    let plane = ControlPlane::shared().unwrap();
    let mut job = job("refused", &json!({}));
    job["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] = json!(2);
    let refused = create(plane, &job).unwrap_err().to_string();
    assert!(
        refused.contains("replicas: Forbidden: must be 1"),
        "{refused}"
    );
}

#[test]
fn an_api_server_that_was_killed_comes_back_with_its_jobs() {
    let plane = ControlPlane::start().unwrap();
    create(&plane, &job("kept", &json!({"fake.test/run-for": "1h"}))).unwrap();
    plane.kill(Part::ApiServer).unwrap();
    plane.kubectl(&["get", "pytorchjobs"]).unwrap_err();
    plane.start_again(Part::ApiServer).unwrap();
    wait_for(&plane, "kept", "Running").unwrap();
}
