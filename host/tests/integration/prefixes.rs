//! One checkpoint prefix has one writer, and an earlier run's checkpoints are kept unless asked.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::service::{Service, request};

async fn delete(service: &Service, path: &str) -> StatusCode {
    let request = Request::delete(path).body(Body::empty()).unwrap();
    service.send(request).await.status
}

/// A request of run `live` under the name of a job.
fn named(job: &str) -> Value {
    let mut request = request("wait", "live");
    request["job_name"] = json!(job);
    request
}

fn with(mut request: Value, field: &str, value: Value) -> Value {
    request[field] = value;
    request
}

#[tokio::test]
async fn a_prefix_that_a_live_job_writes_to_is_refused_with_its_name() {
    let service = Service::start().await;
    assert_eq!(service.submit(&named("one")).await.status, 201);
    let same_store = [
        named("two"),
        with(named("one"), "namespace", json!("team-a")),
        with(
            named("two"),
            "checkpoint_base_uri",
            json!("s3://bucket/runs/"),
        ),
        with(named("two"), "resume_from_checkpoint", json!(true)),
        with(named("two"), "overwrite", json!(true)),
        // A run within the other one's folder.
        with(
            named("two"),
            "checkpoint_base_uri",
            json!("s3://bucket/runs/live/framework=meta/checkpoints"),
        ),
    ];
    for request in same_store {
        let problem = service.submit(&request).await.problem(400);
        assert_eq!(
            problem["type"], "urn:trainer:problem:prefix-taken",
            "{request}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("by job one in namespace default; wait until it finishes, delete it"),
            "{detail}"
        );
    }
    let tried = service.post("/train/preview?dry_run=server", named("two").to_string());
    tried.await.problem(400);
    for other in [
        with(named("two"), "framework", json!("hf")),
        with(named("three"), "run_id", json!("live2")),
        with(
            named("four"),
            "checkpoint_base_uri",
            json!("s3://bucket2/runs"),
        ),
    ] {
        service.create(&other).await;
    }
    // The name is taken too, which says more.
    let problem = service.submit(&named("one")).await.problem(400);
    assert_eq!(problem["type"], "urn:trainer:problem:name-taken");
}

#[tokio::test]
async fn a_prefix_is_free_when_its_job_has_ended_or_is_deleted() {
    let service = Service::start().await;
    let succeed = with(named("one"), "model_id", json!("succeed"));
    service.create(&succeed).await;
    service.wait_for("one", "succeeded").await;
    assert_eq!(service.submit(&named("two")).await.status, 201);
    service.submit(&named("three")).await.problem(400);
    assert_eq!(delete(&service, "/train/two").await, StatusCode::NO_CONTENT);
    assert_eq!(service.submit(&named("three")).await.status, 201);
}

#[tokio::test]
async fn of_jobs_that_race_for_a_prefix_one_is_created() {
    let service = Service::start().await;
    for round in 0..10 {
        let requests = (0..6).map(|job| {
            let mut request = request("succeed", &format!("race-{round}"));
            request["job_name"] = json!(format!("race-{round}-{job}"));
            request["namespace"] = json!(["default", "team-a"][job % 2]);
            request
        });
        let requests: Vec<Value> = requests.collect();
        let answers = join_all(requests.iter().map(|request| service.submit(request))).await;
        let created = answers.iter().filter(|answer| answer.status == 201);
        let taken = answers.iter().filter(|answer| answer.status == 400);
        // A quick winner may have ended before the last one asks.
        assert!(created.count() >= 1);
        assert!(taken.count() >= 1, "round {round}");
    }
}

#[tokio::test]
async fn committed_checkpoints_are_kept_unless_the_job_says_what_becomes_of_them() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("live/framework=meta/checkpoints");
    std::fs::create_dir_all(&checkpoints).unwrap();
    let base = json!(format!("file://{}", folder.path().display()));
    let run = |job: &str| {
        let request = with(named(job), "model_id", json!("succeed"));
        with(request, "checkpoint_base_uri", base.clone())
    };
    std::fs::write(checkpoints.join("step-000030.pt"), "not committed").unwrap();
    assert_eq!(service.submit(&run("one")).await.status, 201);
    service.wait_for("one", "succeeded").await;
    std::fs::write(checkpoints.join("step-000030.json"), "{}").unwrap();
    for request in [
        run("two"),
        with(run("two"), "overwrite", json!(false)),
        with(run("two"), "namespace", json!("team-a")),
    ] {
        let problem = service.submit(&request).await.problem(400);
        assert_eq!(problem["type"], "urn:trainer:problem:has-checkpoints");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("the newest of step 30: set resume_from_checkpoint"),
            "{detail}"
        );
    }
    let resumed = with(run("two"), "resume_from_checkpoint", json!(true));
    assert_eq!(service.submit(&resumed).await.status, 201);
    service.wait_for("two", "succeeded").await;
    let overwriting = with(run("three"), "overwrite", json!(true));
    assert_eq!(service.submit(&overwriting).await.status, 201);
    service.wait_for("three", "succeeded").await;
    let data = service.stop().await;
    for (job, expected) in [("two", false), ("three", true)] {
        let log = data
            .path()
            .join(format!("jobs/default/{job}/{job}-master-0/0.log"));
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(
            log.lines().any(|line| line == "TRAINER_OVERWRITE=1"),
            expected
        );
        assert!(
            log.lines()
                .any(|line| line == format!("TRAINER_JOB_NAME={job}"))
        );
        assert!(
            log.lines()
                .any(|line| line == "TRAINER_JOB_NAMESPACE=default")
        );
    }
}

#[tokio::test]
async fn resuming_and_overwriting_exclude_each_other() {
    let service = Service::start().await;
    let both = with(named("one"), "resume_from_checkpoint", json!(true));
    let problem = service
        .submit(&with(both, "overwrite", json!(true)))
        .await
        .problem(400);
    assert_eq!(problem["errors"][0]["pointer"], "/overwrite");
    service
        .submit(&with(named("one"), "overwrite", json!("yes")))
        .await
        .problem(400);
    for variable in [
        "TRAINER_OVERWRITE",
        "TRAINER_JOB_NAME",
        "TRAINER_FAILURE_FILE",
    ] {
        let request = with(named("one"), "env", json!({variable: "1"}));
        service.submit(&request).await.problem(400);
    }
}
