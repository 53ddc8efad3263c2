//! What clients expect of any service: tags, YAML, HEAD, compression, traces, and that no web page
//! uses a service that asks for no token.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::Value;

use crate::service::{Answer, Service, request};

async fn get(service: &Service, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(service, Method::GET, path, headers).await
}

async fn send(service: &Service, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    service.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let service = Service::start().await;
    service.create(&request("wait", "tagged")).await;
    service.wait_for("meta-tagged", "running").await;
    for path in [
        "/train",
        "/train/meta-tagged",
        "/frameworks",
        "/train/meta-tagged/manifest",
    ] {
        let first = get(&service, path, &[]).await;
        let tag = first.header("etag").to_string();
        assert!(tag.starts_with("W/\""), "{path}: {tag}");
        let again = get(&service, path, &[("if-none-match", &tag)]).await;
        assert_eq!(
            (again.status.as_u16(), again.text.as_str()),
            (304, ""),
            "{path}"
        );
        assert_eq!(again.header("etag"), tag);
        let other = get(&service, path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!(other.status, 200, "{path}");
    }
    let before = get(&service, "/train/meta-tagged", &[]).await;
    let suspended = send(&service, Method::POST, "/train/meta-tagged/suspend", &[]).await;
    assert_eq!(suspended.status, 200);
    let known = [("if-none-match", before.header("etag"))];
    assert_eq!(
        get(&service, "/train/meta-tagged", &known).await.status,
        200
    );
    service.stop().await;
}

#[tokio::test]
async fn reads_are_yaml_for_those_who_ask_for_it() {
    let service = Service::start().await;
    service.create(&request("succeed", "shown")).await;
    let yaml = [("accept", "application/yaml")];
    for path in [
        "/train",
        "/train/meta-shown",
        "/train/meta-shown?view=full",
        "/frameworks/meta",
    ] {
        let answer = get(&service, path, &yaml).await;
        assert_eq!(answer.header("content-type"), "application/yaml", "{path}");
        let read: Value = serde_saphyr::from_str(&answer.text).unwrap();
        assert!(read.is_object(), "{path}: {}", answer.text);
    }
    get(&service, "/train/meta-missing", &yaml)
        .await
        .problem(404);
}

#[tokio::test]
async fn head_tells_what_get_would() {
    let service = Service::start().await;
    for path in ["/frameworks", "/train", "/healthz"] {
        let get = get(&service, path, &[]).await;
        let head = send(&service, Method::HEAD, path, &[]).await;
        assert_eq!(
            (head.status, head.text.as_str()),
            (get.status, ""),
            "{path}"
        );
        assert_eq!(head.header("etag"), get.header("etag"), "{path}");
        assert_eq!(
            head.header("content-type"),
            get.header("content-type"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_take_it() {
    let service = Service::start().await;
    let request = Request::get("/frameworks").header("accept-encoding", "gzip");
    let request = request.body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(service.router.clone(), request)
        .await
        .unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert_eq!(
        get(&service, "/frameworks", &[])
            .await
            .header("content-encoding"),
        ""
    );
}

#[tokio::test]
async fn without_a_token_only_hosts_that_are_this_services_own_are_answered() {
    let service = Service::start().await;
    let problem = get(&service, "/train", &[("host", "evil.example:8080")])
        .await
        .problem(403);
    assert_eq!(problem["type"], "urn:trainer:problem:foreign-host");
    for host in ["127.0.0.1:8080", "localhost", "[::1]:8080"] {
        assert_eq!(
            get(&service, "/train", &[("host", host)]).await.status,
            200,
            "{host}"
        );
    }
    // A probe may come by any name.
    assert_eq!(
        get(&service, "/healthz", &[("host", "evil.example")])
            .await
            .status,
        200
    );
    let guarded = Service::with_token("secret").await;
    let headers = [("host", "trainer.example"), ("x-trainer-token", "secret")];
    assert_eq!(get(&guarded, "/train", &headers).await.status, 200);
}

#[tokio::test]
async fn without_a_token_what_tells_anything_is_for_own_hosts_alone() {
    let service = Service::start().await;
    let foreign = ("host", "evil.example");
    let message = [
        "/metrics",
        "/docs",
        "/openapi.json",
        "/readyz?verbose",
        "/readyz?a=1&verbose=1",
    ];
    for path in message.into_iter().chain(["/frameworks", "/nothing"]) {
        get(&service, path, &[foreign]).await.problem(403);
        let own = get(&service, path, &[("host", "127.0.0.1:8080")]).await;
        assert_ne!(own.status, 403, "{path}");
    }
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbos"] {
        assert_eq!(get(&service, path, &[foreign]).await.status, 200, "{path}");
    }
    let guarded = Service::with_token("secret").await;
    assert_eq!(get(&guarded, "/metrics", &[foreign]).await.status, 200);
}

#[tokio::test]
async fn no_answer_is_taken_for_something_else_than_it_says() {
    let service = Service::with_token("secret").await;
    let token = ("x-trainer-token", "secret");
    for path in [
        "/docs",
        "/metrics",
        "/train",
        "/train/missing",
        "/nothing",
        "/healthz",
    ] {
        for headers in [&[token][..], &[]] {
            let answer = get(&service, path, headers).await;
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        }
    }
    assert_eq!(
        service
            .post("/healthz", "")
            .await
            .header("x-content-type-options"),
        "nosniff"
    );
}

#[tokio::test]
async fn an_id_of_a_request_that_is_long_or_odd_is_replaced() {
    let service = Service::start().await;
    let id = async |given: &str| {
        let answer = get(&service, "/train/missing", &[("x-request-id", given)]).await;
        answer.problem(404);
        answer.header("x-request-id").to_string()
    };
    for given in [
        "mine-1",
        "0af76519-16cd-43dd-8448-eb211c80319c",
        "a/b:c=d+e@f.g_h",
    ] {
        assert_eq!(id(given).await, given);
    }
    for given in [
        "x".repeat(129),
        "x".repeat(300_000),
        "a b".into(),
        "<b>".into(),
        "\"".into(),
    ] {
        assert_eq!(id(&given).await.len(), 36, "{}", given.len());
    }
    let twice = [("x-request-id", "one"), ("x-request-id", "two")];
    let answer = get(&service, "/healthz", &twice).await;
    assert_eq!(answer.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let service = Service::start().await;
    service.create(&request("wait", "safe")).await;
    let path = "/train/meta-safe/suspend";
    let host = ("host", "localhost:8080");
    for headers in [
        [host, ("origin", "https://evil.example")],
        [host, ("sec-fetch-site", "cross-site")],
    ] {
        send(&service, Method::POST, path, &headers)
            .await
            .problem(403);
    }
    let own = [host, ("origin", "http://localhost:8080")];
    assert_eq!(send(&service, Method::POST, path, &own).await.status, 200);
    // No answer says that a page of another site may read it.
    let answer = get(
        &service,
        "/train",
        &[host, ("origin", "http://localhost:8080")],
    )
    .await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
    service.stop().await;
}

#[tokio::test]
async fn a_page_of_a_named_site_reads_and_changes() {
    let service = Service::start().await;
    service.create(&request("wait", "shown")).await;
    let host = ("host", "localhost:8080");
    let origin = ("origin", "https://dashboard.example");
    let answer = get(&service, "/train", &[host, origin]).await;
    assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    let path = "/train/meta-shown/suspend";
    let asks = ("access-control-request-method", "POST");
    let names = ("access-control-request-headers", "x-trainer-token");
    let preflight = send(
        &service,
        Method::OPTIONS,
        path,
        &[host, origin, asks, names],
    )
    .await;
    assert_eq!(preflight.status, 200);
    let allowed = preflight.header("access-control-allow-headers");
    assert!(allowed.contains("x-trainer-token"), "{allowed}");
    assert_eq!(
        send(&service, Method::POST, path, &[host, origin])
            .await
            .status,
        200
    );
    service.stop().await;
}

#[tokio::test]
async fn the_service_describes_itself_and_the_committed_description_is_current() {
    let service = Service::start().await;
    let served = get(&service, "/openapi.json", &[]).await.json();
    assert_eq!(served["openapi"], "3.1.0");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let text = serde_json::to_string_pretty(&served).unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap();
    assert!(committed == text, "`make openapi` writes docs/openapi.json");
    let examples = &served["paths"]["/train"]["post"]["requestBody"]["content"]["application/json"];
    for framework in ["nemo", "hf", "meta"] {
        let example = &examples["examples"][framework]["value"];
        let previewed = service.preview(example).await;
        assert_eq!(previewed.status, 200, "{framework}: {}", previewed.text);
    }
}

#[tokio::test]
async fn every_operation_of_the_description_is_there() {
    let service = Service::start().await;
    service.create(&request("succeed", "there")).await;
    service.wait_for("meta-there", "succeeded").await;
    let served = get(&service, "/openapi.json", &[]).await.json();
    let paths = served["paths"].as_object().unwrap().iter();
    // The stream of all jobs does not end.
    for (path, operations) in paths.filter(|(path, _)| *path != "/events") {
        let path = path
            .replace("{job_name}", "meta-there")
            .replace("{name}", "meta");
        for method in operations
            .as_object()
            .unwrap()
            .keys()
            .filter(|m| *m != "delete")
        {
            let method = method.to_uppercase().parse().unwrap();
            let status = send(&service, method, &path, &[]).await.status;
            assert!(status != 404 && status != 405, "{path}: {status}");
        }
    }
    let page = get(&service, "/docs", &[]).await;
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    assert!(page.text.contains("/train/{job_name}/logs"));
    for outside in ["src=", "<script", "http://", "https://"] {
        let without_schema = page.text.replace("https://json-schema.org", "");
        assert!(!without_schema.contains(outside), "{outside}");
    }
}
