//! Living with a run: finding it, hearing what it says, and sending a request twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use trainer_host::cluster::Cluster;
use trainer_host::request::{AllowedNamespaces, RequestPolicy};

use crate::service::{Answer, Service, built_plugins, request};

/// An answer whose body is read as it comes.
pub(crate) async fn open(service: &Service, request: Request<Body>) -> (u16, BodyDataStream) {
    let response = service.router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().into_data_stream())
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// A request whose replica runs a shell script.
pub(crate) fn script(run_id: &str, script: &str) -> Value {
    let mut request = request("script", run_id);
    request["env"] = json!({"SCRIPT": script});
    request
}

async fn submit_with_key(service: &Service, key: &str, body: &Value) -> Answer {
    let request = Request::post("/train")
        .header("content-type", "application/json")
        .header("idempotency-key", key);
    let request = request.body(Body::from(body.to_string()));
    service.send(request.unwrap()).await
}

/// The names of all jobs of a list, page by page.
async fn walk(service: &Service, query: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/train?{query}&page_token={token}");
        let page = service.get(&path).await.json();
        let jobs = page["jobs"].as_array().unwrap();
        names.extend(
            jobs.iter()
                .map(|job| job["name"].as_str().unwrap().to_string()),
        );
        match page["next_page_token"].as_str() {
            Some(next) => token = next.to_string(),
            None => return names,
        }
    }
}

