//! Named tokens, roles and policies.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use trainer_host::request::RequestPolicy;

use crate::service::{Answer, Service, request};

/// An entry of the access file. The token of a caller is its name.
pub(crate) fn token(name: &str, role: &str, namespaces: &[&str]) -> String {
    let hash = Sha256::digest(name);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "[tokens.{name}]\nsha256 = \"{hash}\"\nrole = \"{role}\"\nnamespaces = {namespaces:?}\n"
    )
}

/// Callers of two teams.
pub(crate) fn teams() -> String {
    [
        token("vera", "viewer", &["team-a"]),
        token("alice", "submitter", &["team-a"]),
        token("alex", "submitter", &["team-a"]),
        token("olga", "operator", &["team-a"]),
        token("adam", "admin", &["*"]),
        token("bob", "submitter", &["team-b"]),
        token("both", "viewer", &["team-a", "team-b"]),
    ]
    .concat()
}

pub(crate) fn ask(caller: &str, method: Method, path: &str, body: Option<&Value>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("x-trainer-token", caller);
    match body {
        Some(body) => request
            .header("content-type", "application/json")
            .body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    }
    .unwrap()
}

async fn get(service: &Service, caller: &str, path: &str) -> Answer {
    service.send(ask(caller, Method::GET, path, None)).await
}

pub(crate) async fn submit(service: &Service, caller: &str, body: &Value) -> Answer {
    service
        .send(ask(caller, Method::POST, "/train", Some(body)))
        .await
}

/// A job that waits for more slots than there are.
pub(crate) fn waiting(run_id: &str, namespace: &str) -> Value {
    let mut body = request("wait", run_id);
    body["gpus_per_node"] = json!(64);
    body["namespace"] = json!(namespace);
    body["checkpoint_base_uri"] = json!(format!("s3://{namespace}/runs"));
    body
}

async fn start(access: &str) -> Service {
    Service::with_access(access, RequestPolicy::default()).await
}

