//! The fields of a request that end on a command line, in an environment or in metadata: what could
//! not work there is refused at submit, and what may surprise is warned of.

use serde_json::{Value, json};

use crate::service::{Service, request};

fn with(field: &str, value: Value) -> Value {
    let mut request = request("llama-debug", "run-1");
    request[field] = value;
    request
}

/// The code and detail of each error of a request that is refused.
async fn refusals(service: &Service, request: &Value) -> Vec<String> {
    told(&service.preview(request).await.problem(400)["errors"])
}

/// The code and detail of each warning of a request that is accepted.
async fn warnings(service: &Service, request: &Value) -> Vec<String> {
    let answer = service.preview(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    told(&answer.json()["warnings"])
}

fn told(findings: &Value) -> Vec<String> {
    let findings = findings.as_array().unwrap().iter();
    findings
        .map(|f| {
            format!(
                "{} {}",
                f["code"].as_str().unwrap(),
                f["detail"].as_str().unwrap()
            )
        })
        .collect()
}

#[tokio::test]
async fn a_value_that_begins_with_a_dash_is_refused_wherever_it_ends_on_a_command_line() {
    let service = Service::start().await;
    for (field, value) in [
        ("model_id", "--foo"),
        ("model_id", "-h"),
        ("config_path", "--resume"),
        ("config_path", "-"),
    ] {
        let refused = refusals(&service, &with(field, json!(value))).await;
        let expected = format!(
            "format {field}: \"{value}\" starts with '-', so train.py would read it as an option; \
             remove the dash"
        );
        assert_eq!(refused, [expected]);
    }
    for argument in [
        "tokenizer_name",
        "dataset_text_field",
        "initial_load_path",
        "far_away_name",
    ] {
        let refused = refusals(&service, &with("extra_args", json!({argument: "-h"}))).await;
        assert!(
            refused[0].starts_with(&format!("E08 extra_args.{argument}: ")),
            "{refused:?}"
        );
    }
    assert!(
        warnings(&service, &with("model_id", json!("org/a--b")))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn an_image_that_no_runtime_can_pull_is_refused() {
    let service = Service::start().await;
    for (image, told) in [
        ("https://ghcr.io/x/y:1", "use \"ghcr.io/x/y:1\""),
        ("docker://x/y", "use \"x/y\""),
        ("a:b:c", "the tag is not"),
        ("Reg/Trainer:latest", "use \"reg/trainer:latest\""),
    ] {
        let refused = refusals(&service, &with("image", json!(image))).await;
        assert!(
            refused.len() == 1 && refused[0].contains(told),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn an_environment_that_no_process_can_start_with_is_refused() {
    let service = Service::start().await;
    let longest = 128 * 1024 - "BIG=\0".len();
    let fits = with("env", json!({"BIG": "x".repeat(longest)}));
    assert!(warnings(&service, &fits).await.is_empty());
    let over = with("env", json!({"BIG": "x".repeat(longest + 1)}));
    let refused = refusals(&service, &over).await;
    assert_eq!(
        refused,
        [
            "length env.BIG: 131073 bytes including the name, but Linux allows at most 131072 for \
             a variable; put the value into a file"
        ]
    );
    let many: Value = (0..3)
        .map(|number| (format!("V{number}"), json!("x".repeat(100_000))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let refused = refusals(&service, &with("env", many)).await;
    assert_eq!(
        refused,
        ["length env: 300012 bytes, but at most 262144 are allowed; put large values into a file"]
    );
}

#[tokio::test]
async fn replacing_what_programs_are_found_by_is_warned_of() {
    let service = Service::start().await;
    for name in ["PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH"] {
        let told = warnings(&service, &with("env", json!({name: "/x:$PATH"}))).await;
        assert!(
            told.len() == 1 && told[0].starts_with("replaced-env "),
            "{told:?}"
        );
    }
    let told = warnings(&service, &with("env", json!({"WANDB_API_KEY": "abc"}))).await;
    assert!(
        told.len() == 1 && told[0].starts_with("secret-in-env "),
        "{told:?}"
    );
    assert!(
        warnings(&service, &with("env", json!({"MAX_TOKENS": "512"})))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn percent_encoding_is_taken_as_it_is_written_and_said() {
    let service = Service::start().await;
    for scheme in [
        "s3://bucket",
        "gs://bucket",
        "file://",
        "pvc://claim",
        "hf://datasets/a/b",
    ] {
        let uri = json!(format!("{scheme}/my%20data.jsonl"));
        let told = warnings(&service, &with("dataset_uri", uri)).await;
        let expected = "percent-encoding dataset_uri: %20 is not decoded; it stands for exactly \
                        these three characters";
        assert_eq!(told, [expected], "{scheme}");
        let uri = json!(format!("{scheme}/my data.jsonl"));
        let refused = refusals(&service, &with("dataset_uri", uri)).await;
        assert!(
            refused[0].contains("use the prefix above it"),
            "{refused:?}"
        );
    }
    for uri in [
        "https://host/my%20data.jsonl",
        "s3://bucket/100%.jsonl",
        "s3://bucket/d\u{e4}ta",
    ] {
        let told = warnings(&service, &with("dataset_uri", json!(uri))).await;
        assert!(told.is_empty(), "{told:?}");
    }
}

#[tokio::test]
async fn keys_of_kubernetes_that_only_describe_a_job_are_for_requests() {
    let service = Service::start().await;
    let annotation = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    let mut job = with("annotations", json!({annotation: "false"}));
    job["labels"] = json!({"app.kubernetes.io/part-of": "fraud"});
    let answer = service.preview(&job).await.json();
    let template = &answer["manifest"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"];
    assert_eq!(template["metadata"]["annotations"][annotation], "false");
    assert_eq!(
        template["metadata"]["labels"]["app.kubernetes.io/part-of"],
        "fraud"
    );
    for (field, key) in [
        ("labels", "app.kubernetes.io/managed-by"),
        ("annotations", "scheduler.alpha.kubernetes.io/critical-pod"),
        ("labels", "training.kubeflow.org/job-name"),
    ] {
        let refused = refusals(&service, &with(field, json!({key: "x"}))).await;
        assert!(refused[0].contains("reserved"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_warning_stands_in_the_answer_and_a_slip_creates_no_job() {
    let service = Service::start().await;
    let slip = with("extra_args", json!({"max_step": 60, "learning_rat": 0.003}));
    assert_eq!(
        told(&service.submit(&slip).await.problem(400)["errors"]),
        [
            "E11 extra_args.learning_rat: unknown argument, did you mean \"learning_rate\"?",
            "E11 extra_args.max_step: unknown argument, did you mean \"max_steps\"?",
        ]
    );
    let far = with("extra_args", json!({"far_away_name": 1}));
    let answer = service.submit(&far).await;
    let expected = json!({
        "name": "meta-run-1",
        "status": "submitted",
        "detail": "PyTorchJob created; warning: W05 extra_args.far_away_name: unknown to framework \
                   meta, forwarded as --far_away_name",
        "framework": "meta",
        "run_id": "run-1",
    });
    assert_eq!((answer.status.as_u16(), answer.json()), (201, expected));
}
