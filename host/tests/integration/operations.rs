//! What can be done with a job that is there, on the local cluster.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use trainer_host::request::{AllowedNamespaces, RequestPolicy};

use crate::processes::{eventually, only, replicas};
use crate::service::{Answer, Service, built_plugins, request};

async fn delete(service: &Service, path: &str) -> Answer {
    service
        .send(Request::delete(path).body(Body::empty()).unwrap())
        .await
}

async fn post(service: &Service, path: &str) -> Answer {
    service
        .send(Request::post(path).body(Body::empty()).unwrap())
        .await
}

#[tokio::test]
async fn a_deleted_job_is_gone_with_its_replicas_and_its_name_is_free() {
    let service = Service::start().await;
    service.create(&request("wait", "gone")).await;
    service.wait_for("meta-gone", "running").await;
    assert_eq!(delete(&service, "/train/meta-gone").await.status, 204);
    service.get("/train/meta-gone").await.problem(404);
    delete(&service, "/train/meta-gone").await.problem(404);
    eventually(async || replicas(&service).is_empty().then_some(())).await;
    assert_eq!(
        service.submit(&request("succeed", "gone")).await.status,
        201
    );
    service.wait_for("meta-gone", "succeeded").await;
    assert_eq!(delete(&service, "/train/meta-gone").await.status, 204);
    let data = service.stop().await;
    assert!(!data.path().join("jobs/default/meta-gone").exists());
}

#[tokio::test]
async fn a_deleted_job_frees_its_slots_and_does_not_come_back_with_the_service() {
    let service = Service::start().await;
    let mut wide = request("wait", "wide");
    wide["gpus_per_node"] = json!(4);
    service.create(&wide).await;
    service.wait_for("meta-wide", "running").await;
    service.create(&request("succeed", "next")).await;
    delete(&service, "/train/meta-wide").await;
    service.wait_for("meta-next", "succeeded").await;
    let listed = service.cluster_jobs();
    assert_eq!(listed, ["meta-next"]);
}

#[tokio::test]
async fn a_suspended_job_has_no_replicas_until_it_is_resumed() {
    let service = Service::start().await;
    service.create(&request("wait", "held")).await;
    service.wait_for("meta-held", "running").await;
    let suspended = post(&service, "/train/meta-held/suspend").await;
    assert_eq!(suspended.status, 200);
    assert_eq!(suspended.json()["status"], "submitted");
    eventually(async || replicas(&service).is_empty().then_some(())).await;
    let full = service.get("/train/meta-held?view=full").await.json();
    assert_eq!(full["suspended"], true);
    assert_eq!(
        full["explanation"],
        json!(["The job is suspended. Resume it with POST /train/meta-held/resume."])
    );
    // What is so already stays so.
    assert_eq!(post(&service, "/train/meta-held/suspend").await.status, 200);
    assert_eq!(post(&service, "/train/meta-held/resume").await.status, 200);
    service.wait_for("meta-held", "running").await;
    eventually(async || only(&replicas(&service))).await;
    service.stop().await;
}

#[tokio::test]
async fn a_job_that_has_ended_can_be_neither_suspended_nor_resumed() {
    let service = Service::start().await;
    service.create(&request("succeed", "done")).await;
    service.wait_for("meta-done", "succeeded").await;
    let problem = post(&service, "/train/meta-done/suspend")
        .await
        .problem(400);
    let detail = "job meta-done has finished and cannot be suspended or resumed";
    assert_eq!(problem["detail"], detail);
    post(&service, "/train/meta-missing/resume")
        .await
        .problem(404);
}

