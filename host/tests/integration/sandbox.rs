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
        // The words of the plugin are for its author.
        assert!(!problem.to_string().contains("panicked"), "{problem}");
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

/// Calls that spin, each with other arguments.
async fn spin(service: &std::sync::Arc<Service>, calls: usize) -> Vec<Answer> {
    let spinning: Vec<_> = (0..calls)
        .map(|call| {
            let service = service.clone();
            tokio::spawn(async move { service.preview(&loop_number(call)).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in spinning {
        answers.push(task.await.unwrap());
    }
    answers
}

fn loop_number(call: usize) -> Value {
    let mut request = attack("loop");
    request["extra_args"]["call"] = json!(call);
    request
}

/// Serves the hostile plugin with these limits from now on.
fn limit(service: &Service, folder: &tempfile::TempDir, limits: &str) {
    let settings = format!("[[plugin]]\nsource = \"hostile.wasm\"\nlimits = {{ {limits} }}\n");
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    service.registry.reload(Reload::Changed);
}

#[tokio::test]
async fn a_plugin_that_keeps_running_into_its_limits_is_out_of_service_for_a_while() {
    let (service, folder) = service().await;
    limit(
        &service,
        &folder,
        "failures = 3, rest_seconds = 600, time_ms = 20",
    );
    for call in 0..3 {
        let problem = service.preview(&loop_number(call)).await.problem(502);
        let detail = problem["detail"].to_string();
        assert!(detail.contains("20 ms allowed (limit time_ms)"), "{detail}");
    }
    let answer = service.preview(&attack("nothing")).await;
    let detail = answer.problem(503)["detail"].to_string();
    let why = "the plugin of framework hostile exceeded its limits with 3 different requests in a \
               row and is out of service for another ";
    assert!(detail.contains(why), "{detail}");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=600).contains(&wait), "{wait}");
    let view = service.get("/frameworks/hostile").await.json();
    let seconds = view["out_of_service_seconds"].as_u64().unwrap();
    assert!((1..=600).contains(&seconds), "{seconds}");
    assert_eq!(service.preview(&request("x", "run-1")).await.status, 200);
}

#[tokio::test]
async fn a_plugin_is_tried_after_its_rest() {
    let (service, folder) = service().await;
    limit(
        &service,
        &folder,
        "failures = 1, rest_seconds = 1, time_ms = 300",
    );
    service.preview(&loop_number(0)).await.problem(502);
    let begun = Instant::now();
    while service.preview(&attack("nothing")).await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(service.preview(&attack("nothing")).await.status, 200);
}
