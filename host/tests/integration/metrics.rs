//! The curves of a run, as `GET /train/{job_name}/metrics` returns them.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt;

use crate::live::{get, open, script};
use crate::service::Service;

/// Shell code that reports steps 1 to 3, fails once, and repeats from step 3 on in the next attempt.
const RESUMED: &str = r#"
point() { echo "{\"event\": \"progress\", \"step\": $1, \"total_steps\": 5, \"loss\": $2, \
\"tokens_per_second\": 10.0, \"seconds_left\": 1.0, \"learning_rate\": 0.001}"; }
[ -e resumed ] || { touch resumed; point 1 5.0; point 2 4.0; point 3 9.0; exit 1; }
echo "resumed from step 2"
point 3 3.0; point 4 2.0
echo "{\"event\": \"evaluation\", \"step\": 4, \"eval_loss\": 2.5}"
point 5 1.0
rm resumed
"#;

async fn ended(run_id: &str) -> Service {
    let service = Service::start().await;
    assert_eq!(service.submit(&script(run_id, RESUMED)).await.status, 201);
    service
        .wait_for(&format!("meta-{run_id}"), "succeeded")
        .await;
    service
}

#[tokio::test]
async fn the_curve_spans_every_attempt_and_the_later_one_counts() {
    let service = ended("curve").await;
    let metrics = service.get("/train/meta-curve/metrics").await.json();
    let points = metrics["points"].as_array().unwrap();
    let losses: Vec<f64> = points.iter().map(|p| p["loss"].as_f64().unwrap()).collect();
    assert_eq!(losses, [5.0, 4.0, 3.0, 2.0, 1.0]);
    assert_eq!(points[0]["step"], 1);
    assert_eq!(points[0]["learning_rate"], 0.001);
    let time = points[0]["time"].as_str().unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    assert_eq!(metrics["evaluations"][0]["eval_loss"], 2.5);
}

#[tokio::test]
async fn the_curve_is_downsampled_to_the_points_asked_for() {
    let service = ended("few").await;
    let metrics = service.get("/train/meta-few/metrics?points=4").await.json();
    let points = metrics["points"].as_array().unwrap();
    assert!((2..=4).contains(&points.len()), "{points:?}");
    assert_eq!(points.first().unwrap()["step"], 1);
    assert_eq!(points.last().unwrap()["step"], 5);
    for wrong in ["points=3", "points=10001", "points=many", "points=-1"] {
        let path = format!("/train/meta-few/metrics?{wrong}");
        assert_eq!(service.get(&path).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_spreadsheet_gets_the_curve_as_csv() {
    let service = ended("sheet").await;
    let request = Request::get("/train/meta-sheet/metrics").header("accept", "text/csv");
    let answer = service.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
    let rows: Vec<&str> = answer.text.lines().collect();
    assert_eq!(
        rows[0],
        "step,time,loss,tokens_per_second,learning_rate,grad_norm,eval_loss"
    );
    assert_eq!(rows.len(), 7);
    assert!(
        rows[1].starts_with("1,") && rows[1].ends_with(",5,10,0.001,,"),
        "{}",
        rows[1]
    );
    assert!(
        rows[5].starts_with("4,") && rows[5].ends_with(",,,,,2.5"),
        "{}",
        rows[5]
    );
}

#[tokio::test]
async fn a_follower_gets_every_point_and_then_the_end() {
    let service = Service::start().await;
    let said = format!("{RESUMED}\nsleep 0.5\npoint 6 0.5");
    service.create(&script("live", &said)).await;
    service.wait_for("meta-live", "running").await;
    let (status, events) = open(&service, get("/train/meta-live/metrics?follow=true")).await;
    assert_eq!(status, 200);
    let pieces: Vec<_> = events.map(|piece| piece.unwrap()).collect().await;
    let text = String::from_utf8(pieces.concat()).unwrap();
    for expected in ["\"step\":1", "\"step\":6", "\"eval_loss\":2.5"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(text.trim_end().ends_with("event: end\ndata: {}"), "{text}");
}

#[tokio::test]
async fn a_job_without_metrics_has_empty_curves() {
    let service = Service::start().await;
    service
        .submit(&script("mute", "echo nothing to report"))
        .await;
    service.wait_for("meta-mute", "succeeded").await;
    let metrics = service.get("/train/meta-mute/metrics").await.json();
    assert_eq!(metrics["points"].as_array().map(Vec::len), Some(0));
    service.get("/train/meta-none/metrics").await.problem(404);
}

#[tokio::test]
async fn a_follower_gets_points_while_lines_keep_coming() {
    let service = Service::start().await;
    let busy = r#"n=0; while :; do n=$((n + 1)); echo "{\"event\": \"progress\", \"step\": $n, \"total_steps\": 100000, \"loss\": 1.5, \"tokens_per_second\": 1, \"seconds_left\": 1}"; sleep 0.02; done"#;
    service.create(&script("busy", busy)).await;
    service.wait_for("meta-busy", "running").await;
    let (status, mut events) = open(&service, get("/train/meta-busy/metrics?follow=true")).await;
    assert_eq!(status, 200);
    let first = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
    let first = String::from_utf8(first.unwrap().unwrap().unwrap().to_vec()).unwrap();
    assert!(first.starts_with("event: metrics"), "{first}");
    service.stop().await;
}

#[tokio::test]
async fn a_list_has_the_progress_of_running_jobs_where_it_is_asked_for() {
    let service = Service::start().await;
    let said = "echo '{\"event\": \"progress\", \"step\": 3, \"total_steps\": 5, \"loss\": 2.5, \
                \"tokens_per_second\": 10.0, \"seconds_left\": 1.0}'; sleep 60";
    service.create(&script("listed", said)).await;
    service.wait_for("meta-listed", "running").await;
    let listed = async |query: &str| {
        let page = service.get(&format!("/train{query}")).await.json();
        page["jobs"][0]["progress"].clone()
    };
    while listed("?progress=true").await.is_null() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(listed("?progress=true").await["step"], 3);
    assert!(listed("").await.is_null());
    assert!(listed("?progress=false").await.is_null());
}
