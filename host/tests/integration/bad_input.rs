//! Whatever is sent gets an answer that says what is wrong with it: never a 5xx, never a hang.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use crate::service::{Service, request};

/// Bodies that the property test sends.
const BODIES: usize = 100_000;

#[tokio::test]
async fn what_is_not_json_is_told_so() {
    let service = Service::start().await;
    let deep = "[".repeat(100_000);
    let deep_object = "{\"a\":".repeat(100_000);
    let texts: [&[u8]; 9] = [
        b"",
        b"{",
        b"{\"framework\": NaN}",
        b"{\"num_nodes\": 1e999}",
        b"{\"num_nodes\": 01}",
        b"{\"model_id\": \"\xff\xfe\"}",
        b"{}{}",
        deep.as_bytes(),
        deep_object.as_bytes(),
    ];
    for text in texts {
        let problem = service.post("/train", text.to_vec()).await.problem(400);
        assert_eq!(problem["errors"][0]["code"], "not-json", "{problem}");
    }
}

#[tokio::test]
async fn a_name_given_twice_is_refused() {
    let service = Service::start().await;
    let text = r#"{"framework":"meta","framework":"hf","extra_args":{"lr":1,"lr":2}}"#;
    let problem = service.post("/train", text).await.problem(400);
    let pointers: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/framework", "/extra_args/lr"]);
}

#[tokio::test]
async fn every_fault_is_told_at_once_with_its_place() {
    let service = Service::start().await;
    let text = json!({
        "framework": "meta", "model_id": 7, "run_id": "a/b", "num_nodes": "4", "typo": 1,
        "checkpoint_base_uri": "/data", "dataset_uri": "gcs://b/x", "env": {"RANK": "1"},
        "extra_args": {"lr": "fast", "batch_size": 0}
    });
    let problem = service.submit(&text).await.problem(400);
    let errors = problem["errors"].as_array().unwrap();
    let mut pointers: Vec<&str> = errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    let expected = [
        "/checkpoint_base_uri",
        "/dataset_uri",
        "/env/RANK",
        "/extra_args/batch_size",
        "/extra_args/lr",
        "/model_id",
        "/num_nodes",
        "/run_id",
        "/typo",
    ];
    assert_eq!(pointers, expected);
}

#[tokio::test]
async fn nothing_is_coerced_but_whole_numbers_are_whole() {
    let service = Service::start().await;
    for (field, value) in [
        ("num_nodes", json!("4")),
        ("num_nodes", json!(true)),
        ("num_nodes", json!(1.5)),
        ("resume_from_checkpoint", json!("true")),
        ("labels", json!([])),
    ] {
        let mut request = request("x", "run-1");
        request[field] = value;
        let problem = service.preview(&request).await.problem(400);
        assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"));
    }
    let mut request = request("x", "run-1");
    request["num_nodes"] = json!(2.0);
    assert_eq!(service.preview(&request).await.status, 200);
}

#[tokio::test]
async fn a_fault_of_an_argument_is_told_once_and_not_again_of_its_items() {
    let service = Service::start().await;
    let mut request = crate::service::request("succeed", "run-1");
    request["framework"] = json!("hf");
    request["extra_args"] = json!({"report_to": [1]});
    let problem = service.preview(&request).await.problem(400);
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["pointer"], "/extra_args/report_to");
}

#[tokio::test]
async fn a_large_body_is_413_and_another_type_415() {
    let service = Service::start().await;
    service
        .post("/train", vec![b' '; 5_000_000])
        .await
        .problem(413);
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = Request::post("/train").header("content-type", content_type);
        service
            .send(request.body(Body::from("{}")).unwrap())
            .await
            .problem(415);
    }
    service
        .send(Request::post("/train").body(Body::from("{}")).unwrap())
        .await
        .problem(415);
}

#[tokio::test]
async fn unknown_places_and_methods_are_problems_too() {
    let service = Service::start().await;
    service.get("/nothing").await.problem(404);
    service.get("/frameworks/hg").await.problem(404);
    service
        .send(Request::delete("/train").body(Body::empty()).unwrap())
        .await
        .problem(405);
}

/// A value that somebody might write where a request wants one.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        prop::sample::select(vec![0, 1, 2, 64, 4096, -1]).prop_map(Value::from),
        r"\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "meta",
            "hf",
            "nemo",
            "run-1",
            "s3://bucket/x",
            "gs://b/x/",
            "pvc://c/d",
            "file:///x",
            "--x",
            "a,b",
            "$(RANK)",
            "$$",
            "\u{0}",
            "\n",
            "",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "framework", "model_id", "run_id", "checkpoint_base_uri", "dataset_uri", "image",
            "num_nodes", "gpus_per_node", "cpus_per_node", "memory_per_node_gb", "config_path",
            "resume_from_checkpoint", "extra_args", "env", "labels", "annotations", "namespace",
            "job_name", "lr", "learning_rate", "max_steps", "batch_size", "num_epochs", "A/B~C",
        ])
        .prop_map(str::to_string),
        1 => r"\PC{0,8}",
    ]
}

/// A valid request with some members replaced, or any value, or text with some bytes replaced.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let members = prop::collection::btree_map(name(), value(), 0..4);
    let changed = members.prop_map(|members| {
        let mut request = request("x", "run-1");
        request.as_object_mut().unwrap().extend(members);
        request.to_string().into_bytes()
    });
    let arguments = prop::collection::btree_map(name(), value(), 0..6).prop_map(|members| {
        let mut request = request("x", "run-1");
        request["extra_args"] = Value::Object(members.into_iter().collect::<Map<_, _>>());
        request.to_string().into_bytes()
    });
    let bytes = (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| {
        let mut bytes = request("x", "run-1").to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    prop_oneof![4 => changed, 4 => arguments, 1 => value().prop_map(|v| v.to_string().into()), 2 => bytes]
}

#[tokio::test]
async fn a_hundred_thousand_bodies_get_a_preview_or_a_reason() {
    let service = Service::start().await;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let bodies = body();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..BODIES {
        let body = bodies.new_tree(&mut runner).unwrap().current();
        let begun = Instant::now();
        let answer = service.post("/train/preview", body.clone()).await;
        let sent = || String::from_utf8_lossy(&body).into_owned();
        assert!(begun.elapsed() < Duration::from_secs(5), "{}", sent());
        match answer.status.as_u16() {
            200 => accepted += 1,
            400 => {
                let problem = answer.problem(400);
                let errors = problem["errors"].as_array().unwrap();
                assert!(
                    errors
                        .iter()
                        .all(|e| !e["detail"].as_str().unwrap().is_empty())
                );
                refused += 1;
            }
            status => panic!("{status} for {}: {}", sent(), answer.text),
        }
    }
    // Generators that only ever make one kind would show nothing.
    assert!(
        accepted > BODIES / 100 && refused > BODIES / 4,
        "{accepted} {refused}"
    );
}
