//! Streams of logs and events that are open while their caller loses access.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::Method;
use futures_util::{FutureExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use trainer_host::access::AccessControl;
use trainer_host::access_rules::AccessFile;
use trainer_host::document;
use trainer_host::request::RequestPolicy;

use crate::access::{ask, submit, teams, token, waiting};
use crate::live;
use crate::service::Service;

/// Everything that lasts until its reader goes away.
const STREAMS: [&str; 4] = [
    "/events",
    "/train/meta-followed/events",
    "/train/meta-followed/logs?follow=true",
    "/train/meta-followed/metrics?follow=true",
];

async fn open(service: &Service, caller: &str, path: &str) -> BodyDataStream {
    let (status, stream) = live::open(service, ask(caller, Method::GET, path, None)).await;
    assert_eq!(status, 200, "{caller} {path}");
    stream
}

/// Reads a stream to its end.
async fn end(mut stream: BodyDataStream) {
    let read = async { while stream.next().await.is_some() {} };
    let read = tokio::time::timeout(Duration::from_secs(30), read);
    read.await.unwrap();
}

/// Whether a stream is still open, after what it has sent so far.
fn is_open(stream: &mut BodyDataStream) -> bool {
    loop {
        match stream.next().now_or_never() {
            None => return true,
            Some(None) => return false,
            Some(Some(_)) => {}
        }
    }
}

fn replace(control: &AccessControl, access: &str) {
    let file: AccessFile = document::from_toml(access).unwrap();
    control.replace(file.check().unwrap());
}

async fn followed(access: &str) -> Service {
    let service = Service::with_access(access, RequestPolicy::default()).await;
    let answer = submit(&service, "olga", &waiting("followed", "team-a")).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    service
}

#[tokio::test]
async fn an_open_stream_ends_when_its_token_is_revoked_or_means_less() {
    let service = followed(&teams()).await;
    let control = service.access.clone().unwrap();
    let without_vera = teams().replace(&token("vera", "viewer", &["team-a"]), "");
    let moved = token("vera", "viewer", &["team-b"]);
    let elsewhere = teams().replace(&token("vera", "viewer", &["team-a"]), &moved);
    for changed in [&without_vera, &elsewhere] {
        replace(&control, &teams());
        for path in STREAMS {
            let lost = open(&service, "vera", path).await;
            let mut kept = open(&service, "olga", path).await;
            replace(&control, changed);
            end(lost).await;
            assert!(is_open(&mut kept), "{path}");
            replace(&control, &teams());
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn an_open_stream_ends_after_its_token_has_expired() {
    let expires = Timestamp::now() + SignedDuration::from_secs(5);
    let expires = format!(
        "{}expires = {expires}\n",
        token("vera", "viewer", &["team-a"])
    );
    let access = teams().replace(&token("vera", "viewer", &["team-a"]), &expires);
    let service = followed(&access).await;
    let control = service.access.clone().unwrap();
    let mut stream = open(&service, "vera", "/events").await;
    assert!(is_open(&mut stream));
    // Each version of the file makes the service look again, as does every half minute.
    let looks = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            replace(&control, &access);
        }
    };
    tokio::select! {
        () = looks => {}
        () = end(stream) => {}
    }
    let later = service.send(ask("vera", Method::GET, "/train", None)).await;
    later.problem(401);
    service.stop().await;
}
