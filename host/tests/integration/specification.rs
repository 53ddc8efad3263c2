//! Each row of the specification, over HTTP: exact paths, bodies and codes. The 500 needs a disk
//! that is full, so it is among the end-to-end tests.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::service::{Service, request};

/// The specification's example of a request.
fn example() -> Value {
    json!({
        "framework": "meta",
        "model_id": "meta-llama-3-70b",
        "run_id": "meta_demo_001",
        "num_nodes": 4,
        "gpus_per_node": 8,
        "cpus_per_node": 64,
        "memory_per_node_gb": 512,
        "checkpoint_base_uri": "s3://deepfinery-training/runs",
        "dataset_uri": "s3://deepfinery-datasets/aml/v1/",
        "resume_from_checkpoint": false,
        "extra_args": {"max_steps": 6000, "lr": 2e-5, "gradient_accumulation": 16},
        "env": {"EXPERIMENT_NAME": "meta-demo"},
        "labels": {"deepfinery.com/team": "aml"}
    })
}

async fn manifest(service: &Service, request: &Value) -> Value {
    let preview = service.preview(request).await;
    assert_eq!(preview.status, 200, "{}", preview.text);
    preview.json()["manifest"].clone()
}

fn container<'a>(manifest: &'a Value, replica: &str) -> &'a Value {
    let template = &manifest["spec"]["pytorchReplicaSpecs"][replica]["template"];
    &template["spec"]["containers"][0]
}

fn variable(manifest: &Value, name: &str) -> Option<String> {
    let variables = container(manifest, "Master")["env"].as_array()?;
    let variable = variables.iter().find(|variable| variable["name"] == name)?;
    Some(variable["value"].as_str()?.to_string())
}

#[tokio::test]
async fn health_check_answers_status_ok() {
    let answer = Service::start().await.get("/healthz").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({"status": "ok"}))
    );
}

