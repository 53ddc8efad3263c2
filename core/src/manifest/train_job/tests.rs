use serde_json::{Value, json};

use super::*;

/// A PyTorchJob of this service with two nodes, as it is created.
fn pytorch_job(profile: Option<&str>) -> PyTorchJob {
    let template = json!({
        "metadata": {
            "labels": {"team": "a"},
            "annotations": {"sidecar.istio.io/inject": "false"},
        },
        "spec": {
            "nodeSelector": {"gpu": "a100"},
            "priorityClassName": "high",
            "terminationGracePeriodSeconds": 120,
            "automountServiceAccountToken": false,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "pytorch",
                "image": "image:1",
                "command": ["torchrun", "--node_rank=$(RANK)", "--note=$$(RANK)"],
                "env": [
                    {"name": "RUN_ID", "value": "r1"},
                    {"name": "PYTHONUNBUFFERED", "value": "0"},
                    {"name": "SHARD", "value": "$(PET_NODE_RANK)"},
                    {"name": "TRAINER_JOB_NAME", "valueFrom": {"fieldRef": {
                        "fieldPath": "metadata.labels['training.kubeflow.org/job-name']",
                    }}},
                ],
                "resources": {"limits": {"nvidia.com/gpu": "8"}},
                "securityContext": {"allowPrivilegeEscalation": false},
                "volumeMounts": [
                    {"name": "dshm", "mountPath": "/dev/shm"},
                    {"name": "data", "mountPath": "/data", "readOnly": false, "subPath": ""},
                ],
            }],
            "volumes": [
                {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
                {"name": "data", "emptyDir": {}},
            ],
        },
    });
    let mut annotations = json!({"trainer.deepfinery/submission": "s1"});
    if let Some(profile) = profile {
        annotations["trainer.deepfinery/profile"] = json!(profile);
    }
    let replica = |replicas: u32| json!({"replicas": replicas, "restartPolicy": "OnFailure", "template": template});
    serde_json::from_value(json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "run", "namespace": "a", "annotations": annotations},
        "spec": {
            "nprocPerNode": "8",
            "runPolicy": {
                "cleanPodPolicy": "Running", "backoffLimit": 6, "activeDeadlineSeconds": 60,
            },
            "pytorchReplicaSpecs": {"Master": replica(1), "Worker": replica(1)},
        },
    }))
    .unwrap()
}

fn json_of(job: &TrainJob) -> Value {
    serde_json::to_value(job).unwrap()
}

#[test]
fn a_train_job_has_what_differs_between_jobs_and_refers_to_the_runtime_of_its_profile() {
    let job = json_of(&train_job(&pytorch_job(Some("a100"))));
    assert_eq!(job["apiVersion"], "trainer.kubeflow.org/v1alpha1");
    let spec = &job["spec"];
    assert_eq!(spec["runtimeRef"]["name"], "deepfinery-torch-a100");
    assert_eq!(spec["activeDeadlineSeconds"], 60);
    let trainer = &spec["trainer"];
    assert_eq!(trainer["numNodes"], 2);
    assert_eq!(trainer["numProcPerNode"], 8);
    assert_eq!(
        trainer["command"],
        json!([
            "torchrun",
            "--node_rank=$(PET_NODE_RANK)",
            "--note=$$(RANK)"
        ])
    );
    assert_eq!(trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"], "8");
    let bare = json_of(&train_job(&pytorch_job(None)));
    assert_eq!(bare["spec"]["runtimeRef"]["name"], "deepfinery-torch");
}

#[test]
fn the_variables_of_the_training_operator_come_before_those_that_may_refer_to_them() {
    let job = json_of(&train_job(&pytorch_job(None)));
    let env = job["spec"]["trainer"]["env"].as_array().unwrap();
    let names: Vec<&str> = env
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "MASTER_ADDR",
            "MASTER_PORT",
            "WORLD_SIZE",
            "RANK",
            "RUN_ID",
            "PYTHONUNBUFFERED",
            "SHARD",
            "TRAINER_JOB_NAME"
        ]
    );
    let value = |name: &str| &env[names.iter().position(|known| *known == name).unwrap()];
    assert_eq!(value("MASTER_ADDR")["value"], "run-node-0-0.run");
    assert_eq!(value("WORLD_SIZE")["value"], "16");
    assert_eq!(value("SHARD")["value"], "$(RANK)");
    assert_eq!(
        value("TRAINER_JOB_NAME")["valueFrom"]["fieldRef"]["fieldPath"],
        "metadata.labels['jobset.sigs.k8s.io/jobset-name']"
    );
}

#[test]
fn the_patch_has_no_field_that_kubeflow_refuses_and_no_value_that_kueue_drops() {
    let job = json_of(&train_job(&pytorch_job(None)));
    let patch = &job["spec"]["runtimePatches"][0];
    let replicated = &patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0];
    assert_eq!(replicated["name"], "node");
    let pod = &replicated["template"]["spec"]["template"];
    assert_eq!(
        *pod,
        json!({
            "metadata": {
                "labels": {"team": "a"},
                "annotations": {
                    "sidecar.istio.io/inject": "false",
                    "trainer.deepfinery/submission": "s1",
                },
            },
            "spec": {
                "nodeSelector": {"gpu": "a100"},
                "containers": [{
                    "name": "node",
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }],
                "volumes": [
                    {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
                    {"name": "data", "emptyDir": {}},
                ],
            },
        })
    );
}
