//! Which namespace a request without `?namespace=` is about, and which ones nobody sees.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;
use trainer_host::http::{AppParts, Failures, router};
use trainer_host::request::{AllowedNamespaces, RequestPolicy};

use crate::service::{Answer, Service, request};

pub(crate) async fn add(service: &Service, namespace: &str, run_id: &str) {
    let mut body = request("wait", run_id);
    body["namespace"] = json!(namespace);
    // Two jobs do not share a checkpoint prefix.
    body["checkpoint_base_uri"] = json!(format!("s3://{namespace}/runs"));
    body["gpus_per_node"] = json!(64);
    assert_eq!(service.submit(&body).await.status, 201);
}

async fn send(service: &Service, method: Method, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    service.send(request.body(Body::empty()).unwrap()).await
}

/// The same cluster through a service that serves fewer namespaces.
pub(crate) fn allowing(service: &Service, namespaces: &[&str]) -> Router {
    let names = namespaces.iter().map(|name| (*name).to_string());
    let parts = AppParts {
        plugins: service.registry.clone(),
        cluster: service.cluster.clone(),
        policy: Arc::new(RequestPolicy {
            namespaces: AllowedNamespaces::Only(names.collect()),
            ..RequestPolicy::default()
        }),
        token: None,
        access: None,
        audit: None,
        allowed_hosts: Arc::new([]),
        allowed_origins: Arc::new([]),
        failures: Failures::default(),
        draining: service.draining.subscribe(),
    };
    router(parts.into())
}

const READS: [&str; 5] = ["", "?view=full", "/manifest", "/events", "/logs?tail=1"];

#[tokio::test]
async fn a_job_of_a_namespace_that_is_not_served_does_not_exist() {
    let mut service = Service::start().await;
    add(&service, "team-b", "secret").await;
    service.router = allowing(&service, &["default", "team-a"]);
    for path in READS {
        let answer = service.get(&format!("/train/meta-secret{path}")).await;
        assert_eq!(
            answer.problem(404)["detail"],
            "Job meta-secret not found; list the jobs to see their names"
        );
    }
    for (method, path) in [
        (Method::POST, "/suspend"),
        (Method::POST, "/resume"),
        (Method::DELETE, ""),
    ] {
        let answer = send(&service, method, &format!("/train/meta-secret{path}")).await;
        assert_eq!(
            answer.problem(404)["detail"],
            "Job meta-secret not found; list the jobs to see their names"
        );
    }
    assert_eq!(service.get("/train").await.json()["jobs"], json!([]));
    assert_eq!(service.cluster_jobs(), ["meta-secret"]);
    // Nor does it make the name of another job ambiguous.
    service.router = allowing(&service, &["default", "team-a", "team-b"]);
    add(&service, "team-a", "secret").await;
    service.router = allowing(&service, &["default", "team-a"]);
    let answer = service.get("/train/meta-secret?view=full").await;
    assert_eq!(answer.json()["namespace"], "team-a");
    service.stop().await;
}

#[tokio::test]
async fn what_changes_a_job_never_guesses_its_namespace() {
    let service = Service::start().await;
    add(&service, "default", "x").await;
    add(&service, "team-a", "x").await;
    let delete = async |path: &str| send(&service, Method::DELETE, path).await;
    assert_eq!(delete("/train/meta-x").await.status, 204);
    let refused = delete("/train/meta-x").await.problem(404);
    assert_eq!(
        refused["detail"],
        "job meta-x does not exist in namespace default, but in team-a; choose one with ?namespace="
    );
    for change in ["suspend", "resume"] {
        let path = format!("/train/meta-x/{change}");
        send(&service, Method::POST, &path).await.problem(404);
    }
    assert_eq!(service.cluster_jobs(), ["meta-x"]);
    let path = "/train/meta-x/suspend?namespace=team-a";
    assert_eq!(send(&service, Method::POST, path).await.status, 200);
    assert_eq!(delete("/train/meta-x?namespace=team-a").await.status, 204);
    assert!(service.cluster_jobs().is_empty());
    assert_eq!(
        delete("/train/meta-x").await.problem(404)["detail"],
        "Job meta-x not found; list the jobs to see their names"
    );
    service.stop().await;
}

#[tokio::test]
async fn a_read_that_finds_a_job_elsewhere_says_where() {
    let service = Service::start().await;
    add(&service, "team-a", "far").await;
    for path in ["", "?view=full", "/manifest"] {
        let answer = service.get(&format!("/train/meta-far{path}")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-location"),
            "/train/meta-far?namespace=team-a"
        );
        assert_eq!(
            answer.header("warning"),
            "299 - \"job meta-far does not exist in namespace default, but in team-a\""
        );
    }
    let named = service.get("/train/meta-far?namespace=team-a").await;
    assert_eq!(
        (named.header("warning"), named.header("content-location")),
        ("", "")
    );
    add(&service, "team-b", "far").await;
    service.get("/train/meta-far").await.problem(400);
    add(&service, "default", "far").await;
    let home = service.get("/train/meta-far?view=full").await;
    assert_eq!(
        (home.json()["namespace"].clone(), home.header("warning")),
        (json!("default"), "")
    );
    service.stop().await;
}
