//! Logs through the API server and a kubelet, which reads them as every kubelet does (cri-client).

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::binary;
use e2e::control_plane::{ControlPlane, Part};
use jiff::Timestamp;
use serde_json::json;

use crate::service::{Deployed, request};

#[test]
fn a_log_is_read_by_its_end_its_time_and_its_container() {
    let service = Deployed::start("logged").unwrap();
    let job = running(&service);
    let first = Timestamp::now();
    says(service.plane, "current.log", first, "step 1");
    says(service.plane, "current.log", Timestamp::now(), "step 2");
    let read = |query: &str| {
        let answer = service.server.get(&format!("/train/{job}/logs{query}"));
        let (status, log) = answer.unwrap();
        assert_eq!(status, 200, "{log}");
        log.as_str().unwrap().to_string()
    };
    let all = read("");
    assert!(all.ends_with("step 1\nstep 2\n"), "{all}");
    assert_eq!(read("?tail=1"), "step 2\n");
    assert_eq!(read(&format!("?since={first}")), "step 1\nstep 2\n");
    assert_eq!(
        read(&format!("?since={first}&timestamps=true&tail=2"))
            .lines()
            .next()
            .unwrap(),
        format!("{first} step 1")
    );
    assert_eq!(read("?previous=true"), "the beginning of previous.log\n");
}

/// The API server then cuts the stream off, and lines are written while nobody reads them.
#[test]
fn a_follower_misses_nothing_while_a_kubelet_is_started_again() {
    let service = Deployed::start_alone("followed").unwrap();
    let job = running(&service);
    let mut follower = Command::new(binary())
        .args(["logs", "--follow", &job, "--tail", "0"])
        .env("TRAINER_URL", format!("http://{}", service.server.address))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let say = |number: u32| {
        says(
            service.plane,
            "current.log",
            Timestamp::now(),
            &format!("step {number}"),
        )
    };
    // The follower has attached when it tells a line.
    std::thread::sleep(Duration::from_secs(2));
    say(1);
    assert_eq!(next(), "step 1");
    service.plane.kill(Part::Kubelets).unwrap();
    say(2);
    say(3);
    service.plane.start_again(Part::Kubelets).unwrap();
    say(4);
    assert_eq!([next(), next(), next()], ["step 2", "step 3", "step 4"]);
    follower.kill().unwrap();
    follower.wait().unwrap();
}

fn running(service: &Deployed) -> String {
    let fate = json!({"fake.test/run-for": "1h"});
    let job = service.server.submit(&request("said", &fate)).unwrap();
    service.server.wait_for(&job, "running").unwrap();
    job
}

/// Writes a line into the log of every container, as container runtimes write it.
fn says(plane: &ControlPlane, file: &str, time: Timestamp, words: &str) {
    let log = OpenOptions::new().append(true).open(plane.logs.join(file));
    writeln!(log.unwrap(), "{time} stdout F {words}").unwrap();
}
