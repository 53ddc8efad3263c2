//! A plugin that attacks its host: each attack ends inside its limit, and the next request is
//! served.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use trainer_host::plugin::Reload;

use crate::service::{Answer, Service, hostile_plugin, request};

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
        ("many-words", "returned an invalid response"),
        ("long-word", "returned an invalid response"),
        ("empty-command", "returned an invalid response"),
        ("empty-program", "returned an invalid response"),
        ("nul", "returned an invalid response"),
        ("not-json", "returned an invalid response"),
        ("not-an-object", "returned an invalid response"),
        ("extensions", "returned an invalid response"),
        ("identity", "returned an invalid response"),
        ("operator", "returned an invalid response"),
        ("variable", "returned an invalid response"),
        ("twice", "returned an invalid response"),
        ("layout", "returned an invalid response"),
        ("layout-up", "returned an invalid response"),
        ("layout-beside", "returned an invalid response"),
        ("pattern", "returned an invalid response"),
        ("warnings", "returned an invalid response"),
        ("no-reason", "returned an invalid response"),
        ("long-reason", "returned an invalid response"),
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
    let (service, folder) = service().await;
    let settings = "[defaults]\nfailures = 1000\nconcurrency = 4\n";
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    service.registry.reload(Reload::Changed);
    let answers = spin(&std::sync::Arc::new(service), 64).await;
    for answer in &answers {
        match answer.status.as_u16() {
            502 => {}
            429 => {
                assert_eq!(answer.header("retry-after"), "1");
                let detail = answer.problem(429)["detail"].to_string();
                let limit = "plugin hostile is already running 4 calls (limit concurrency)";
                assert!(detail.contains(limit), "{detail}");
            }
            status => panic!("{status}: {}", answer.text),
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 429));
}

async fn spin(service: &std::sync::Arc<Service>, calls: usize) -> Vec<Answer> {
    let spinning: Vec<_> = (0..calls)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { service.preview(&attack("loop")).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in spinning {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_out_of_service_for_a_while() {
    let (service, folder) = service().await;
    let settings = "[[plugin]]\nsource = \"hostile.wasm\"\n\
                    limits = { failures = 3, rest_seconds = 1, time_ms = 20 }\n";
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    service.registry.reload(Reload::Changed);
    for _ in 0..3 {
        let problem = service.preview(&attack("loop")).await.problem(502);
        let detail = problem["detail"].to_string();
        assert!(detail.contains("20 ms allowed (limit time_ms)"), "{detail}");
    }
    let begun = Instant::now();
    let answer = service.preview(&attack("nothing")).await;
    let problem = answer.problem(503);
    assert!(begun.elapsed() < Duration::from_millis(15));
    assert_eq!(
        problem["detail"],
        "the plugin of framework hostile failed 3 times in a row and is out of service for \
         another 1 s"
    );
    assert_eq!(answer.header("retry-after"), "1");
    let view = service.get("/frameworks/hostile").await.json();
    assert_eq!(view["out_of_service_seconds"], 1);
    assert_eq!(service.preview(&request("x", "run-1")).await.status, 200);
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(service.preview(&attack("nothing")).await.status, 200);
    assert_eq!(service.preview(&attack("nothing")).await.status, 200);
}
