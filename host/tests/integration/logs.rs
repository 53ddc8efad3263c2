//! Logs of jobs that write what no log should be: no lines, one line, or nothing but a hole.

use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::service::{Service, request};

/// Where a line is cut, as docs/api.md says.
const LONGEST_LINE: usize = 256 * 1024;

/// A request whose replica runs a shell script.
fn script(run_id: &str, script: &str) -> Value {
    let mut request = request("script", run_id);
    request["env"] = json!({"SCRIPT": script});
    request
}

async fn finished(service: &Service, run_id: &str, code: &str) {
    let answer = service.submit(&script(run_id, code)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    service
        .wait_for(&format!("meta-{run_id}"), "succeeded")
        .await;
}

async fn open(service: &Service, path: &str) -> (u16, BodyDataStream) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = service.router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().into_data_stream())
}

#[tokio::test]
async fn the_end_of_a_sparse_log_costs_what_it_gives() {
    let service = Service::start().await;
    finished(
        &service,
        "sparse",
        "echo first; truncate -s 4T /dev/stdout; echo last",
    )
    .await;
    for (query, lines) in [("tail=1", 1), ("tail=2", 2), ("tail=1000000", 2)] {
        let begun = Instant::now();
        let log = service
            .get(&format!("/train/meta-sparse/logs?{query}"))
            .await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{query}");
        assert_eq!(log.text.lines().count(), lines, "{query}");
        assert!(log.text.len() <= lines * (LONGEST_LINE + 1), "{query}");
    }
    let begun = Instant::now();
    let full = service.get("/train/meta-sparse?view=full").await;
    assert_eq!(full.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_stop_what_they_asked_for() {
    let service = Service::start().await;
    // Too long for one search, and without a hole.
    finished(&service, "dense", "head -c 300000000 /dev/zero").await;
    let path = "/train/meta-dense/logs?tail=1";
    for _ in 0..200 {
        let asked = tokio::time::timeout(Duration::from_millis(1), service.get(path));
        assert!(asked.await.is_err());
    }
    let begun = Instant::now();
    assert_eq!(service.get("/train/meta-dense").await.status, 200);
    let log = service.get(path).await;
    assert_eq!(log.text.len(), LONGEST_LINE + 1);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn the_last_lines_are_as_many_as_asked_for_however_long_they_are() {
    let service = Service::start().await;
    let long = "head -c 200000000 /dev/zero | tr '\\0' x";
    for (run_id, code, expected) in [
        (
            "amid",
            format!("echo a; echo b; {long}; echo; echo c"),
            ["b", "x", "c"],
        ),
        (
            "open",
            format!("echo a; echo b; echo c; {long}"),
            ["b", "c", "x"],
        ),
        (
            "ahead",
            format!("{long}; echo; echo b; echo c"),
            ["x", "b", "c"],
        ),
    ] {
        finished(&service, run_id, &code).await;
        let path = format!("/train/meta-{run_id}/logs?tail=3");
        let plain = service.get(&path).await.text;
        let timed = service.get(&format!("{path}&timestamps=true")).await.text;
        let untimed = timed.lines().map(|line| line.split_once(' ').unwrap().1);
        assert_eq!(
            untimed.collect::<Vec<_>>(),
            plain.lines().collect::<Vec<_>>()
        );
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines.len(), 3, "{run_id}");
        for (line, expected) in lines.iter().zip(expected) {
            let length = if expected == "x" { LONGEST_LINE } else { 1 };
            assert!(line.starts_with(expected), "{run_id}");
            assert_eq!(line.len(), length, "{run_id}");
        }
    }
}

#[tokio::test]
async fn a_long_line_is_broken_and_lost_nowhere_when_all_is_read() {
    let service = Service::start().await;
    let code = "head -c 524288 /dev/zero | tr '\\0' x; echo; head -c 300000 /dev/zero | tr '\\0' y";
    finished(&service, "whole", code).await;
    let log = service.get("/train/meta-whole/logs").await.text;
    let lengths: Vec<usize> = log.lines().map(str::len).collect();
    assert_eq!(
        lengths,
        [
            LONGEST_LINE,
            LONGEST_LINE,
            LONGEST_LINE,
            300_000 - LONGEST_LINE
        ]
    );
}

const PROGRESS: &str =
    "echo begin; for n in 1 2 3 4 5 6 7 8; do printf \"step $n\\r\"; sleep 0.3; done; echo done";

#[tokio::test]
async fn a_progress_bar_is_seen_while_it_is_written() {
    let service = Service::start().await;
    for query in ["", "&timestamps=true"] {
        let run_id = if query.is_empty() { "bar" } else { "timed-bar" };
        service.create(&script(run_id, PROGRESS)).await;
        let name = format!("meta-{run_id}");
        service.wait_for(&name, "running").await;
        let path = format!("/train/{name}/logs?follow=true{query}");
        let (_, mut log) = open(&service, &path).await;
        let begun = Instant::now();
        let mut text = String::new();
        while !text.contains("step 1\r") {
            let piece = log.next().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        assert!(
            begun.elapsed() < Duration::from_millis(1500),
            "{:?}",
            begun.elapsed()
        );
        let rest: Vec<_> = log.map(|piece| piece.unwrap()).collect().await;
        text.push_str(std::str::from_utf8(&rest.concat()).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        let bar = "step 1\rstep 2\rstep 3\rstep 4\rstep 5\rstep 6\rstep 7\rstep 8\rdone";
        assert_eq!(lines.len(), 2, "{text:?}");
        assert!(
            lines[0].ends_with("begin") && lines[1].ends_with(bar),
            "{text:?}"
        );
        let times = if query.is_empty() { 0 } else { 2 };
        assert_eq!(text.matches("Z ").count(), times, "{text:?}");
    }
}

#[tokio::test]
async fn progress_bars_of_several_replicas_do_not_mix() {
    let service = Service::start().await;
    let mut body = script("bars", PROGRESS);
    body["num_nodes"] = json!(2);
    service.create(&body).await;
    service.wait_for("meta-bars", "running").await;
    let path = "/train/meta-bars/logs?follow=true&replica=all";
    let (_, log) = open(&service, path).await;
    let pieces: Vec<_> = log.map(|piece| piece.unwrap()).collect().await;
    let text = String::from_utf8(pieces.concat()).unwrap();
    assert!(text.lines().count() > 5, "{text:?}");
    for line in text.lines() {
        let is_named = line.starts_with("[master-0] ") || line.starts_with("[worker-0] ");
        assert!(is_named && line.matches('[').count() == 1, "{line:?}");
    }
}

#[tokio::test]
async fn one_caller_cannot_open_every_log() {
    let service = Service::start().await;
    service.create(&request("wait", "followed")).await;
    service.wait_for("meta-followed", "running").await;
    let path = "/train/meta-followed/logs?follow=true";
    let mut logs = Vec::new();
    let refused = loop {
        let (status, log) = open(&service, path).await;
        match status {
            200 => logs.push(log),
            status => break status,
        }
    };
    assert_eq!((refused, logs.len()), (429, 256));
    let answer = service.get(path).await;
    assert_eq!(answer.header("retry-after"), "5");
    let detail = answer.problem(429)["detail"].to_string();
    assert!(detail.contains("has 256 open logs"), "{detail}");
    logs.truncate(255);
    let (status, log) = open(&service, path).await;
    assert_eq!(status, 200);
    drop((log, logs));
    service.stop().await;
}

#[tokio::test]
async fn what_is_no_file_is_no_log() {
    let service = Service::start().await;
    finished(&service, "fifo", "echo said").await;
    let log = service
        .data
        .path()
        .join("jobs/default/meta-fifo/meta-fifo-master-0/0.log");
    for make in ["mkfifo", "ln -s /etc/passwd"] {
        std::fs::remove_file(&log).unwrap();
        let command = format!("{make} {}", log.display());
        let made = std::process::Command::new("sh")
            .args(["-c", &command])
            .status();
        assert!(made.unwrap().success());
        let asked = service.get("/train/meta-fifo/logs");
        let answer = tokio::time::timeout(Duration::from_secs(2), asked).await;
        assert_eq!(answer.unwrap().status, 500, "{make}");
    }
}