#[tokio::test]
async fn jobs_are_listed_by_page_and_by_filter() {
    let service = Service::start().await;
    for number in 0..5 {
        let mut body = request("wait", &format!("run-{number}"));
        body["gpus_per_node"] = json!(64);
        body["labels"] = json!({"parity": if number % 2 == 0 { "even" } else { "odd" }});
        if number == 4 {
            body["namespace"] = json!("team-a");
        }
        assert_eq!(service.submit(&body).await.status, 201);
    }
    assert_eq!(walk(&service, "page_size=2").await.len(), 5);
    let even = walk(&service, "page_size=1&label_selector=parity%3Deven").await;
    assert_eq!(even.len(), 3);
    assert_eq!(walk(&service, "namespace=team-a").await, ["meta-run-4"]);
    assert_eq!(walk(&service, "status=running").await.len(), 0);
    assert_eq!(
        walk(&service, "status=submitted&framework=meta")
            .await
            .len(),
        5
    );
    assert_eq!(walk(&service, "framework=hf").await.len(), 0);
    let job = &service.get("/train?namespace=team-a").await.json()["jobs"][0];
    for key in [
        "name",
        "status",
        "detail",
        "framework",
        "run_id",
        "created_at",
    ] {
        assert!(job[key].is_string(), "{key}: {job}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_is_refused_with_what_would_be_right() {
    let service = Service::start().await;
    for (query, said) in [
        (
            "page_token=nonsense",
            "page_token: was not issued by this service; omit it to start from the first page",
        ),
        (
            "label_selector=a%20b",
            "label_selector: not a valid label selector at \"a b\"",
        ),
        (
            "framwork=meta",
            "unknown parameter \"framwork\", did you mean \"framework\"?",
        ),
        (
            "page_size=-1",
            "page_size: must be an integer from 0 to 4294967295, not \"-1\"",
        ),
        (
            "status=lost",
            "status: takes submitted or running or succeeded or failed, not \"lost\"",
        ),
    ] {
        let problem = service.get(&format!("/train?{query}")).await.problem(400);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{query}: {detail}");
    }
}

#[tokio::test]
async fn a_list_has_only_namespaces_that_are_allowed() {
    let policy = RequestPolicy {
        namespaces: AllowedNamespaces::Only(["default".to_string()].into()),
        ..RequestPolicy::default()
    };
    let service = Service::with_policy(built_plugins().to_path_buf(), None, policy).await;
    service.get("/train?namespace=team-b").await.problem(403);
    assert!(walk(&service, "page_size=1").await.is_empty());
}

#[tokio::test]
async fn logs_are_those_of_the_first_replica_unless_others_are_named() {
    let service = Service::start().await;
    // The master ends the job, so it goes last.
    let mut body = script(
        "said",
        "[ $RANK = 0 ] && sleep 0.5; echo one $RANK; echo two $RANK",
    );
    body["num_nodes"] = json!(2);
    service.create(&body).await;
    service.wait_for("meta-said", "succeeded").await;
    let said = async |query: &str| service.get(&format!("/train/meta-said/logs?{query}")).await;
    let answer = said("").await;
    assert_eq!(answer.text, "one 0\ntwo 0\n");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(said("replica=worker-0").await.text, "one 1\ntwo 1\n");
    assert_eq!(said("tail=1").await.text, "two 0\n");
    assert_eq!(said("tail=0").await.text, "");
    assert_eq!(said("since=1h").await.text, "one 0\ntwo 0\n");
    assert_eq!(said("since=2100-01-01T00:00:00Z").await.text, "");
    let all = said("replica=all").await.text;
    let of = |replica: &str| all.lines().filter(|line| line.starts_with(replica)).count();
    assert_eq!((of("[master-0] "), of("[worker-0] ")), (2, 2), "{all}");
    let timed = said("timestamps=true").await.text;
    for line in timed.lines() {
        let (time, text) = line.split_once(' ').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(text.ends_with(" 0"), "{line}");
    }
    let problem = said("replica=worker-7").await.problem(400);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("it has master-0 to worker-0"), "{detail}");
    said("since=yesterday").await.problem(400);
    let problem = said("previous=true").await.problem(404);
    assert_eq!(problem["type"], "urn:trainer:problem:no-log");
    service.stop().await;
}

#[tokio::test]
async fn the_log_before_a_restart_is_previous() {
    let service = Service::start().await;
    service
        .submit(&script(
            "again",
            "[ -e seen ] || { touch seen; echo first; exit 1; }; echo second; rm seen",
        ))
        .await;
    service.wait_for("meta-again", "succeeded").await;
    let logs = service.get("/train/meta-again/logs").await;
    assert_eq!(logs.text, "second\n");
    let logs = service.get("/train/meta-again/logs?previous=true").await;
    assert_eq!(logs.text, "first\n");
}

#[tokio::test]
async fn following_waits_for_the_replica_and_goes_through_restarts_to_the_end_of_the_job() {
    let service = Service::start().await;
    let mut wide = request("wait", "wide");
    wide["gpus_per_node"] = json!(4);
    service.create(&wide).await;
    service.wait_for("meta-wide", "running").await;
    let body = script(
        "late",
        "[ -e once ] || { touch once; echo first; exit 1; }; rm once; echo second; sleep 0.3; echo -n third",
    );
    service.create(&body).await;
    service.get("/train/meta-late/logs").await.problem(404);
    let path = "/train/meta-late/logs?follow=true";
    let (status, log) = open(&service, get(path)).await;
    assert_eq!(status, 200);
    let freed = service.send(
        Request::delete("/train/meta-wide")
            .body(Body::empty())
            .unwrap(),
    );
    freed.await;
    let pieces: Vec<_> = log.map(|piece| piece.unwrap()).collect().await;
    assert_eq!(pieces.concat(), b"first\nsecond\nthird\n");
    let status = service.get("/train/meta-late").await.json();
    assert_eq!(status["status"], "succeeded");
}

/// The events of a stream: what each one is, its id and its data.
async fn events(
    service: &Service,
    path: &str,
    last: Option<&str>,
) -> Vec<BTreeMap<String, String>> {
    let mut request = Request::get(path);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let (status, stream) = open(service, request.body(Body::empty()).unwrap()).await;
    assert_eq!(status, 200);
    let pieces: Vec<_> = stream.map(|piece| piece.unwrap()).collect().await;
    let text = String::from_utf8(pieces.concat()).unwrap();
    let events = text.split("\n\n").filter(|event| event.contains("data:"));
    let event = |event: &str| {
        let fields = event.lines().filter_map(|line| line.split_once(": "));
        fields
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    };
    events.map(event).collect()
}

fn statuses(events: &[BTreeMap<String, String>]) -> Vec<String> {
    let status = |event: &BTreeMap<String, String>| {
        let data: Value = serde_json::from_str(&event["data"]).unwrap();
        data["status"]
            .as_str()
            .unwrap_or(&event["event"])
            .to_string()
    };
    events.iter().map(status).collect()
}

#[tokio::test]
async fn each_change_of_status_is_an_event_until_the_job_ends() {
    let service = Service::start().await;
    service.create(&script("told", "sleep 0.3")).await;
    let message = events(&service, "/train/meta-told/events", None).await;
    let mut seen = statuses(&message);
    seen.dedup();
    assert_eq!(seen.last().unwrap(), "succeeded", "{seen:?}");
    assert!(seen.contains(&"running".to_string()), "{seen:?}");
    // Who knows the end need not ask again.
    let end = &message.last().unwrap()["id"];
    let known = Request::get("/train/meta-told/events").header("last-event-id", end);
    let known = service.send(known.body(Body::empty()).unwrap()).await;
    assert_eq!(known.status, 204);
    // A client that has seen fewer events gets the rest.
    let rest = events(&service, "/train/meta-told/events", Some(&message[0]["id"])).await;
    assert_eq!(statuses(&rest), ["succeeded"]);
    service.get("/train/meta-missing/events").await.problem(404);
}

#[tokio::test]
async fn a_job_that_is_deleted_ends_its_events() {
    let service = Service::start().await;
    service.create(&request("wait", "brief")).await;
    service.wait_for("meta-brief", "running").await;
    let delete = Request::delete("/train/meta-brief")
        .body(Body::empty())
        .unwrap();
    let (message, _) = tokio::join!(events(&service, "/train/meta-brief/events", None), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        service.send(delete).await
    });
    assert_eq!(statuses(&message), ["running", "deleted"]);
    service.stop().await;
}

