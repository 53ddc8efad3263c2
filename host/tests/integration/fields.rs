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
    reported(&service.preview(request).await.problem(400)["errors"])
}

/// The code and detail of each warning of a request that is accepted.
async fn warnings(service: &Service, request: &Value) -> Vec<String> {
    let answer = service.preview(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    reported(&answer.json()["warnings"])
}

fn reported(findings: &Value) -> Vec<String> {
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
    for (image, reported) in [
        ("https://ghcr.io/x/y:1", "use \"ghcr.io/x/y:1\""),
        ("docker://x/y", "use \"x/y\""),
        ("a:b:c", "the tag is not"),
        ("Reg/Trainer:latest", "use \"reg/trainer:latest\""),
    ] {
        let refused = refusals(&service, &with("image", json!(image))).await;
        assert!(
            refused.len() == 1 && refused[0].contains(reported),
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
async fn what_the_cluster_could_not_store_is_refused_with_its_size_before_it_is_asked() {
    let service = Service::start().await;
    let large = |count: usize, bytes: usize| -> Value {
        let members = (0..count).map(|number| (format!("v{number}"), json!("x".repeat(bytes))));
        members.collect::<serde_json::Map<_, _>>().into()
    };
    let mut both = with("env", large(3, 80_000));
    both["annotations"] = large(3, 70_000);
    both["num_nodes"] = json!(2);
    for (request, code, begins, size, limit) in [
        (
            with("env", large(10, 95_000)),
            "length",
            "env: ",
            "950040 bytes",
            "262144",
        ),
        (
            with("annotations", large(3, 100_000)),
            "length",
            "annotations: ",
            "300006 bytes",
            "262144",
        ),
        (
            with("annotations", large(3, 86_000)),
            "size",
            "annotations: ",
            " bytes, ",
            "245760",
        ),
        (
            both,
            "size",
            "env: the PyTorchJob would have ",
            "each have a copy of env",
            "1048576",
        ),
    ] {
        for path in ["/train", "/train/preview", "/train/preview?dry_run=server"] {
            let answer = service.post(path, request.to_string()).await;
            let refused = reported(&answer.problem(400)["errors"]);
            let is_told = refused[0].starts_with(&format!("{code} {begins}"))
                && refused[0].contains(size)
                && refused[0].contains(limit);
            assert!(refused.len() == 1 && is_told, "{path}: {refused:?}");
        }
    }
    assert!(service.cluster_jobs().is_empty());
    let fits = with("annotations", large(3, 80_000));
    assert_eq!(service.submit(&fits).await.status, 201);
}

#[tokio::test]
async fn one_mistake_has_one_code_whatever_else_is_wrong() {
    let service = Service::start().await;
    for (framework, name, value, code) in [
        ("meta", "lr", json!("fast"), "E05"),
        ("meta", "lr", json!("--x"), "E05"),
        ("hf", "lr", json!({"a": 1}), "E05"),
        ("hf", "report_to", json!([1]), "E05"),
        ("hf", "report_to", json!([{}]), "E05"),
        ("hf", "lr", json!(7), "E06"),
        ("meta", "max_steps", json!(-1), "E06"),
        ("meta", "dp_shard", json!(-5), "E06"),
        ("nemo", "recipe", json!(""), "E06"),
        ("nemo", "precision", json!("fp7"), "E07"),
        ("nemo", "precision", json!("--x"), "E07"),
    ] {
        let mut alone = with("extra_args", json!({name: value}));
        alone["framework"] = json!(framework);
        let mut beside = alone.clone();
        beside["num_nodes"] = json!("many");
        for (request, others) in [(alone, 0), (beside, 1)] {
            let errors = service.preview(&request).await.problem(400)["errors"].clone();
            let errors = errors.as_array().unwrap();
            let of_argument = errors.iter().filter(|error| {
                error["pointer"]
                    .as_str()
                    .unwrap()
                    .starts_with(&format!("/extra_args/{name}"))
            });
            let codes: Vec<&Value> = of_argument.map(|error| &error["code"]).collect();
            assert_eq!(codes, [code], "{framework} {name}: {errors:?}");
            assert_eq!(errors.len(), 1 + others, "{errors:?}");
        }
    }
}

#[tokio::test]
async fn what_other_tools_call_a_field_gets_a_suggestion() {
    let service = Service::start().await;
    for (name, meant) in [
        ("model", "model_id"),
        ("dataset", "dataset_uri"),
        ("gpus", "gpus_per_node"),
        ("nodes", "num_nodes"),
        ("output_dir", "checkpoint_base_uri"),
        ("lr", "extra_args.lr"),
        ("learning_rate", "extra_args.lr"),
        ("num_node", "num_nodes"),
    ] {
        let refused = refusals(&service, &with(name, json!("x"))).await;
        let expected = format!("unknown-field unknown field \"{name}\", did you mean \"{meant}\"?");
        assert_eq!(refused, [expected]);
    }
    let refused = refusals(&service, &with("framework", json!("HF"))).await;
    assert!(refused[0].ends_with("did you mean \"hf\"?"), "{refused:?}");
}

#[tokio::test]
async fn a_replaced_path_is_named_by_the_failure_that_follows() {
    let service = Service::start().await;
    let mut job = with("env", json!({"PATH": "/nowhere", "SCRIPT": "exit 127"}));
    job["model_id"] = json!("script");
    let answer = service.submit(&job).await.json();
    let name = answer["name"].as_str().unwrap();
    let failed = service.wait_for(name, "failed").await;
    let detail = failed["detail"].as_str().unwrap();
    assert!(
        detail.contains("env.PATH replaces the image's own value"),
        "{detail}"
    );
    service.stop().await;
}

#[tokio::test]
async fn replacing_what_programs_are_found_by_is_warned_of() {
    let service = Service::start().await;
    for name in ["PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH"] {
        let reported = warnings(&service, &with("env", json!({name: "/x:$PATH"}))).await;
        assert!(
            reported.len() == 1 && reported[0].starts_with("replaced-env "),
            "{reported:?}"
        );
    }
    let reported = warnings(&service, &with("env", json!({"WANDB_API_KEY": "abc"}))).await;
    assert!(
        reported.len() == 1 && reported[0].starts_with("secret-in-env "),
        "{reported:?}"
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
        let reported = warnings(&service, &with("dataset_uri", uri)).await;
        let expected = "percent-encoding dataset_uri: %20 is not decoded; it stands for exactly \
                        these three characters";
        assert_eq!(reported, [expected], "{scheme}");
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
        let reported = warnings(&service, &with("dataset_uri", json!(uri))).await;
        assert!(reported.is_empty(), "{reported:?}");
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
        reported(&service.submit(&slip).await.problem(400)["errors"]),
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