#[tokio::test]
async fn a_request_needs_a_valid_token_in_either_header() {
    let late = token("late", "viewer", &["team-a"]) + "expires = 2020-01-01T00:00:00Z\n";
    let service = start(&(teams() + &late)).await;
    let missing = service.get("/train").await.problem(401);
    assert!(
        missing["detail"]
            .as_str()
            .unwrap()
            .contains("the token is missing")
    );
    get(&service, "nobody", "/train").await.problem(401);
    for (header, value, said) in [
        (
            "authorization",
            "Basic YTpi",
            "write Authorization: Bearer TOKEN",
        ),
        ("x-trainer-token", "Bearer alice", "without the word Bearer"),
        (
            "x-trainer-token",
            "late",
            "the token of late expired at 2020-01-01T00:00:00Z; ask",
        ),
    ] {
        let request = Request::get("/train").header(header, value);
        let problem = service
            .send(request.body(Body::empty()).unwrap())
            .await
            .problem(401);
        assert!(
            problem["detail"].as_str().unwrap().contains(said),
            "{problem}"
        );
    }
    let bearer = Request::get("/whoami").header("authorization", "Bearer alice");
    let answer = service.send(bearer.body(Body::empty()).unwrap()).await;
    let expected = json!({
        "name": "alice",
        "grants": [{"role": "submitter", "namespaces": ["team-a"]}],
    });
    assert_eq!(answer.json(), expected);
    // Metrics count the jobs of all namespaces.
    service.get("/metrics").await.problem(401);
    get(&service, "vera", "/metrics").await.problem(403);
    assert_eq!(get(&service, "adam", "/metrics").await.status, 200);
    assert_eq!(service.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_service_with_one_token_takes_it_as_a_bearer_token() {
    let service = Service::with_token("secret").await;
    let bearer = |token: &str| {
        let request = Request::get("/whoami").header("authorization", format!("Bearer {token}"));
        request.body(Body::empty()).unwrap()
    };
    let answer = service.send(bearer("secret")).await;
    assert_eq!(
        answer.json(),
        json!({"grants": [{"role": "admin", "namespaces": ["*"]}]})
    );
    service.send(bearer("wrong")).await.problem(401);
}

#[tokio::test]
async fn a_job_has_an_owner_by_whom_it_is_listed() {
    let service = start(&teams()).await;
    let mut body = waiting("one", "team-a");
    body.as_object_mut().unwrap().remove("namespace");
    // The only namespace of a caller is its default.
    assert_eq!(submit(&service, "alice", &body).await.status, 201);
    assert_eq!(
        submit(&service, "alex", &waiting("two", "team-a"))
            .await
            .status,
        201
    );
    let full = get(&service, "vera", "/train/meta-one?view=full")
        .await
        .json();
    assert_eq!(
        (&full["owner"], &full["namespace"]),
        (&json!("alice"), &json!("team-a"))
    );
    let listed = get(&service, "vera", "/train?owner=alice").await.json();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(listed["jobs"][0]["owner"], "alice");
    let manifest = get(&service, "vera", "/train/meta-one/manifest")
        .await
        .json();
    let metadata = &manifest["metadata"];
    assert_eq!(metadata["annotations"]["trainer.deepfinery/owner"], "alice");
    assert_eq!(metadata["labels"]["trainer.deepfinery/owner"], "alice");
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_yours_is_answered_like_what_is_not_there() {
    let service = start(&teams()).await;
    assert_eq!(
        submit(&service, "bob", &waiting("there", "team-b"))
            .await
            .status,
        201
    );
    for (method, path) in [
        (Method::GET, "/train/NAME"),
        (Method::GET, "/train/NAME?view=full"),
        (Method::GET, "/train/NAME?namespace=team-b"),
        (Method::GET, "/train/NAME/manifest"),
        (Method::GET, "/train/NAME/logs"),
        (Method::GET, "/train/NAME/events?namespace=team-b"),
        (Method::DELETE, "/train/NAME"),
        (Method::DELETE, "/train/NAME?namespace=team-b"),
        (Method::POST, "/train/NAME/suspend"),
    ] {
        let answer = async |name: &str| {
            let path = path.replace("NAME", name);
            let answer = service
                .send(ask("alice", method.clone(), &path, None))
                .await;
            let message = answer.json()["detail"]
                .as_str()
                .unwrap()
                .replace(name, "NAME");
            (answer.status, message)
        };
        assert_eq!(
            answer("meta-there").await,
            answer("meta-other").await,
            "{path}"
        );
    }
    assert_eq!(
        get(&service, "alice", "/train").await.json()["jobs"],
        json!([])
    );
    let found = get(&service, "both", "/train/meta-there").await;
    assert_eq!(found.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_is_of_its_caller() {
    let service = start(&teams()).await;
    let body = waiting("shared", "team-a");
    let send = async |caller: &str| {
        let mut request = ask(caller, Method::POST, "/train", Some(&body));
        let key = "key".parse().unwrap();
        request.headers_mut().insert("idempotency-key", key);
        service.send(request).await
    };
    assert_eq!(send("alice").await.status, 201);
    assert_eq!(send("alice").await.status, 201);
    let taken = send("alex").await.problem(400);
    assert_eq!(taken["type"], "urn:trainer:problem:name-taken");
    service.stop().await;
}

const POLICY: &str = r#"
[namespaces.team-a]
images = ["ghcr.io/team-a/*"]
image_digest = "required"
datasets = ["s3://team-a/", "hf://"]
checkpoints = ["s3://team-a/runs"]
models = ["wait", "meta-llama/*"]
claims = ["data"]
labels = ["team", "kueue.x-k8s.io/queue-name"]
env = ["PYTHONPATH"]
max_nodes = 2
max_gpus = 128
max_total_gpus = 200

[roles.submitter]
max_jobs = 3
"#;

#[tokio::test]
async fn a_policy_refuses_with_the_rule_and_what_would_be_allowed() {
    let service = start(&(teams() + POLICY)).await;
    let mut allowed = waiting("fine", "team-a");
    allowed["dataset_uri"] = json!("s3://team-a/data/");
    assert_eq!(submit(&service, "alice", &allowed).await.status, 201);
    for (field, value, code, said) in [
        (
            "image",
            json!("docker.io/evil:1"),
            "policy-image",
            "image: \"docker.io/evil:1\" is not allowed by namespaces.team-a.images; allowed: \
             ghcr.io/team-a/*",
        ),
        (
            "image",
            json!("ghcr.io/team-a/trainer:1"),
            "policy-image",
            "namespaces.team-a.image_digest requires one",
        ),
        (
            "dataset_uri",
            json!("s3://team-b/data/"),
            "policy-uri",
            "namespaces.team-a.datasets; allowed: s3://team-a/, hf://",
        ),
        (
            "checkpoint_base_uri",
            json!("s3://team-a/runs-of-others"),
            "policy-uri",
            "namespaces.team-a.checkpoints",
        ),
        (
            "model_id",
            json!("evil/model"),
            "policy-model",
            "namespaces.team-a.models",
        ),
        (
            "extra_args",
            json!({"tokenizer_name": "s3://team-b/tokenizer"}),
            "policy-uri",
            "extra_args.tokenizer_name",
        ),
        (
            "labels",
            json!({"example.org/cost": "1"}),
            "policy-metadata",
            "namespaces.team-a.labels; allowed: team, kueue.x-k8s.io/queue-name",
        ),
        (
            "annotations",
            json!({"sidecar.istio.io/inject": "true"}),
            "policy-metadata",
            "no list annotations",
        ),
        (
            "env",
            json!({"LD_PRELOAD": "/x.so"}),
            "policy-env",
            "namespaces.team-a.env",
        ),
        (
            "num_nodes",
            json!(3),
            "policy-size",
            "namespaces.team-a.max_nodes; allowed: at most 2",
        ),
        ("num_nodes", json!(3), "policy-total", "192 GPUs with"),
    ] {
        let mut body = allowed.clone();
        body["run_id"] = json!("next");
        body[field] = value;
        for path in ["/train", "/train/preview"] {
            let answer = service
                .send(ask("alice", Method::POST, path, Some(&body)))
                .await;
            if code == "policy-total" {
                continue;
            }
            let problem = answer.problem(400);
            let errors = problem["errors"].as_array().unwrap();
            let is_said = |error: &Value| {
                error["code"] == code && error["detail"].as_str().unwrap().contains(said)
            };
            assert!(errors.iter().any(is_said), "{path} {field}: {problem}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn the_jobs_of_a_namespace_and_of_a_caller_have_limits_together() {
    let service = start(&(teams() + POLICY)).await;
    let body = |run_id: &str, gpus: u32| {
        let mut body = waiting(run_id, "team-a");
        body["dataset_uri"] = json!("s3://team-a/data/");
        body["gpus_per_node"] = json!(gpus);
        body
    };
    // 64 + 64 + 64 GPUs are allowed, and no further 64.
    for run_id in ["a", "b", "c"] {
        assert_eq!(
            submit(&service, "alice", &body(run_id, 64)).await.status,
            201
        );
    }
    let refused = submit(&service, "alex", &body("d", 64)).await.problem(400);
    let said = "256 GPUs with the unfinished jobs, which have 192, are not allowed by \
                namespaces.team-a.max_total_gpus; allowed: at most 200";
    assert!(
        refused["detail"].as_str().unwrap().contains(said),
        "{refused}"
    );
    let refused = submit(&service, "alice", &body("e", 1)).await.problem(400);
    assert_eq!(refused["errors"][0]["code"], "policy-total");
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("roles.submitter.max_jobs")
    );
    // Another caller has its own share of the role's limit.
    assert_eq!(submit(&service, "alex", &body("f", 1)).await.status, 201);
    let delete = ask("alice", Method::DELETE, "/train/meta-a", None);
    assert_eq!(service.send(delete).await.status, 204);
    assert_eq!(submit(&service, "alice", &body("g", 1)).await.status, 201);
    service.stop().await;
}

#[tokio::test]
async fn concurrent_submissions_stay_within_a_limit() {
    let access = teams() + "[roles.submitter]\nmax_jobs = 2\n";
    let service = start(&access).await;
    let names: Vec<String> = (0..12).map(|number| format!("run-{number}")).collect();
    let sent = names.iter().map(async |name| {
        let answer = submit(&service, "alice", &waiting(name, "team-a")).await;
        answer.status.as_u16()
    });
    let statuses = futures_util::future::join_all(sent).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 2);
    service.stop().await;
}

#[tokio::test]
async fn each_change_is_a_line_of_the_audit_log_without_the_body() {
    let service = start(&(teams() + POLICY)).await;
    let mut body = waiting("audited", "team-a");
    body["dataset_uri"] = json!("s3://team-a/data/");
    body["env"] = json!({"MY_PASSWORD": "hunter2"});
    assert_eq!(submit(&service, "alice", &body).await.status, 201);
    body["image"] = json!("docker.io/evil:1");
    body["run_id"] = json!("refused");
    submit(&service, "alice", &body).await;
    let delete = |caller| ask(caller, Method::DELETE, "/train/meta-audited", None);
    service.send(delete("alex")).await.problem(403);
    service.send(delete("vera")).await.problem(403);
    assert_eq!(service.send(delete("olga")).await.status, 204);
    get(&service, "alice", "/train").await;
    let file = service.data.path().join("audit.jsonl");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(
        !text.contains("hunter2") && !text.contains("docker.io"),
        "{text}"
    );
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let message: Vec<_> = lines
        .iter()
        .map(|line| {
            let part = |member: &str| line[member].as_str().unwrap_or("-").to_string();
            [
                part("who"),
                part("operation"),
                part("name"),
                part("outcome"),
            ]
            .join(" ")
        })
        .collect();
    assert_eq!(
        message,
        [
            "alice createJob meta-audited done",
            "alice createJob meta-refused refused",
            "alex deleteJob meta-audited refused",
            "vera deleteJob meta-audited refused",
            "olga deleteJob meta-audited done",
        ]
    );
    assert_eq!(lines[1]["rules"][0], "namespaces.team-a.images");
    assert_eq!(lines[0]["namespace"], "team-a");
    service.stop().await;
}
