//! The control plane is what the other tests take it for: the operator's webhook refuses, its
//! reconciler runs jobs to their end, Trainer runs a TrainJob, and a killed API server comes back with
//! everything in it.

use e2e::control_plane::{ControlPlane, Extension, Part};
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

/// A runtime of one replicated job, whose first pod decides about the job.
fn runtime() -> Value {
    let pod = json!({
        "restartPolicy": "Never",
        "containers": [{"name": "node", "image": "trainer"}],
    });
    let job = json!({
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {
            "backoffLimit": 0,
            "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
            "template": {"spec": pod},
        },
    });
    json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "by-hand", "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}},
        },
    })
}

#[test]
fn trainer_runs_a_train_job_to_its_end() {
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Trainer).unwrap();
    let apply = ["apply", "--server-side", "--filename", "-"];
    plane.kubectl_with(&apply, &runtime().to_string()).unwrap();
    let fate = json!({"metadata": {"annotations": {"fake.test/run-for": "1s"}}});
    let patch = json!({"name": "node", "template": {"spec": {"template": fate}}});
    let train_job = json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "good", "namespace": "default"},
        "spec": {
            "runtimeRef": {"name": "by-hand"},
            "trainer": {"image": "trainer", "numNodes": 4, "numProcPerNode": 8, "command": ["torchrun"]},
            "runtimePatches": [{
                "manager": "trainer.deepfinery/service",
                "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [patch]}}},
            }],
        },
    });
    create(plane, &train_job).unwrap();
    plane
        .kubectl(&[
            "wait",
            "trainjob",
            "good",
            "--for=condition=Complete",
            "--timeout=60s",
        ])
        .unwrap();
    let pods = ["get", "pods", "--output=json", "--selector"];
    let pods = [&pods[..], &["jobset.sigs.k8s.io/jobset-name=good"]].concat();
    let pods: Value = serde_json::from_str(&plane.kubectl(&pods).unwrap()).unwrap();
    let pods = pods["items"].as_array().unwrap();
    assert_eq!(pods.len(), 4);
    let env = pods[0]["spec"]["containers"][0]["env"].as_array().unwrap();
    let names: Vec<&str> = env.iter().filter_map(|v| v["name"].as_str()).collect();
    for name in ["PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR"] {
        assert!(names.contains(&name), "{names:?}");
    }

    let mut refused = train_job;
    refused["metadata"]["name"] = json!("refused");
    refused["spec"]["runtimeRef"]["name"] = json!("missing");
    let refused = create(plane, &refused).unwrap_err().to_string();
    assert!(
        refused.contains("must be created before the TrainJob"),
        "{refused}"
    );
}
