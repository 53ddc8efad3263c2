//! The life of a job on the local cluster: every order of starts, ends, suspends, deletions and kills.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use trainer_host::request::RequestPolicy;

use crate::processes::{eventually, kill, only, replicas, shim};
use crate::service::{Service, built_plugins, request};

async fn ask(service: &Service, method: &str, path: &str) -> u16 {
    let request = Request::builder().method(method).uri(path);
    let answer = service.send(request.body(Body::empty()).unwrap()).await;
    answer.status.as_u16()
}

async fn full(service: &Service, job: &str) -> Value {
    service.get(&format!("/train/{job}?view=full")).await.json()
}

/// A request whose replica runs a script, in the folder of the launcher.
fn script(run_id: &str, script: &str) -> Value {
    let mut request = request("script", run_id);
    request["env"] = json!({ "SCRIPT": script });
    request
}

/// A replica that ignores SIGTERM until a file is there. It says when it begins to, with a file.
fn stubborn(run_id: &str, file: &Path) -> Value {
    let stubborn = is_stubborn(file);
    let text = format!(
        "trap '' TERM; : >{}; while [ ! -e {} ]; do sleep 0.05; done; exit 1",
        stubborn.display(),
        file.display()
    );
    script(run_id, &text)
}

/// The file of a replica that ignores SIGTERM by now.
fn is_stubborn(file: &Path) -> PathBuf {
    file.with_extension("stubborn")
}

/// The shell of a stubborn replica, once it ignores SIGTERM.
async fn stubborn_shell(service: &Service, file: &Path) -> u32 {
    eventually(async || is_stubborn(file).exists().then_some(())).await;
    eventually(async || only(&shells(service))).await
}

fn logs(service: &Service, pod: &str) -> Vec<String> {
    let job = pod.rsplit_once("-master").unwrap().0;
    let folder = service.data.path().join("jobs/default").join(job).join(pod);
    let logs = (0..).map(|number| folder.join(format!("{number}.log")));
    logs.map_while(|log| std::fs::read_to_string(log).ok())
        .collect()
}

