//! Bad arguments of one caller: they are answered as such, and no other caller of the framework
//! notices them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::service::{Service, request, with_attack};

/// Calls with bad arguments, at 200 a second.
const CALLS: usize = 400;
const BETWEEN: Duration = Duration::from_millis(5);

/// The hostile plugin with another description: `strict` requires a text `attack` in its schema,
/// `careless` does not; both trap without one.
async fn service(described: &str, limits: &str) -> (Arc<Service>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hostile.wasm"), with_attack(described)).unwrap();
    let settings = format!("[defaults]\nrest_seconds = 600\n{limits}");
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    let service = Service::with(folder.path().to_path_buf(), None).await;
    (Arc::new(service), folder)
}

fn with(extra_args: Value) -> Value {
    let mut request = request("x", "run-1");
    request["framework"] = json!("hostile");
    request["extra_args"] = extra_args;
    request
}

fn honest() -> Value {
    with(json!({"attack": "nothing"}))
}

/// Sends bad requests and waits for none of them. Each honest one in between is served. Gives the
/// statuses of the bad ones.
async fn beside_honest(service: &Arc<Service>, bad: impl Fn(usize) -> Value) -> Vec<u16> {
    let mut tasks = Vec::new();
    for call in 0..CALLS {
        let (service, bad) = (service.clone(), bad(call));
        let of_bad = service.clone();
        tasks.push(tokio::spawn(async move {
            of_bad.preview(&bad).await.status.as_u16()
        }));
        tokio::time::sleep(BETWEEN).await;
        if call % 4 == 0 {
            let answer = service.preview(&honest()).await;
            assert_eq!(answer.status, 200, "after {call}: {}", answer.text);
        }
    }
    let mut statuses = Vec::new();
    for task in tasks {
        statuses.push(task.await.unwrap());
    }
    statuses
}

#[tokio::test]
async fn arguments_that_the_schema_refuses_are_answered_400_although_the_plugin_traps() {
    let (service, _folder) = service("strict", "").await;
    let problem = service.preview(&with(json!({}))).await.problem(400);
    assert_eq!(problem["errors"][0]["pointer"], "/extra_args/attack");
    let problem = service
        .preview(&with(json!({"attack": 5})))
        .await
        .problem(400);
    assert_eq!(problem["errors"][0]["pointer"], "/extra_args/attack");
    let statuses = beside_honest(&service, |call| with(json!({ "attack": call }))).await;
    assert!(statuses.iter().all(|status| *status == 400), "{statuses:?}");
}

#[tokio::test]
async fn arguments_that_trap_a_plugin_are_nobody_elses_affair() {
    let (service, _folder) = service("careless", "").await;
    let statuses = beside_honest(&service, |_| with(json!({}))).await;
    assert!(statuses.iter().all(|status| *status == 502), "{statuses:?}");
    let statuses = beside_honest(&service, |call| with(json!({ "call": call }))).await;
    assert!(statuses.iter().all(|status| *status == 502), "{statuses:?}");
}

#[tokio::test]
async fn arguments_that_make_a_plugin_spin_take_one_turn_at_most() {
    let (service, _folder) = service("strict", "concurrency = 2\n").await;
    let spinning = with(json!({"attack": "loop"}));
    assert_eq!(service.preview(&spinning).await.status, 502);
    let statuses = beside_honest(&service, |_| spinning.clone()).await;
    let known = statuses.iter().all(|status| [429, 502].contains(status));
    assert!(known && statuses.contains(&429), "{statuses:?}");
}
