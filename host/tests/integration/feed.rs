//! `GET /events`: the changes of all jobs.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::live::{open, script};
use crate::namespaces::{add, allowing};
use crate::service::{Service, request};

/// An event: what it is, its id and its data.
#[derive(Debug)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

/// A stream of events that is read as it comes.
struct Events {
    stream: BodyDataStream,
    rest: String,
}

impl Events {
    async fn of(service: &Service, last: Option<&str>) -> Self {
        let mut request = Request::get("/events");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let (status, stream) = open(service, request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, 200);
        let rest = String::new();
        Self { stream, rest }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let (event, rest) = (event.to_string(), rest.to_string());
                self.rest = rest;
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines.find_map(|line| Some(line.strip_prefix(name)?.to_string()))
                };
                let Some(data) = field("data: ") else {
                    continue;
                };
                return Some(Event {
                    name: field("event: ").unwrap(),
                    id: field("id: "),
                    data: serde_json::from_str(&data).unwrap(),
                });
            }
            let more = tokio::time::timeout(Duration::from_secs(30), self.stream.next());
            let piece = more.await.unwrap()?.unwrap();
            self.rest += std::str::from_utf8(&piece).unwrap();
        }
    }

    /// The events up to the first one that is wanted.
    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.unwrap();
            let is_last = wanted(&event);
            events.push(event);
            if is_last {
                return events;
            }
        }
    }
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

#[tokio::test]
async fn a_client_gets_all_jobs_and_then_each_change() {
    let service = Service::start().await;
    service.create(&request("wait", "old")).await;
    service.wait_for("meta-old", "running").await;
    let mut events = Events::of(&service, None).await;
    let first = events.until(|event| event.name == "synced").await;
    assert_eq!(names(&first), ["reset", "status", "synced"]);
    assert_eq!(first[1].data["name"], "meta-old");
    assert_eq!(first[1].data["model_id"], "wait");
    service.create(&request("succeed", "new")).await;
    let ended = |event: &Event| event.data["status"] == "succeeded";
    let changes = events.until(ended).await;
    let of_new = changes
        .iter()
        .filter(|event| event.data["name"] == "meta-new");
    let statuses: Vec<_> = of_new.map(|event| event.data["status"].clone()).collect();
    assert!(statuses.contains(&json!("running")), "{statuses:?}");
    let delete = Request::delete("/train/meta-old")
        .body(Body::empty())
        .unwrap();
    service.send(delete).await;
    let gone = events.until(|event| event.name == "deleted").await;
    let expected = json!({"name": "meta-old", "namespace": "default"});
    assert_eq!(gone.last().unwrap().data, expected);
    service.stop().await;
}

#[tokio::test]
async fn a_client_that_connects_again_gets_only_what_it_has_missed() {
    let service = Service::start().await;
    let mut events = Events::of(&service, None).await;
    let first = events.until(|event| event.name == "synced").await;
    let id = first.last().unwrap().id.clone().unwrap();
    drop(events);
    service.create(&request("wait", "missed")).await;
    service.wait_for("meta-missed", "running").await;
    let mut again = Events::of(&service, Some(&id)).await;
    let missed = again.until(|event| event.data["status"] == "running").await;
    assert_eq!(missed[0].data["name"], "meta-missed");
    assert!(!names(&missed).contains(&"reset"), "{missed:?}");
    for unknown in ["other-0", "nonsense"] {
        let mut new = Events::of(&service, Some(unknown)).await;
        let all = new.until(|event| event.name == "synced").await;
        assert_eq!(names(&all), ["reset", "status", "synced"], "{unknown}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_job_that_reports_progress_is_an_event() {
    let service = Service::start().await;
    let line = r#"{"event": "progress", "step": 9, "total_steps": 60, "loss": 3.5, "tokens_per_second": 1.5, "seconds_left": 2.5}"#;
    service
        .submit(&script("far", &format!("echo '{line}'; exec sleep 600")))
        .await;
    let mut events = Events::of(&service, None).await;
    let seen = events.until(|event| event.name == "progress").await;
    let progress = &seen.last().unwrap().data["progress"];
    assert_eq!(
        (&progress["step"], &progress["loss"]),
        (&json!(9), &json!(3.5))
    );
    // Who comes later gets it with the list.
    let mut later = Events::of(&service, None).await;
    let all = later.until(|event| event.name == "synced").await;
    assert_eq!(all[1].data["progress"]["step"], 9);
    service.stop().await;
}

#[tokio::test]
async fn jobs_of_namespaces_that_are_not_served_are_left_out() {
    let mut service = Service::start().await;
    let all = service.router.clone();
    add(&service, "team-b", "hidden").await;
    service.router = allowing(&service, &["default", "team-a"]);
    let mut events = Events::of(&service, None).await;
    let first = events.until(|event| event.name == "synced").await;
    assert_eq!(names(&first), ["reset", "synced"]);
    let served = std::mem::replace(&mut service.router, all);
    add(&service, "team-b", "hidden-too").await;
    service.router = served;
    add(&service, "team-a", "seen").await;
    let next = events.next().await.unwrap();
    assert_eq!(next.data["name"], "meta-seen");
    service.stop().await;
}

#[tokio::test]
async fn the_stream_ends_when_the_service_is_about_to_end() {
    let service = Service::start().await;
    let mut events = Events::of(&service, None).await;
    events.until(|event| event.name == "synced").await;
    service.draining.send_replace(true);
    assert!(events.next().await.is_none());
}
