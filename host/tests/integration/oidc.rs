//! ID tokens of a real OpenID Connect provider on loopback: npm's `oidc-provider`, which `make
//! oidc-provider` installs. Without it, these tests are left out.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use trainer_host::request::RequestPolicy;

use crate::service::{Answer, Service};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oidc/provider.mjs");
/// The service fetches keys again for a token with an unknown one, but not within this time.
const AGAIN: Duration = Duration::from_secs(10);

struct Provider {
    issuer: String,
    process: Child,
}

#[expect(
    clippy::print_stdout,
    reason = "what is left out is for who runs the tests"
)]
fn installed() -> Option<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/oidc"));
    if folder.join("node_modules/oidc-provider").is_dir() {
        return Some(folder.to_path_buf());
    }
    println!("left out: `make oidc-provider` installs the provider (needs npm)");
    None
}

impl Provider {
    async fn start() -> Option<Self> {
        let mut process = Command::new("node")
            .arg(SCRIPT)
            .arg(installed()?)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if line.starts_with("http://") {
                return Some(Self {
                    issuer: line,
                    process,
                });
            }
        }
    }

    async fn get(&self, path: &str) -> String {
        let url = format!("{}/test/{path}", self.issuer);
        let read = move || {
            ureq::get(&url)
                .call()
                .unwrap()
                .body_mut()
                .read_to_string()
                .unwrap()
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// A service that accepts its tokens.
    async fn service(&self, settings: &str) -> Service {
        let issuer = &self.issuer;
        let access = format!(
            "[oidc]\nissuer = {issuer:?}\naudience = \"trainer\"\n{settings}\n\
             [groups.\"oidc:ml\"]\nrole = \"submitter\"\nnamespaces = [\"team-a\"]\n\
             [users.\"oidc:olga\"]\nrole = \"operator\"\nnamespaces = [\"team-b\"]\n"
        );
        Service::with_access(&access, RequestPolicy::default()).await
    }
}

async fn who(service: &Service, token: &str) -> Answer {
    let request = Request::get("/whoami").header("authorization", format!("Bearer {token}"));
    service.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_user_with_an_id_token_of_any_algorithm_has_its_roles_and_those_of_its_groups() {
    let Some(provider) = Provider::start().await else {
        return;
    };
    let service = provider.service("").await;
    for algorithm in ["RS256", "PS256", "ES256"] {
        let token = provider
            .get(&format!("token?alg={algorithm}&sub=olga"))
            .await;
        let answer = who(&service, &token).await;
        let grants = json!([
            {"role": "operator", "namespaces": ["team-b"]},
            {"role": "submitter", "namespaces": ["team-a"]},
        ]);
        assert_eq!(
            answer.json(),
            json!({"name": "oidc:olga", "grants": grants}),
            "{algorithm}"
        );
    }
    let other = provider.get("token?client=another-service").await;
    who(&service, &other).await.problem(401);
    service.stop().await;
    // Anybody can claim an address that the provider has not verified.
    let service = provider.service("username_claim = \"email\"").await;
    let token = provider.get("token?sub=olga").await;
    who(&service, &token).await.problem(401);
    service.stop().await;
}

#[tokio::test]
async fn no_forged_token_and_no_token_for_something_else_is_accepted() {
    let Some(provider) = Provider::start().await else {
        return;
    };
    let service = provider.service("").await;
    let kinds: Vec<String> = serde_json::from_str(&provider.get("forged?kind=list").await).unwrap();
    for kind in &kinds {
        let token = provider.get(&format!("forged?kind={kind}")).await;
        let answer = who(&service, &token).await;
        match kind.as_str() {
            "nothing-wrong" => assert_eq!(answer.status, StatusCode::OK, "{}", answer.text),
            _ => assert_eq!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{kind}: {}",
                answer.text
            ),
        }
        assert!(!answer.text.contains(&token), "{kind}");
    }
    service.stop().await;
}

#[tokio::test]
async fn keys_that_the_provider_replaces_are_fetched_and_the_old_ones_forgotten() {
    let Some(mut provider) = Provider::start().await else {
        return;
    };
    let service = provider.service("").await;
    let old = provider.get("token").await;
    assert_eq!(who(&service, &old).await.status, StatusCode::OK);
    provider.get("rotate").await;
    let new = provider.get("token").await;
    tokio::time::sleep(AGAIN).await;
    assert_eq!(who(&service, &new).await.status, StatusCode::OK);
    who(&service, &old).await.problem(401);
    // Known keys are used while the provider is away.
    provider.process.kill().await.unwrap();
    let answer = who(&service, &new).await;
    let name = answer.json()["name"].clone();
    assert_eq!(name, Value::from("oidc:alice"));
    service.stop().await;
}