#[tokio::test]
async fn the_full_view_tells_replicas_exit_codes_layout_and_warnings() {
    let service = Service::start().await;
    let mut failing = request("fail", "bad");
    failing["num_nodes"] = json!(2);
    failing["extra_args"] = json!({"surprise": 1});
    failing["env"] = json!({"MY_PASSWORD": "hunter2"});
    service.create(&failing).await;
    service.wait_for("meta-bad", "failed").await;
    let full = service.get("/train/meta-bad?view=full").await.json();
    for key in ["name", "status", "detail", "framework", "run_id"] {
        assert!(full[key].is_string(), "{key}: {full}");
    }
    assert_eq!(full["replicas"]["Worker"]["desired"], 1);
    let pods = full["pods"].as_array().unwrap();
    let failed = pods.iter().find(|pod| pod["phase"] == "Failed").unwrap();
    assert_eq!(failed["exit_code"], 1);
    let explained = full["explanation"][0].as_str().unwrap();
    assert!(explained.contains("exited with code 1"), "{explained}");
    let conditions = full["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "Failed" && c["status"] == "True")
    );
    let prefix = "s3://bucket/runs/bad/framework=meta";
    assert_eq!(full["checkpoint"]["prefix"], prefix);
    assert_eq!(full["plugin"]["name"], "meta");
    let codes: Vec<_> = full["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| &w["code"])
        .collect();
    assert!(codes.contains(&&json!("secret-in-env")), "{codes:?}");
    assert!(codes.len() >= 2, "{codes:?}");
    assert!(full["completed_at"].is_string());
    service.stop().await;
}

#[tokio::test]
async fn the_full_view_tells_the_newest_progress_of_the_first_replica() {
    let service = Service::start().await;
    let full = async |job: &str| service.get(&format!("/train/{job}?view=full")).await.json();
    let line = |step| {
        format!(
            r#"{{"event": "progress", "step": {step}, "total_steps": 60, "loss": 3.2, "tokens_per_second": 5645.6, "seconds_left": 12.5}}"#
        )
    };
    let mut job = request("script", "far");
    job["num_nodes"] = json!(2);
    job["env"] = json!({
        "LINES": format!("{}\nWARNING: slow\n{}\n", line(9), line(10)),
        "OTHER": line(50),
        "SCRIPT": r#"case $RANK in
            0) printf %s "$LINES"; printf '{"event": "progress", "step": 1'; exec sleep 600 ;;
            *) echo "$OTHER"; exec sleep 600 ;;
        esac"#,
    });
    assert_eq!(service.submit(&job).await.status, 201);
    let progress = eventually(async || full("meta-far").await.get("progress").cloned()).await;
    assert_eq!(
        progress,
        json!({
            "step": 10, "total_steps": 60, "loss": 3.2, "tokens_per_second": 5645.6,
            "seconds_left": 12.5,
        })
    );
    // A job that reports no cause has none.
    service.create(&request("fail", "silent")).await;
    service.wait_for("meta-silent", "failed").await;
    assert_eq!(full("meta-silent").await.get("progress"), None);
    service.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_says_for_what() {
    let service = Service::start().await;
    let mut wide = request("wait", "wide");
    wide["gpus_per_node"] = json!(3);
    service.create(&wide).await;
    service.wait_for("meta-wide", "running").await;
    let mut next = request("wait", "next");
    next["gpus_per_node"] = json!(2);
    service.create(&next).await;
    let full = service.get("/train/meta-next?view=full").await.json();
    assert_eq!(
        full["explanation"],
        json!(["It waits for 2 slots; 1 of 4 are free now, and jobs get theirs in turn."])
    );
    service.stop().await;
}

#[tokio::test]
async fn the_manifest_is_the_job_as_it_stands() {
    let service = Service::start().await;
    service.create(&request("succeed", "shown")).await;
    service.wait_for("meta-shown", "succeeded").await;
    let manifest = service.get("/train/meta-shown/manifest").await.json();
    assert_eq!(manifest["kind"], "PyTorchJob");
    assert_eq!(manifest["status"]["conditions"][0]["type"], "Created");
    service
        .get("/train/meta-missing/manifest")
        .await
        .problem(404);
}

#[tokio::test]
async fn a_server_dry_run_finds_a_taken_name_and_creates_nothing() {
    let service = Service::start().await;
    let body = request("succeed", "dry");
    let dry_run = async || {
        service
            .post("/train/preview?dry_run=server", body.to_string())
            .await
    };
    assert_eq!(dry_run().await.status, 200);
    service.get("/train/meta-dry").await.problem(404);
    service.create(&body).await;
    let problem = dry_run().await.problem(400);
    assert_eq!(
        problem["detail"],
        "PyTorchJob meta-dry already exists for run dry"
    );
}

#[tokio::test]
async fn a_name_in_several_namespaces_asks_for_the_namespace() {
    let service = Service::start().await;
    for namespace in ["team-a", "team-b"] {
        let mut body = request("succeed", "twin");
        body["namespace"] = json!(namespace);
        body["checkpoint_base_uri"] = json!(format!("s3://{namespace}/runs"));
        assert_eq!(service.submit(&body).await.status, 201);
    }
    let problem = service.get("/train/meta-twin").await.problem(400);
    let detail = "job meta-twin exists in several namespaces (team-a, team-b); choose one with \
                  ?namespace=";
    assert_eq!(problem["detail"], detail);
    let found = service.get("/train/meta-twin?namespace=team-b").await;
    assert_eq!(found.status, 200);
}

#[tokio::test]
async fn a_namespace_that_is_not_allowed_is_refused_with_403() {
    let only = ["default".to_string(), "team-a".to_string()];
    let policy = RequestPolicy {
        namespaces: AllowedNamespaces::Only(only.into()),
        ..RequestPolicy::default()
    };
    let service = Service::with_policy(built_plugins().to_path_buf(), None, policy).await;
    let mut body = request("succeed", "away");
    body["namespace"] = json!("team-b");
    let problem = service.submit(&body).await.problem(403);
    let detail = "namespace \"team-b\" is not allowed on this service; allowed: default, team-a";
    assert_eq!(problem["detail"], detail);
    service
        .get("/train/meta-away?namespace=team-b")
        .await
        .problem(403);
    body["namespace"] = json!("team-a");
    assert_eq!(service.submit(&body).await.status, 201);
}
