//! What a query may have: every route refuses what it does not take, and does nothing.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use trainer_host::http::openapi::operations::{OPERATIONS, Operation, Value};

use crate::service::{Answer, Service, request};

/// Load balancers and scrapers add parameters of their own to these.
const PROBES: [&str; 4] = ["/healthz", "/livez", "/readyz", "/metrics"];

async fn call(service: &Service, operation: &Operation, query: &str) -> Answer {
    let path = operation.path.replace("{job_name}", "meta-there");
    let path = path.replace("{name}", "meta");
    let method = operation.method.to_ascii_uppercase();
    let call = Request::builder()
        .method(method.as_str())
        .uri(format!("{path}?{query}"))
        .header("content-type", "application/json");
    let body = request("succeed", "made").to_string();
    service.send(call.body(Body::from(body)).unwrap()).await
}

/// What every refusal of a query is.
fn assert_refused(answer: &Answer, said: &str) {
    let problem = answer.problem(400);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(said), "{detail}");
    assert!(!detail.contains("deserialize"), "{detail}");
    assert_eq!(problem["errors"][0]["code"], "query");
}

#[tokio::test]
async fn no_route_takes_a_parameter_that_it_does_not_know() {
    let service = Service::start().await;
    service.create(&request("wait", "there")).await;
    for operation in OPERATIONS {
        let answer = call(&service, operation, "surprise=1").await;
        if PROBES.contains(&operation.path) {
            assert_eq!(answer.status, 200, "{}", operation.path);
            continue;
        }
        assert_refused(&answer, "unknown parameter \"surprise\"");
        for known in operation.queries() {
            assert!(answer.text.contains(known.name), "{}", answer.text);
        }
    }
    assert_eq!(service.cluster_jobs(), ["meta-there"]);
    service.stop().await;
}

#[tokio::test]
async fn no_route_takes_a_parameter_twice_or_with_a_value_that_is_none() {
    let service = Service::start().await;
    service.create(&request("wait", "there")).await;
    let strict = OPERATIONS.iter();
    for operation in strict.filter(|operation| !PROBES.contains(&operation.path)) {
        for known in operation.queries() {
            let name = known.name;
            let right = match known.value {
                Value::OneOf(words) => words[0],
                Value::State => "failed",
                Value::Flag => "false",
                _ => "1",
            };
            let twice = format!("{name}={right}&{name}={right}");
            let answer = call(&service, operation, &twice).await;
            assert_refused(&answer, &format!("{name}: given more than once"));
            if matches!(known.value, Value::Text | Value::Name) {
                continue;
            }
            for wrong in ["", "maybe", "-1", "TRUE"] {
                let answer = call(&service, operation, &format!("{name}={wrong}")).await;
                assert_refused(&answer, &format!("{name}: "));
            }
        }
    }
    assert_eq!(service.cluster_jobs(), ["meta-there"]);
    service.stop().await;
}

#[tokio::test]
async fn a_dry_run_that_is_asked_of_the_wrong_route_creates_nothing() {
    let service = Service::start().await;
    let body = request("succeed", "dry").to_string();
    for query in [
        "dry_run=server",
        "dry_run",
        "dryRun=All",
        "namespace=team-a",
        "&x",
    ] {
        let answer = service.post(&format!("/train?{query}"), body.clone()).await;
        assert_refused(&answer, "POST /train accepts no parameters");
    }
    for query in [
        "dry_run=serve",
        "dry_run=",
        "dry_run=true",
        "dry-run=server",
    ] {
        let path = format!("/train/preview?{query}");
        assert_refused(&service.post(&path, body.clone()).await, "dry_run");
    }
    assert!(service.cluster_jobs().is_empty());
    assert_eq!(service.post("/train?", body).await.status, 201);
    service.stop().await;
}

#[tokio::test]
async fn a_misspelt_namespace_deletes_nothing() {
    let service = Service::start().await;
    service.create(&request("wait", "kept")).await;
    for query in [
        "namesapce=team-z",
        "Namespace=default",
        "namespace=",
        "ns=default",
    ] {
        let delete = Request::delete(format!("/train/meta-kept?{query}"));
        let answer = service.send(delete.body(Body::empty()).unwrap()).await;
        assert_refused(&answer, "namespace");
    }
    assert_eq!(service.cluster_jobs(), ["meta-kept"]);
    service.stop().await;
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_in_our_words() {
    let service = Service::start().await;
    for path in ["/train/%ff", "/train/%ff/logs", "/frameworks/%c3%28"] {
        let problem = service.get(path).await.problem(400);
        assert_eq!(
            problem["detail"],
            json!("the path contains percent-encoded bytes that are not UTF-8")
        );
    }
}

#[tokio::test]
async fn without_its_token_a_query_is_not_looked_at() {
    let service = Service::with_token("secret").await;
    service.get("/train?surprise=1").await.problem(401);
}
