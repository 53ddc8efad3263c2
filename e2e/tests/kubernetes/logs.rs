//! Logs through the API server and a kubelet, which reads them as every kubelet does (cri-client).

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use e2e::binary;
use e2e::control_plane::{ControlPlane, Part};
use jiff::Timestamp;
use serde_json::json;
use trainer_host::job_kind::JobKind;

use crate::service::{Deployed, request};

for_both_kinds! {
    a_log_is_read_by_its_end_its_time_and_its_container
    a_follower_misses_nothing_while_a_kubelet_is_started_again
    of_the_last_lines_a_long_one_is_cut
    a_follower_sees_a_line_before_it_ends
}

fn a_log_is_read_by_its_end_its_time_and_its_container(kind: JobKind) {
    let service = Deployed::start(kind, "logged").unwrap();
    let job = running(&service);
    let _alone = log_alone();
    let first = Timestamp::now();
    says(service.plane, first, "step 1");
    says(service.plane, Timestamp::now(), "step 2");
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
        // A kubelet writes all nine digits; `Display` alone leaves zeros at the end out.
        format!("{first:.9} step 1")
    );
    // The pods of a TrainJob are not restarted on their own, and this one is its first.
    match kind {
        JobKind::PyTorchJob => {
            assert_eq!(read("?previous=true"), "the beginning of previous.log\n")
        }
        JobKind::TrainJob => {
            let previous = format!("/train/{job}/logs?previous=true");
            assert_eq!(service.server.get(&previous).unwrap().0, 404);
        }
    }
}

/// The API server then cuts the stream off, and lines are written while nobody reads them.
fn a_follower_misses_nothing_while_a_kubelet_is_started_again(kind: JobKind) {
    let service = Deployed::start_alone(kind, "followed").unwrap();
    let job = running(&service);
    // A line that never comes is to fail the test, not to hold it up.
    let mut follower = Command::new("timeout")
        .arg("60")
        .arg(binary())
        .args(["logs", "--follow", &job])
        .env("TRAINER_URL", format!("http://{}", service.server.address))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let say = |number: u32| says(service.plane, Timestamp::now(), &format!("step {number}"));
    assert_eq!(next(), "the beginning of current.log");
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

fn of_the_last_lines_a_long_one_is_cut(kind: JobKind) {
    let service = Deployed::start(kind, "cut").unwrap();
    let job = running(&service);
    let _alone = log_alone();
    for words in ["first", &"x".repeat(2_000_000), "last"] {
        says(service.plane, Timestamp::now(), words);
    }
    let path = format!("/train/{job}/logs?tail=3");
    let (status, log) = service.server.get(&path).unwrap();
    assert_eq!(status, 200);
    let lines: Vec<&str> = log.as_str().unwrap().lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (3, "first", "last"));
    assert!(lines[1].starts_with('x') && lines[1].len() <= 256 * 1024);
    let since = Timestamp::now();
    says(service.plane, since, "new");
    let path = format!("/train/{job}/logs?since={since}");
    assert_eq!(service.server.get(&path).unwrap().1, "new\n");
}

/// A container runtime writes such a line in parts.
fn a_follower_sees_a_line_before_it_ends(kind: JobKind) {
    let service = Deployed::start(kind, "unfinished").unwrap();
    let job = running(&service);
    let _alone = log_alone();
    let mut follower = Command::new("timeout")
        .arg("60")
        .arg(binary())
        .args(["logs", "--follow", "--tail", "0", &job])
        .env("TRAINER_URL", format!("http://{}", service.server.address))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = follower.stdout.take().unwrap();
    let mut next = |length: usize| {
        let mut bytes = vec![0; length];
        output.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    std::thread::sleep(Duration::from_secs(1));
    writes(service.plane, Timestamp::now(), "P", "10%\r");
    assert_eq!(next(4), "10%\r");
    writes(service.plane, Timestamp::now(), "P", "20%\r");
    assert_eq!(next(4), "20%\r");
    writes(service.plane, Timestamp::now(), "F", "done");
    says(service.plane, Timestamp::now(), "next");
    assert_eq!(next(10), "done\nnext\n");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

/// All containers of the shared control plane have one log, so one test at a time writes it.
fn log_alone() -> MutexGuard<'static, ()> {
    static LOG: Mutex<()> = Mutex::new(());
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn running(service: &Deployed) -> String {
    let fate = json!({"fake.test/run-for": "1h"});
    let job = service.server.submit(&request("said", &fate)).unwrap();
    service.server.wait_for(&job, "running").unwrap();
    job
}

/// Writes a line into the log of every container, as container runtimes write it.
fn says(plane: &ControlPlane, time: Timestamp, words: &str) {
    writes(plane, time, "F", words);
}

/// Writes a whole line (`F`) or a part of one (`P`).
fn writes(plane: &ControlPlane, time: Timestamp, tag: &str, words: &str) {
    let file = plane.logs.join("current.log");
    let log = OpenOptions::new().append(true).open(file);
    writeln!(log.unwrap(), "{time} stdout {tag} {words}").unwrap();
}