#[tokio::test]
async fn a_job_that_is_suspended_while_it_starts_is_not_told_to_run() {
    let service = Service::start().await;
    for delay in 0..30 {
        let run = format!("early-{delay}");
        let job = format!("meta-{run}");
        service.create(&request("wait", &run)).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        assert_eq!(
            ask(&service, "POST", &format!("/train/{job}/suspend")).await,
            200
        );
        eventually(async || replicas(&service).is_empty().then_some(())).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let message = full(&service, &job).await;
        assert_eq!(
            message["status"], "submitted",
            "after {delay} ms: {message}"
        );
        assert_ne!(message["replicas"]["Master"]["active"], 1, "{message}");
        ask(&service, "DELETE", &format!("/train/{job}")).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn nothing_that_a_killed_shim_left_outlives_its_job() {
    for end in ["DELETE /train/meta-left", "POST /train/meta-left/suspend"] {
        let (method, path) = end.split_once(' ').unwrap();
        let service = Service::with_backoff(Duration::from_secs(60)).await;
        service.create(&request("nest", "left")).await;
        service.wait_for("meta-left", "running").await;
        eventually(async || (replicas(&service).len() == 2).then_some(())).await;
        let replica = replicas(&service)[0];
        kill(shim(replica));
        eventually(async || replicas(&service).is_empty().then_some(())).await;
        assert!(ask(&service, method, path).await < 300);
        assert!(replicas(&service).is_empty());
        service.stop().await;
    }
}

#[tokio::test]
async fn a_replica_that_hides_and_kills_its_shim_ends_with_its_job() {
    let service = Service::uncontained().await;
    let seconds = 100_000 + std::process::id();
    let hide = format!(
        "env -i setsid sleep {seconds} & env -i setsid sh -c 'sleep {seconds} & sleep {seconds}' & \
         sleep 0.2; kill -9 $PPID; exec sleep {seconds}"
    );
    service.create(&script("hide", &hide)).await;
    service.wait_for("meta-hide", "failed").await;
    let detail = full(&service, "meta-hide").await["detail"].to_string();
    assert!(detail.contains("its shim was killed"), "{detail}");
    let left = std::process::Command::new("pgrep")
        .args(["-f", &format!("sleep {seconds}")])
        .output();
    let left = String::from_utf8(left.unwrap().stdout).unwrap();
    assert!(left.is_empty(), "{left}");
    service.stop().await;
}

#[tokio::test]
async fn a_successor_waits_for_the_replicas_of_the_deleted_job_and_says_so() {
    let service = Service::start().await;
    let go = service.data.path().join("go");
    service.create(&stubborn("again", &go)).await;
    service.wait_for("meta-again", "running").await;
    let old = stubborn_shell(&service, &go).await;
    assert_eq!(ask(&service, "DELETE", "/train/meta-again").await, 204);
    service.create(&request("wait", "again")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let message = full(&service, "meta-again").await;
    assert_eq!(message["status"], "submitted");
    assert_eq!(
        message["explanation"],
        json!(["It waits for the replicas of the deleted job of this name to end."])
    );
    // For a moment, the shell has a child with its own command line.
    assert_eq!(eventually(async || only(&shells(&service))).await, old);
    std::fs::write(&go, "").unwrap();
    service.wait_for("meta-again", "running").await;
    service.stop().await;
}

#[tokio::test]
async fn a_successor_of_another_name_waits_for_the_job_that_still_writes_and_says_so() {
    let service = Service::start().await;
    let go = service.data.path().join("go");
    service.create(&stubborn("shared", &go)).await;
    service.wait_for("meta-shared", "running").await;
    let old = stubborn_shell(&service, &go).await;
    assert_eq!(ask(&service, "DELETE", "/train/meta-shared").await, 204);
    let mut successor = request("wait", "shared");
    successor["job_name"] = json!("next");
    service.create(&successor).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let message = full(&service, "next").await;
    assert_eq!(message["status"], "submitted");
    let waits = "It waits for the replicas of job meta-shared to end, which was deleted and still \
                 writes to the same checkpoint prefix.";
    assert_eq!(message["explanation"], json!([waits]));
    // For a moment, the shell has a child with its own command line.
    assert_eq!(eventually(async || only(&shells(&service))).await, old);
    std::fs::write(&go, "").unwrap();
    service.wait_for("next", "running").await;
    service.stop().await;
}

#[tokio::test]
async fn a_successor_waits_for_the_replicas_of_a_job_that_has_ended() {
    let service = Service::start().await;
    let go = service.data.path().join("go");
    let mut first = stubborn("ended", &go);
    first["num_nodes"] = json!(2);
    let text = first["env"]["SCRIPT"].as_str().unwrap();
    let wait = format!(
        "until [ -e {} ]; do sleep 0.05; done",
        is_stubborn(&go).display()
    );
    first["env"]["SCRIPT"] = json!(format!("[ $RANK = 1 ] && {{ {wait}; exit 78; }}; {text}"));
    service.create(&first).await;
    service.wait_for("meta-ended", "failed").await;
    let mut successor = request("succeed", "ended");
    successor["job_name"] = json!("next");
    service.create(&successor).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let explained = full(&service, "next").await["explanation"].to_string();
    assert!(
        explained.contains("meta-ended to end, which has ended"),
        "{explained}"
    );
    std::fs::write(&go, "").unwrap();
    service.wait_for("next", "succeeded").await;
    service.stop().await;
}

/// The shells that run scripts, without what they start.
fn shells(service: &Service) -> Vec<u32> {
    let is_shell = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains("torchrun")
    };
    replicas(service).into_iter().filter(is_shell).collect()
}

#[tokio::test]
async fn a_resumed_job_says_that_it_waits_for_its_old_replicas() {
    let service = Service::start().await;
    let go = service.data.path().join("go");
    service.create(&stubborn("slow", &go)).await;
    service.wait_for("meta-slow", "running").await;
    let old = stubborn_shell(&service, &go).await;
    ask(&service, "POST", "/train/meta-slow/suspend").await;
    ask(&service, "POST", "/train/meta-slow/resume").await;
    let message = full(&service, "meta-slow").await;
    assert_eq!(
        message["explanation"],
        json!(["It waits for its old replicas to end: master-0."])
    );
    assert_eq!(eventually(async || only(&shells(&service))).await, old);
    std::fs::write(&go, "").unwrap();
    // The old one ends and is not counted. The new one fails until the limit.
    service.wait_for("meta-slow", "failed").await;
    service.stop().await;
}

#[tokio::test]
async fn each_attempt_of_a_job_of_one_node_has_a_port_of_its_own() {
    let service = Service::start().await;
    service
        .submit(&script("ports", "echo port $MASTER_PORT; exit 1"))
        .await;
    service.wait_for("meta-ports", "failed").await;
    let mut ports = logs(&service, "meta-ports-master-0");
    assert_eq!(ports.len(), 3);
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 3, "{ports:?}");
    service.stop().await;
}

#[tokio::test]
async fn an_attempt_whose_port_is_taken_does_not_count() {
    let service = Service::start().await;
    let taken = "echo x >> tries; [ $(wc -l < tries) -gt 3 ] && exit 0; \
                 echo \"error: port: $MASTER_PORT, name: EADDRINUSE\"; exit 1";
    service.create(&script("taken", taken)).await;
    service.wait_for("meta-taken", "succeeded").await;
    assert_eq!(full(&service, "meta-taken").await["pods"][0]["restarts"], 0);
    service.stop().await;
}

#[tokio::test]
async fn a_port_that_stays_taken_ends_the_job() {
    let service = Service::start().await;
    let taken = "echo \"error: port: $MASTER_PORT, name: EADDRINUSE\"; exit 1";
    service.create(&script("never", taken)).await;
    service.wait_for("meta-never", "failed").await;
    service.stop().await;
}

#[tokio::test]
async fn the_deadline_counts_from_the_start_of_the_job_through_restarts_of_the_service() {
    let profiles = json!({
        "profiles": {"short": {"active_deadline_seconds": 4}},
        "namespaces": {"default": "short"},
    });
    let policy = RequestPolicy {
        profiles: serde_json::from_value(profiles).unwrap(),
        ..RequestPolicy::default()
    };
    let service = Service::with_policy(built_plugins().to_path_buf(), None, policy).await;
    let answer = service.submit(&request("wait", "late")).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    service.wait_for("meta-late", "running").await;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let service = service.restarted().await;
    let message = service.wait_for("meta-late", "failed").await;
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(5500), "{took:?}");
    assert!(took > Duration::from_millis(2500), "{took:?}");
    let detail = message["detail"].as_str().unwrap();
    assert!(
        detail.contains("active longer than specified deadline"),
        "{detail}"
    );
    service.stop().await;
}