#[tokio::test]
async fn a_submission_that_is_sent_again_with_its_key_gets_the_same_answer() {
    let service = Service::start().await;
    let body = request("wait", "once");
    let first = submit_with_key(&service, "key-1", &body).await;
    assert_eq!(first.status, 201, "{}", first.text);
    service.wait_for("meta-once", "running").await;
    let again = submit_with_key(&service, "key-1", &body).await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!(again.header("location"), "/train/meta-once");
    // Another body under the same key, whether of the same name or not.
    for (field, value) in [("run_id", json!("other")), ("num_nodes", json!(2))] {
        let mut other = body.clone();
        other[field] = value;
        let problem = submit_with_key(&service, "key-1", &other)
            .await
            .problem(422);
        assert_eq!(
            problem["type"],
            "urn:trainer:problem:idempotency-key-reused"
        );
    }
    // Without the key, or with another, the name is taken.
    let problem = service.submit(&body).await.problem(400);
    let detail = "PyTorchJob meta-once already exists for run once";
    assert_eq!(problem["detail"], detail);
    submit_with_key(&service, "key-2", &body).await.problem(400);
    submit_with_key(&service, "two words", &body)
        .await
        .problem(400);
    let jobs = service.cluster.list().unwrap();
    assert_eq!(jobs.len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_submissions_with_one_key_one_creates_and_all_get_its_answer() {
    let service = std::sync::Arc::new(Service::start().await);
    let clients = (0..200).map(|_| {
        let service = service.clone();
        tokio::spawn(async move {
            let body = request("wait", "raced");
            submit_with_key(&service, "one-key", &body).await
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut answers = Vec::new();
    for client in clients {
        let answer = client.await.unwrap();
        answers.push((answer.status.as_u16(), answer.text));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0].0, 201);
    assert_eq!(service.cluster_jobs(), ["meta-raced"]);
    service.cluster.shut_down().await;
}

/// A job that waits for ever.
async fn add(service: &Service, run_id: &str) {
    let mut body = request("wait", run_id);
    body["gpus_per_node"] = json!(64);
    assert_eq!(service.submit(&body).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_thousand_jobs_a_page_is_quick_and_a_walk_is_complete_while_jobs_come_and_go() {
    const JOBS: usize = 10_000;
    const CHANGES: usize = 1000;
    let service = Service::in_memory().await;
    let all: Vec<usize> = (0..JOBS).collect();
    for some in all.chunks(64) {
        let added = some
            .iter()
            .map(|number| async { add(&service, &number.to_string()).await });
        futures_util::future::join_all(added).await;
    }
    let mut times = Vec::new();
    for _ in 0..101 {
        let begun = Instant::now();
        assert_eq!(service.get("/train?page_size=100").await.status, 200);
        times.push(begun.elapsed());
    }
    times.sort();
    let median = times[50];
    let change = async {
        for number in 0..CHANGES {
            add(&service, &format!("new-{number}")).await;
            let gone = format!("/train/meta-{}", number * 10 + 5);
            let delete = Request::delete(gone).body(Body::empty()).unwrap();
            assert_eq!(service.send(delete).await.status, 204);
        }
    };
    let (seen, ()) = tokio::join!(walk(&service, "page_size=100"), change);
    println!("{JOBS} jobs: a page of 100 in {median:?} at the median");
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "a job was repeated");
    let stayed = (0..JOBS).filter(|number| number % 10 != 5);
    for number in stayed {
        assert!(
            unique.contains(&format!("meta-{number}")),
            "{number} was missed"
        );
    }
    assert!(median <= Duration::from_millis(10), "{median:?}");
    service.cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_status_reaches_a_thousand_listeners_within_half_a_second() {
    const LISTENERS: usize = 1000;
    let service = Service::start().await;
    add(&service, "heard").await;
    let listening = Arc::new(tokio::sync::Barrier::new(LISTENERS + 1));
    let mut listeners = tokio::task::JoinSet::new();
    for _ in 0..LISTENERS {
        let (_, mut events) = open(&service, get("/train/meta-heard/events")).await;
        let listening = listening.clone();
        listeners.spawn(async move {
            events.next().await.unwrap().unwrap();
            listening.wait().await;
            let event = events.next().await.unwrap().unwrap();
            (Instant::now(), String::from_utf8_lossy(&event).into_owned())
        });
    }
    listening.wait().await;
    let begun = Instant::now();
    let suspend = Request::post("/train/meta-heard/suspend").body(Body::empty());
    assert_eq!(service.send(suspend.unwrap()).await.status, 200);
    let heard = listeners.join_all().await;
    let last = heard
        .iter()
        .map(|(time, _)| time.duration_since(begun))
        .max()
        .unwrap();
    println!("{LISTENERS} listeners: the last heard after {last:?}");
    assert!(
        heard
            .iter()
            .all(|(_, event)| event.contains("\"suspended\":true"))
    );
    assert!(last <= Duration::from_millis(500), "{last:?}");
}

#[tokio::test]
async fn a_service_that_is_about_to_end_cuts_logs_off_and_ends_events() {
    let service = Service::start().await;
    service.create(&request("wait", "drained")).await;
    service.wait_for("meta-drained", "running").await;
    let (_, log) = open(&service, get("/train/meta-drained/logs?follow=true")).await;
    let (_, events) = open(&service, get("/train/meta-drained/events")).await;
    service.draining.send_replace(true);
    let log: Vec<_> = log.collect().await;
    assert!(log.last().unwrap().is_err(), "the log seems to be whole");
    let events: Vec<_> = events.collect().await;
    assert!(events.iter().all(Result::is_ok));
    service.stop().await;
}
