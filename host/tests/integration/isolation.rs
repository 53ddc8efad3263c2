//! Generated requests of a caller who knows the names in another namespace: whatever it asks, the
//! answer is the one for a name that does not exist, and nothing there changes.
//!
//! `ACCESS_REQUESTS=100000` makes more of them, `ACCESS_SEED=N` repeats a run.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use trainer_host::cluster::Cluster;
use trainer_host::request::RequestPolicy;

use crate::access::{submit, teams, waiting};
use crate::service::Service;

const DEFAULT_REQUESTS: usize = 3000;
/// Names of the same length: one is there, the other is not.
const THERE: &str = "hidden-one";
const ABSENT: &str = "hidden-two";
/// What only the hidden run has.
const WORDS: [&str; 3] = ["classified", "bob", "s3://team-b"];

/// A small generator of random numbers (splitmix64), so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A request, in which `NAME` stands for the run.
#[derive(Debug)]
struct Attack {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

fn attack(random: &mut Random, feed_id: &str) -> Attack {
    let job = random.one_of(&[
        "meta-NAME",
        "META-NAME",
        "meta-NAME%20",
        "..%2fmeta-NAME",
        "meta-own",
    ]);
    let (method, mut path) = match random.below(9) {
        0 => (Method::GET, "/train".to_string()),
        1 => (
            Method::POST,
            random.one_of(&["/train", "/train/preview"]).to_string(),
        ),
        2 => (Method::DELETE, format!("/train/{job}")),
        3 => (
            Method::POST,
            format!("/train/{job}/{}", random.one_of(&["suspend", "resume"])),
        ),
        4 => (Method::POST, "/frameworks/meta/rollback".to_string()),
        _ => {
            let part = random.one_of(&["", "/manifest", "/logs", "/metrics", "/events"]);
            (Method::GET, format!("/train/{job}{part}"))
        }
    };
    // The caller's own run stays.
    if job == "meta-own" && method != Method::GET {
        path = path.replace("meta-own", "meta-NAME");
    }
    let queries = query(random, &path);
    if !queries.is_empty() {
        path = format!("{path}?{}", queries.join("&"));
    }
    let mut headers = Vec::new();
    if random.below(4) == 0 {
        headers.push((
            "idempotency-key",
            random.one_of(&["key-of-bob", "key-NAME"]).to_string(),
        ));
    }
    if random.below(8) == 0 {
        headers.push((
            "last-event-id",
            random.one_of(&[feed_id, "0", "NAME"]).to_string(),
        ));
    }
    if random.below(8) == 0 {
        let accept = random.one_of(&["application/yaml", "text/csv", "text/event-stream"]);
        headers.push(("accept", accept.to_string()));
    }
    let submits = method == Method::POST && path.starts_with("/train") && !path.contains("meta-");
    Attack {
        body: submits.then(|| body(random)),
        method,
        path,
        headers,
    }
}

fn query(random: &mut Random, path: &str) -> Vec<String> {
    let mut queries = Vec::new();
    if path.ends_with("preview") {
        return match random.below(2) {
            0 => vec!["dry_run=server".to_string()],
            _ => queries,
        };
    }
    let namespaces = [
        "team-b",
        "team-a",
        "TEAM-B",
        "team-b%00",
        "*",
        "team-b,team-a",
        "default",
    ];
    if random.below(3) > 0 && path != "/frameworks/meta/rollback" {
        queries.push(format!("namespace={}", random.one_of(&namespaces)));
    }
    if path == "/train" {
        let position = json!({
            "c": 9_999_999_999_i64, "n": "meta-NAME", "s": "team-b", "q": random.one_of(&["", "x"]),
        });
        let filters = [
            "owner=bob".to_string(),
            "label_selector=trainer.deepfinery%2Fowner%3Dbob".to_string(),
            "label_selector=trainer.deepfinery%2Frun-id%3DNAME".to_string(),
            "label_selector=!nothing".to_string(),
            format!(
                "page_token={}",
                BASE64_URL_SAFE_NO_PAD.encode(position.to_string())
            ),
        ];
        queries.push(filters[random.below(filters.len())].clone());
    }
    if path.ends_with("/logs") {
        queries.push(
            random
                .one_of(&["replica=all", "tail=5", "previous=true"])
                .to_string(),
        );
    }
    if path == "/train/meta-NAME" {
        queries.push("view=full".to_string());
    }
    queries
}

/// A submission to the other namespace, or a preview that tries its names in the own one.
fn body(random: &mut Random) -> Value {
    let namespace = random.one_of(&["team-b", "team-c", "default"]);
    let mut body = waiting("NAME", namespace);
    match random.below(4) {
        0 => body["job_name"] = json!("meta-NAME"),
        1 => body["labels"] = json!({"trainer.deepfinery/owner": "bob"}),
        2 => body["annotations"] = json!({"trainer.deepfinery/owner": "bob"}),
        _ => body["resume_from_checkpoint"] = json!(true),
    }
    body
}

impl Attack {
    fn request(&self, name: &str) -> Request<Body> {
        let path = self.path.replace("NAME", name);
        let mut request = Request::builder().method(self.method.clone()).uri(path);
        request = request.header("x-trainer-token", "alice");
        request = request.header("x-request-id", "same");
        for (header, value) in &self.headers {
            request = request.header(*header, value.replace("NAME", name));
        }
        match &self.body {
            Some(body) => request
                .header("content-type", "application/json")
                .body(Body::from(body.to_string().replace("NAME", name))),
            None => request.body(Body::empty()),
        }
        .unwrap()
    }
}

/// Everything that a caller gets, without the name.
async fn answer(service: &Service, attack: &Attack, name: &str) -> String {
    let response = service
        .router
        .clone()
        .oneshot(attack.request(name))
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    let text = read(body.into_data_stream()).await;
    let headers = format!("{:?}", parts.headers);
    format!("{} {headers}\n{text}", parts.status).replace(name, "NAME")
}

/// A body, or what a stream without an end has sent so far.
async fn read(mut body: BodyDataStream) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(Ok(chunk))) =
        tokio::time::timeout(Duration::from_millis(50), body.next()).await
    {
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn another_namespace_stays_unknown_and_unchanged_whatever_is_asked() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let requests = number("ACCESS_REQUESTS").map(|count| usize::try_from(count).unwrap());
    let requests = requests.unwrap_or(DEFAULT_REQUESTS);
    let seed = number("ACCESS_SEED").unwrap_or_else(|| RandomState::new().hash_one(requests));
    println!("ACCESS_SEED={seed} ACCESS_REQUESTS={requests}");
    let mut random = Random(seed);
    let service = Service::with_access(&teams(), RequestPolicy::default()).await;
    let mut hidden = waiting(THERE, "team-b");
    hidden["labels"] = json!({"secret": "classified"});
    assert_eq!(submit(&service, "bob", &hidden).await.status, 201);
    assert_eq!(
        submit(&service, "alice", &waiting("own", "team-a"))
            .await
            .status,
        201
    );
    let before = service
        .cluster
        .get("team-b", &format!("meta-{THERE}"))
        .await
        .unwrap();
    let feed = service.cluster.feed().clone();
    let feed_id = feed
        .position(feed.after(&feed.end()).map_or(0, |_| 1))
        .to_string();
    for count in 0..requests / 2 {
        let attack = attack(&mut random, &feed_id);
        let there = answer(&service, &attack, THERE).await;
        let absent = answer(&service, &attack, ABSENT).await;
        assert_eq!(
            there, absent,
            "ACCESS_SEED={seed}, request {count}: {attack:?}"
        );
        let asked = format!("{attack:?}");
        for word in WORDS.iter().filter(|word| !asked.contains(**word)) {
            assert!(
                !there.contains(word),
                "ACCESS_SEED={seed}: {attack:?} gives {there}"
            );
        }
    }
    let events = Attack {
        method: Method::GET,
        path: "/events".to_string(),
        headers: vec![("last-event-id", feed_id.clone())],
        body: None,
    };
    let message = answer(&service, &events, THERE).await;
    assert!(
        !message.contains("NAME") && !message.contains("classified"),
        "{message}"
    );
    let after = service
        .cluster
        .get("team-b", &format!("meta-{THERE}"))
        .await
        .unwrap();
    assert_eq!(after, before);
    let mut names = service.cluster_jobs();
    names.sort();
    assert_eq!(names, [format!("meta-{THERE}"), "meta-own".to_string()]);
    service.stop().await;
}
