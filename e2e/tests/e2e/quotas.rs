//! The local cluster has quotas, and an error names the quota that a request exceeds.

use e2e::{Server, Site};
use serde_json::{Value, json};

fn job(run_id: &str, env: &Value) -> Value {
    json!({
        "framework": "meta", "model_id": "x", "run_id": run_id, "gpus_per_node": 0, "env": env,
        "checkpoint_base_uri": "s3://bucket/runs", "dataset_uri": "s3://bucket/data/",
    })
}

fn refusal(server: &Server, job: &Value) -> String {
    let (status, problem) = server.post("/train", job).unwrap();
    assert_eq!(status, 400, "{problem}");
    assert_eq!(problem["type"], "urn:trainer:problem:not-admitted");
    problem["detail"].as_str().unwrap().to_string()
}

#[test]
fn jobs_that_have_ended_count_until_they_are_deleted() {
    let site = Site::with_launcher("#!/bin/sh\nexit 0\n").unwrap();
    let site = site.set("TRAINER_LOCAL_MAX_JOBS", "2");
    let server = site.start().unwrap();
    for run_id in ["one", "two"] {
        let name = server.submit(&job(run_id, &json!({}))).unwrap();
        server.wait_for(&name, "succeeded").unwrap();
    }
    let third = job("three", &json!({}));
    assert!(refusal(&server, &third).contains("TRAINER_LOCAL_MAX_JOBS"));
    // A restart counts them again.
    server.kill().unwrap();
    let server = site.start().unwrap();
    let (status, _) = server
        .post("/train/preview?dry_run=server", &third)
        .unwrap();
    assert_eq!(status, 400);
    assert!(refusal(&server, &third).contains("Delete jobs that have ended"));
    assert_eq!(server.delete("/train/meta-one").unwrap().0, 204);
    server.submit(&third).unwrap();
}

#[test]
fn manifests_have_a_size_together() {
    let site = Site::with_launcher("#!/bin/sh\nexit 0\n").unwrap();
    let site = site.set("TRAINER_LOCAL_MAX_MANIFEST_MB", "1");
    let server = site.start().unwrap();
    let large = |run_id: &str| job(run_id, &json!({"TEXT": "$".repeat(60_000)}));
    let taken = (0..100).take_while(|n| {
        let (status, _) = server
            .post("/train", &large(format!("run-{n}").as_str()))
            .unwrap();
        status == 201
    });
    assert!((1..20).contains(&taken.count()));
    assert!(refusal(&server, &large("more")).contains("TRAINER_LOCAL_MAX_MANIFEST_MB"));
    server.submit(&job("small", &json!({}))).unwrap();
}

#[test]
fn a_log_that_grows_for_ever_keeps_its_end() {
    let site = Site::with_launcher("#!/bin/sh\nseq 1 2000000\nsleep 1\necho end\n").unwrap();
    let site = site.set("TRAINER_LOCAL_MAX_LOG_MB", "1");
    let server = site.start().unwrap();
    let name = server.submit(&job("long", &json!({}))).unwrap();
    server.wait_for(&name, "succeeded").unwrap();
    let (_, log) = server.get(&format!("/train/{name}/logs")).unwrap();
    let log = log.as_str().unwrap();
    assert!(
        log.len() < 1 << 20 && log.ends_with("\n2000000\nend\n"),
        "{}",
        log.len()
    );
    // It begins with a whole line.
    let lines: Vec<u32> = log.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(lines[0] as usize + lines.len() - 1, 2_000_000);
}

#[test]
fn logs_have_a_size_together() {
    let site = Site::with_launcher("#!/bin/sh\nseq 1 200000\n").unwrap();
    let site = site.set("TRAINER_LOCAL_MAX_LOG_TOTAL_MB", "4");
    let server = site.start().unwrap();
    // Each has a log of 1.3 MB. The total is measured now and again.
    let mut names = Vec::new();
    let detail = loop {
        let job = job(&format!("run-{}", names.len()), &json!({}));
        let (status, answer) = server.post("/train", &job).unwrap();
        if status != 201 {
            break answer["detail"].to_string();
        }
        names.push(answer["name"].as_str().unwrap().to_string());
        assert!(names.len() < 100);
        std::thread::sleep(std::time::Duration::from_millis(500));
    };
    let limit = "TRAINER_LOCAL_MAX_LOG_TOTAL_MB allows 4194304";
    assert!(detail.contains(limit), "{detail}");
    for name in &names {
        server.wait_for(name, "succeeded").unwrap();
        server.delete(&format!("/train/{name}")).unwrap();
    }
    let taken = (0..60).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(500));
        server.post("/train", &job("later", &json!({}))).unwrap().0 == 201
    });
    assert!(taken);
}
