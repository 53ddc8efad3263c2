//! A plugin that attacks its host: each attack ends inside its limit, and the next request is
//! served.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::service::{Service, hostile_plugin, request};

async fn service() -> (Service, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(hostile_plugin(), folder.path().join("hostile.wasm")).unwrap();
    let meta = crate::service::built_plugins().join("meta.wasm");
    std::fs::copy(meta, folder.path().join("meta.wasm")).unwrap();
    (
        Service::with(folder.path().to_path_buf(), None).await,
        folder,
    )
}

fn attack(name: &str) -> Value {
    let mut request = request("x", "run-1");
    request["framework"] = json!("hostile");
    request["extra_args"] = json!({ "attack": name });
    request
}

#[tokio::test]
async fn every_attack_is_answered_502_in_time_and_the_next_request_is_served() {
    let (service, _folder) = service().await;
    for (name, what) in [
        ("loop", "took too long"),
        ("allocate", "used too much memory"),
        ("recurse", "crashed"),
        ("recurse-natively", "used too much memory"),
        ("trap", "crashed"),
        ("large-answer", "used too much memory"),
        ("many-words", "gave an answer of no use"),
        ("long-word", "gave an answer of no use"),
        ("empty-command", "gave an answer of no use"),
        ("empty-program", "gave an answer of no use"),
        ("nul", "gave an answer of no use"),
        ("not-json", "gave an answer of no use"),
        ("not-an-object", "gave an answer of no use"),
        ("extensions", "gave an answer of no use"),
        ("identity", "gave an answer of no use"),
        ("operator", "gave an answer of no use"),
        ("variable", "gave an answer of no use"),
        ("twice", "gave an answer of no use"),
        ("layout", "gave an answer of no use"),
        ("layout-up", "gave an answer of no use"),
        ("layout-beside", "gave an answer of no use"),
        ("pattern", "gave an answer of no use"),
        ("warnings", "gave an answer of no use"),
        ("no-reason", "gave an answer of no use"),
        ("long-reason", "gave an answer of no use"),
    ] {
        let begun = Instant::now();
        let problem = service.preview(&attack(name)).await.problem(502);
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{name}: {:?}",
            begun.elapsed()
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(what), "{name}: {detail}");
        assert_eq!(
            service.preview(&attack("nothing")).await.status,
            200,
            "after {name}"
        );
        assert_eq!(
            service.preview(&request("x", "run-1")).await.status,
            200,
            "after {name}"
        );
    }
}

#[tokio::test]
async fn more_calls_than_may_run_at_once_wait_or_are_told_to_come_back() {
    let (service, _folder) = service().await;
    let service = std::sync::Arc::new(service);
    let spinning: Vec<_> = (0..64)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { service.preview(&attack("loop")).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in spinning {
        answers.push(task.await.unwrap());
    }
    for answer in &answers {
        match answer.status.as_u16() {
            502 => {}
            429 => assert_eq!(answer.header("retry-after"), "1"),
            status => panic!("{status}: {}", answer.text),
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 429));
    assert_eq!(service.preview(&request("x", "run-1")).await.status, 200);
}