#[tokio::test]
async fn a_failed_replica_says_when_it_restarts_and_which_attempt_that_is() {
    let service = Service::with_backoff(Duration::from_secs(30)).await;
    let fails = "echo 'train.py: error: no luck'; sleep 0.1; exit 7";
    service.create(&script("later", fails)).await;
    let message = eventually(async || {
        let message = full(&service, "meta-later").await;
        (message["pods"][0]["phase"] == "Waiting").then_some(message)
    })
    .await;
    assert_eq!(message["pods"][0]["restarts"], 0);
    assert!(message["pods"][0]["restarts_at"].is_string(), "{message}");
    assert_eq!(message["replicas"]["Master"]["active"], 0);
    let explained = message["explanation"].to_string();
    assert!(
        explained.contains("exited with code 7: train.py: error: no luck"),
        "{explained}"
    );
    assert!(!explained.contains("restarted"), "{explained}");
    let waits = between(&explained, "master-0 restarts in ", " s: attempt 2 of 3.");
    assert!((25..=30).contains(&waits), "{explained}");
    for word in ["exited with code 7", "restarts at", "attempt 2 of 3"] {
        assert!(
            message["detail"].as_str().unwrap().contains(word),
            "{message}"
        );
    }
    service.stop().await;
}

/// The number between two texts.
fn between(text: &str, before: &str, after: &str) -> u32 {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{text}"));
    let (number, _) = rest.split_once(after).unwrap_or_else(|| panic!("{text}"));
    number.parse().unwrap()
}