#[tokio::test]
async fn submitting_the_example_answers_201_with_the_five_keys() {
    let service = Service::start().await;
    let answer = service.submit(&example()).await;
    assert_eq!(answer.status, 201);
    let expected = json!({
        "name": "meta-meta-demo-001",
        "status": "submitted",
        "detail": "PyTorchJob created",
        "framework": "meta",
        "run_id": "meta_demo_001"
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.header("location"), "/train/meta-meta-demo-001");
}

#[tokio::test]
async fn each_required_field_is_required() {
    let service = Service::start().await;
    for field in [
        "framework",
        "model_id",
        "run_id",
        "checkpoint_base_uri",
        "dataset_uri",
    ] {
        let mut request = example();
        request.as_object_mut().unwrap().remove(field);
        let problem = service.submit(&request).await.problem(400);
        assert_eq!(problem["detail"], format!("{field}: required, but missing"));
        assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"));
    }
}

#[tokio::test]
async fn framework_is_one_of_the_loaded_ones() {
    let service = Service::start().await;
    for framework in ["nemo", "hf", "meta"] {
        let mut request = request("succeed", "run-1");
        request["framework"] = json!(framework);
        let manifest = manifest(&service, &request).await;
        assert_eq!(variable(&manifest, "FRAMEWORK").as_deref(), Some(framework));
    }
    let mut request = example();
    request["framework"] = json!("hg");
    let problem = service.submit(&request).await.problem(400);
    let detail = "framework: unknown framework \"hg\"; known: hf, meta, nemo, did you mean \"hf\"?";
    assert_eq!(problem["detail"], detail);
}

#[tokio::test]
async fn model_id_and_dataset_uri_are_forwarded_to_the_trainer() {
    let manifest = manifest(&Service::start().await, &example()).await;
    assert_eq!(variable(&manifest, "MODEL_ID").unwrap(), "meta-llama-3-70b");
    assert_eq!(
        variable(&manifest, "DATASET_URI").unwrap(),
        "s3://deepfinery-datasets/aml/v1/"
    );
}

#[tokio::test]
async fn run_id_becomes_part_of_name_and_prefix() {
    let manifest = manifest(&Service::start().await, &example()).await;
    assert_eq!(manifest["metadata"]["name"], "meta-meta-demo-001");
    let prefix = "s3://deepfinery-training/runs/meta_demo_001/framework=meta";
    assert_eq!(variable(&manifest, "CHECKPOINT_PREFIX").unwrap(), prefix);
}

#[tokio::test]
async fn the_checkpoint_layout_is_the_specified_one() {
    let service = Service::start().await;
    let preview = service.preview(&example()).await.json();
    let prefix = "s3://deepfinery-training/runs/meta_demo_001/framework=meta";
    let layout = json!({
        "prefix": prefix,
        "checkpoints_uri": format!("{prefix}/checkpoints"),
        "logs_uri": format!("{prefix}/logs"),
        "config_uri": format!("{prefix}/config"),
        "run_config_uri": format!("{prefix}/config/run.json"),
        "step_pattern": "step-{:06}",
    });
    assert_eq!(preview["checkpoint"], layout);
}

#[tokio::test]
async fn image_has_the_specified_default() {
    let service = Service::start().await;
    let mut request = example();
    let manifest_of = manifest(&service, &request).await;
    let default = "ghcr.io/deepfinery/trainer:latest";
    assert_eq!(container(&manifest_of, "Master")["image"], default);
    request["image"] = json!("registry.example/trainer:1");
    let manifest_of = manifest(&service, &request).await;
    assert_eq!(
        container(&manifest_of, "Worker")["image"],
        "registry.example/trainer:1"
    );
}

#[tokio::test]
async fn num_nodes_is_the_number_of_replicas_and_at_least_1() {
    let service = Service::start().await;
    let manifest = manifest(&service, &example()).await;
    let replicas = &manifest["spec"]["pytorchReplicaSpecs"];
    assert_eq!(
        (
            &replicas["Master"]["replicas"],
            &replicas["Worker"]["replicas"]
        ),
        (&json!(1), &json!(3))
    );
    let mut request = example();
    request["num_nodes"] = json!(0);
    let problem = service.submit(&request).await.problem(400);
    assert_eq!(
        problem["detail"],
        "num_nodes: 0 is too small; the minimum is 1"
    );
}

#[tokio::test]
async fn resources_of_a_replica_are_requests_and_limits() {
    let manifest = manifest(&Service::start().await, &example()).await;
    let quantities = json!({"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"});
    for replica in ["Master", "Worker"] {
        let resources = &container(&manifest, replica)["resources"];
        assert_eq!(resources["requests"], quantities);
        assert_eq!(resources["limits"], quantities);
    }
    assert_eq!(manifest["spec"]["nprocPerNode"], "8");
}

#[tokio::test]
async fn config_path_and_resume_reach_train_py() {
    let service = Service::start().await;
    let mut request = example();
    request["config_path"] = json!("/workspace/run.yaml");
    request["resume_from_checkpoint"] = json!(true);
    let preview = service.preview(&request).await.json();
    let command: Vec<&str> = preview["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    let at = command.iter().position(|word| *word == "--config").unwrap();
    assert_eq!(
        command[at..at + 3],
        ["--config", "/workspace/run.yaml", "--resume"]
    );
}

#[tokio::test]
async fn extra_args_are_appended_and_true_becomes_a_flag() {
    let service = Service::start().await;
    let mut request = example();
    request["extra_args"] = json!({"max_steps": 6000, "lr": 2e-5, "fast": true, "slow": false});
    let preview = service.preview(&request).await.json();
    let command = preview["command"].as_array().unwrap();
    let expected = ["--fast", "--lr", "0.00002", "--max_steps", "6000"];
    assert_eq!(command[command.len() - 5..], expected);
}

#[tokio::test]
async fn env_is_added_to_each_pod() {
    let manifest = manifest(&Service::start().await, &example()).await;
    for replica in ["Master", "Worker"] {
        let variables = container(&manifest, replica)["env"].as_array().unwrap();
        let expected = json!({"name": "EXPERIMENT_NAME", "value": "meta-demo"});
        assert!(variables.contains(&expected), "{replica}");
    }
}

#[tokio::test]
async fn labels_and_annotations_are_copied_to_the_metadata() {
    let mut request = example();
    request["annotations"] = json!({"example.org/note": "x"});
    let manifest = manifest(&Service::start().await, &request).await;
    assert_eq!(manifest["metadata"]["labels"]["deepfinery.com/team"], "aml");
    assert_eq!(manifest["metadata"]["annotations"]["example.org/note"], "x");
}

#[tokio::test]
async fn namespace_and_job_name_override() {
    let service = Service::start().await;
    let mut request = request("wait", "run-1");
    request["namespace"] = json!("team-a");
    request["job_name"] = json!("my-job");
    assert_eq!(service.submit(&request).await.json()["name"], "my-job");
    assert_eq!(
        service.get("/train/my-job?namespace=team-a").await.status,
        200
    );
    assert_eq!(service.get("/train/my-job").await.status, 200);
    service
        .get("/train/my-job?namespace=default")
        .await
        .problem(404);
    service.stop().await;
}

#[tokio::test]
async fn a_taken_name_is_400() {
    let service = Service::start().await;
    let request = request("wait", "run-1");
    assert_eq!(service.submit(&request).await.status, 201);
    let problem = service.submit(&request).await.problem(400);
    assert_eq!(
        problem["detail"],
        "PyTorchJob meta-run-1 already exists for run run-1"
    );
    service.stop().await;
}

#[tokio::test]
async fn a_missing_or_wrong_token_is_401() {
    let service = Service::with_token("secret").await;
    let get = |token: Option<&str>| {
        let request = Request::get("/train/x");
        let request = match token {
            Some(token) => request.header("X-TRAINER-TOKEN", token),
            None => request,
        };
        service.send(request.body(Body::empty()).unwrap())
    };
    for token in [None, Some(""), Some("wrong"), Some("secret ")] {
        let answer = get(token).await;
        answer.problem(401);
        assert_eq!(
            answer.header("www-authenticate"),
            "X-TRAINER-TOKEN realm=\"trainer\""
        );
        assert!(!answer.text.contains("secret"));
    }
    get(Some("secret")).await.problem(404);
    service.post("/train", "{}").await.problem(401);
    service.post("/train/preview", "{}").await.problem(401);
    service.get("/frameworks").await.problem(401);
    assert_eq!(service.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn an_unknown_job_is_404() {
    let problem = Service::start()
        .await
        .get("/train/nobody")
        .await
        .problem(404);
    assert_eq!(
        problem["detail"],
        "Job nobody not found; list the jobs to see their names"
    );
}

#[tokio::test]
async fn status_follows_the_job() {
    let service = Service::start().await;
    service.create(&request("succeed", "good")).await;
    service.create(&request("wait", "long")).await;
    service.create(&request("fail", "bad")).await;
    let expected = json!({
        "name": "meta-good",
        "status": "succeeded",
        "detail": "PyTorchJob meta-good is successfully completed.",
        "framework": "meta",
        "run_id": "good"
    });
    assert_eq!(service.wait_for("meta-good", "succeeded").await, expected);
    let long = service.wait_for("meta-long", "running").await;
    assert_eq!(long["detail"], "PyTorchJob meta-long is running.");
    let bad = service.wait_for("meta-bad", "failed").await;
    let detail = "PyTorchJob meta-bad has failed because it has reached the specified backoff \
                  limit. meta-bad-master-0 exited with code 1 (the script exited with code 7).";
    assert_eq!(bad["detail"], detail);
    service.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_is_submitted_and_its_author_is_told_why() {
    let service = Service::start().await;
    let mut request = request("succeed", "big");
    request["num_nodes"] = json!(5);
    let answer = service.submit(&request).await;
    assert!(
        answer.header("warning").contains("needs 5 slots"),
        "{:?}",
        answer.headers
    );
    let status = service.get("/train/meta-big").await.json();
    assert_eq!(
        (&status["status"], &status["detail"]),
        (&json!("submitted"), &json!("PyTorchJob submitted"))
    );
    service.stop().await;
}
