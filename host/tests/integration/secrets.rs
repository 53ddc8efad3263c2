//! Secrets by reference on the local cluster: the replica has them, and nothing else shows them.

use std::path::Path;

use axum::http::Method;
use serde_json::{Value, json};
use trainer_host::cluster::local::Secrets;
use trainer_host::request::{RequestPolicy, SecretKey};

use crate::access::{ask, teams};
use crate::live::script;
use crate::service::{Service, request};

const VALUE: &str = "hunter2-is-the-value";

fn store(service: &Service, namespace: &str) {
    let key = SecretKey {
        secret: "hub".to_string(),
        key: "token".to_string(),
    };
    let secrets = Secrets::of(service.data.path());
    secrets.set(namespace, &key, VALUE).unwrap();
}

/// A request whose variable comes from a secret.
fn with_secret(mut body: Value, secret: &str) -> Value {
    body["env"]["HF_TOKEN"] = json!({"secret": secret, "key": "token"});
    body
}

/// Whether a file below a folder has a text, apart from some files.
fn has_text(folder: &Path, text: &str, except: &dyn Fn(&Path) -> bool) -> bool {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap());
    entries.into_iter().any(|entry| {
        let path = entry.path();
        if except(&path) || !entry.file_type().unwrap().is_file() && !path.is_dir() {
            return false;
        }
        if path.is_dir() {
            return has_text(&path, text, except);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn a_replica_has_the_value_of_a_secret_and_no_answer_or_file_shows_it() {
    let access = teams() + "[namespaces.team-a]\nsecrets = [\"hub\"]\n";
    let service = Service::with_access(&access, RequestPolicy::default()).await;
    store(&service, "team-a");
    let says = "[ ${#HF_TOKEN} = 20 ] && echo it has $HF_TOKEN; \
                echo \"RuntimeError: $HF_TOKEN is wrong\"; exit 1";
    let mut body = with_secret(script("told", says), "hub");
    body["namespace"] = json!("team-a");
    let mut answers = Vec::new();
    for path in ["/train/preview", "/train/preview?dry_run=server", "/train"] {
        let answer = service
            .send(ask("alice", Method::POST, path, Some(&body)))
            .await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
        answers.push(answer.text);
    }
    let preview: Value = serde_json::from_str(&answers[0]).unwrap();
    let variables = preview["env"].as_array().unwrap();
    let shown = json!({"name": "HF_TOKEN", "secret": "hub", "key": "token"});
    assert!(variables.contains(&shown), "{preview}");
    let get = async |path: &str| {
        service
            .send(ask("adam", Method::GET, path, None))
            .await
            .text
    };
    crate::processes::eventually(async || {
        let job = get("/train/meta-told?namespace=team-a").await;
        job.contains("\"failed\"").then_some(())
    })
    .await;
    let log = get("/train/meta-told/logs?namespace=team-a&replica=all").await;
    assert!(log.contains("it has ***"), "{log}");
    answers.push(log);
    for path in [
        "?view=full&",
        "/manifest?",
        "/logs?timestamps=true&",
        "/metrics?",
        "/events?",
    ] {
        let path = path.replace('?', "?namespace=team-a&");
        answers.push(get(&format!("/train/meta-told{}", path.trim_end_matches('&'))).await);
    }
    for path in ["/train", "/metrics", "/readyz?verbose"] {
        answers.push(get(path).await);
    }
    for answer in &answers {
        assert!(!answer.contains(VALUE), "{answer}");
    }
    let data = service.stop().await;
    // The store of secrets, and what the job itself has written.
    let except = |path: &Path| {
        path.ends_with("secrets") || path.extension().is_some_and(|kind| kind == "log")
    };
    assert!(has_text(data.path(), VALUE, &|_| false));
    assert!(!has_text(data.path(), VALUE, &except));
}

#[tokio::test]
async fn a_secret_must_exist_be_allowed_and_not_be_of_the_service() {
    let service = Service::start().await;
    let message = async |body: Value| {
        let problem = service.submit(&body).await.problem(400);
        assert_eq!(problem["errors"][0]["code"], "secret", "{problem}");
        problem["detail"].as_str().unwrap().to_string()
    };
    let missing = message(with_secret(request("succeed", "missing"), "hub")).await;
    let way_out = "`trainer secret set hub token --namespace default`";
    assert!(missing.contains(way_out), "{missing}");
    let own = message(with_secret(request("succeed", "own"), "trainer-token")).await;
    assert!(own.contains("belong to the service"), "{own}");
    store(&service, "default");
    let answer = service
        .submit(&with_secret(request("succeed", "there"), "hub"))
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    service.stop().await;
    let policy = RequestPolicy {
        secrets: Some(vec!["wandb".to_string()]),
        ..RequestPolicy::default()
    };
    let plugins = crate::service::built_plugins().to_path_buf();
    let service = Service::with_policy(plugins, None, policy).await;
    let refused = service
        .submit(&with_secret(request("succeed", "a"), "hub"))
        .await
        .problem(400);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("secret hub is not allowed on this service; allowed: wandb"));
    service.stop().await;
}

#[tokio::test]
async fn without_a_list_of_secrets_a_named_caller_may_use_none() {
    let service = Service::with_access(&teams(), RequestPolicy::default()).await;
    let mut body = with_secret(request("succeed", "a"), "hub");
    body["namespace"] = json!("team-a");
    let answer = service
        .send(ask("alice", Method::POST, "/train/preview", Some(&body)))
        .await;
    assert_eq!(answer.problem(400)["errors"][0]["code"], "policy-secret");
    service.stop().await;
}