#[tokio::test]
async fn a_failure_that_a_restart_cannot_fix_ends_the_job_at_once() {
    let service = Service::start().await;
    let message = r#"{"permanent": true, "message": "there is no model x"}"#;
    let by_file = format!("echo '{message}' > \"$TRAINER_FAILURE_FILE\"; exit 1");
    let after_another = format!("[ -e \"$TRAINER_FAILURE_FILE\" ] && exit 0; {by_file}");
    let cases = [
        ("file", by_file.as_str(), "there is no model x"),
        ("fresh", after_another.as_str(), "there is no model x"),
        ("code", "echo 'train.py: error: bad lr'; exit 78", "bad lr"),
        ("absent", "exec no-such-program", "no-such-program"),
        (
            "option",
            "echo 'torchrun: error: ambiguous option: --x'; exit 2",
            "ambiguous option",
        ),
        (
            "module",
            "echo 'Traceback (most recent call last):'; echo \"ModuleNotFoundError: No module named \
             'apex'\"; exit 1",
            "No module named 'apex'",
        ),
    ];
    for (run, text, cause) in cases {
        service.create(&script(run, text)).await;
        let job = format!("meta-{run}");
        let message = service.wait_for(&job, "failed").await;
        let detail = message["detail"].as_str().unwrap();
        assert!(
            detail.contains("a restart cannot fix this failure"),
            "{detail}"
        );
        assert!(detail.contains(cause), "{detail}");
        assert_eq!(logs(&service, &format!("{job}-master-0")).len(), 1, "{run}");
    }
    let passing = r#"echo '{"permanent": false}' > "$TRAINER_FAILURE_FILE"; exit 1"#;
    service.create(&script("passing", passing)).await;
    service.wait_for("meta-passing", "failed").await;
    assert_eq!(logs(&service, "meta-passing-master-0").len(), 3);
    let killed = "kill -9 $$";
    service.create(&script("killed", killed)).await;
    let message = service.wait_for("meta-killed", "failed").await;
    let detail = message["detail"].as_str().unwrap();
    let cause = "exited with code 137 (killed by SIGKILL, which often means that memory ran out";
    assert!(detail.contains(cause), "{detail}");
    assert_eq!(logs(&service, "meta-killed-master-0").len(), 3);
    service.stop().await;
}

#[tokio::test]
async fn jobs_of_one_second_are_listed_newest_first_also_after_a_restart() {
    let service = Service::start().await;
    let runs = ["m", "a", "z", "k", "b"];
    for run in runs {
        service.create(&request("wait", run)).await;
    }
    let expected: Vec<String> = runs.iter().rev().map(|run| format!("meta-{run}")).collect();
    assert_eq!(listed(&service).await, expected);
    let service = service.restarted().await;
    assert_eq!(listed(&service).await, expected);
    service.stop().await;
}

/// The names of a list, two a page.
async fn listed(service: &Service) -> Vec<String> {
    let mut names = Vec::new();
    let mut path = "/train?page_size=2".to_string();
    loop {
        let page = service.get(&path).await.json();
        let jobs = page["jobs"].as_array().unwrap_or_else(|| panic!("{page}"));
        names.extend(
            jobs.iter()
                .map(|job| job["name"].as_str().unwrap().to_string()),
        );
        match page["next_page_token"].as_str() {
            Some(token) => path = format!("/train?page_size=2&page_token={token}"),
            None => return names,
        }
    }
}

#[tokio::test]
async fn the_scratch_files_of_a_replica_are_in_a_private_folder() {
    use std::os::unix::fs::PermissionsExt;
    let service = Service::start().await;
    service.create(&request("succeed", "scratch")).await;
    service.wait_for("meta-scratch", "succeeded").await;
    let log = logs(&service, "meta-scratch-master-0").remove(0);
    assert!(!log.contains("=/tmp/trainer"), "{log}");
    let scratch = service.data.path().canonicalize().unwrap().join("scratch");
    assert!(
        log.contains(&format!("TRAINING_LOCAL_ROOT={}", scratch.display())),
        "{log}"
    );
    for private in [
        "scratch",
        "jobs",
        "jobs.redb",
        "jobs/default/meta-scratch/meta-scratch-master-0/0.log",
    ] {
        let mode = service
            .data
            .path()
            .join(private)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{private}");
    }
    service.stop().await;
}
