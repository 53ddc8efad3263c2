//! What tokens and policies cost: a benchmark that compares two services in one run, one with 10,000
//! named tokens and a policy, and one without an access file. `make access-speed` runs it.

use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::Value;
use trainer_host::request::RequestPolicy;

use crate::access::{ask, submit, teams, token, waiting};
use crate::service::Service;

const TOKENS: usize = 10_000;
const ROUNDS: usize = 7;
const REQUESTS: usize = 400;
const POLICY: &str = r#"
[namespaces.team-a]
images = ["ghcr.io/*"]
datasets = ["s3://"]
checkpoints = ["s3://team-a/"]
models = ["*"]
max_gpus = 1024
"#;

/// How long some requests take.
async fn measure(service: &Service, method: &Method, path: &str, body: Option<&Value>) -> Duration {
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        let answer = service.send(ask("alice", method.clone(), path, body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    begun.elapsed()
}

#[tokio::test]
#[ignore = "a benchmark: make access-speed"]
async fn tokens_and_policies_take_at_most_a_tenth_of_the_throughput() {
    let others = (0..TOKENS).map(|number| token(&format!("caller-{number}"), "viewer", &["other"]));
    let access = teams() + &others.collect::<String>() + POLICY;
    let with = Service::with_access(&access, RequestPolicy::default()).await;
    let without = Service::in_memory().await;
    let body = waiting("speed", "team-a");
    for service in [&with, &without] {
        assert_eq!(submit(service, "alice", &body).await.status, 201);
    }
    let preview = waiting("next", "team-a");
    for (method, path, body) in [
        (Method::POST, "/train/preview", Some(&preview)),
        (Method::GET, "/train/meta-speed?namespace=team-a", None),
    ] {
        let (mut slow, mut fast) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            fast = fast.min(measure(&without, &method, path, body).await);
            slow = slow.min(measure(&with, &method, path, body).await);
        }
        let ratio = fast.as_secs_f64() / slow.as_secs_f64();
        let per_second = REQUESTS as f64 / slow.as_secs_f64();
        println!("{method} {path}: {ratio:.3} of the throughput, {per_second:.0} per second");
        assert!(ratio >= 0.9, "{method} {path}: {ratio}");
    }
    with.stop().await;
    without.stop().await;
}
