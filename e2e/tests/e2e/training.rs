//! Real PyTorch trains under torchrun, and writes the layout of the specification.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{Site, training};
use serde_json::{Value, json};

fn run_folder(site: &Site, run_id: &str) -> std::path::PathBuf {
    site.data
        .path()
        .join("runs")
        .join(run_id)
        .join("framework=meta")
}

fn checkpoints(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("checkpoints")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The losses of a log, in order.
fn losses(log: &str) -> Vec<f64> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["event"] == "progress")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect()
}

#[test]
fn a_posted_job_trains_until_it_has_succeeded() {
    let site = Site::with_pytorch().unwrap();
    let server = site.start().unwrap();
    let request = training(site.data.path(), "train", 40).unwrap();
    let job = server.submit(&request).unwrap();
    assert_eq!(job, "meta-train");
    let summary = server.wait_for(&job, "succeeded").unwrap();
    assert_eq!(
        summary["detail"],
        "PyTorchJob meta-train is successfully completed."
    );

    let folder = run_folder(&site, "train");
    let steps = ["05", "10", "15", "20", "25", "30", "35", "40"];
    let expected: Vec<String> = steps
        .iter()
        .flat_map(|s| [format!("step-0000{s}.json"), format!("step-0000{s}.pt")])
        .collect();
    assert_eq!(checkpoints(&folder), expected);
    let commit = std::fs::read(folder.join("checkpoints/step-000040.json")).unwrap();
    let commit: Value = serde_json::from_slice(&commit).unwrap();
    assert_eq!(
        (&commit["framework"], &commit["step"]),
        (&json!("meta"), &json!(40))
    );
    let config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("config/run.json")).unwrap()).unwrap();
    assert_eq!(config["run_id"], "train");
    assert_eq!(config["resolved_args"]["max_seq_len"], 64);
    assert_eq!(std::fs::read_dir(folder.join("logs")).unwrap().count(), 1);

    let losses = losses(&site.replica_log(&job, "meta-train-master-0"));
    assert!(losses.last().unwrap() < &(losses[0] * 0.7), "{losses:?}");
}

#[test]
fn resuming_goes_on_from_the_newest_step() {
    let site = Site::with_pytorch().unwrap();
    let server = site.start().unwrap();
    let first = server
        .submit(&training(site.data.path(), "again", 10).unwrap())
        .unwrap();
    server.wait_for(&first, "succeeded").unwrap();
    let mut request = training(site.data.path(), "again", 15).unwrap();
    request["resume_from_checkpoint"] = json!(true);
    request["job_name"] = json!("second");
    server.submit(&request).unwrap();
    server.wait_for("second", "succeeded").unwrap();
    let log = site.replica_log("second", "second-master-0");
    assert!(log.contains("resumed from step 10"), "{log}");
    assert!(checkpoints(&run_folder(&site, "again")).contains(&"step-000015.json".to_string()));
}

#[test]
fn two_nodes_of_two_processes_meet() {
    let site = Site::with_pytorch()
        .unwrap()
        .set("TRAINER_LOCAL_SLOTS", "4");
    let server = site.start().unwrap();
    let mut request = training(site.data.path(), "nodes", 5).unwrap();
    request["num_nodes"] = json!(2);
    request["gpus_per_node"] = json!(2);
    let job = server.submit(&request).unwrap();
    server.wait_for(&job, "succeeded").unwrap();
    let log = site.replica_log(&job, "meta-nodes-master-0");
    assert!(log.contains("global batch 16"), "{log}");
    assert!(checkpoints(&run_folder(&site, "nodes")).contains(&"step-000005.json".to_string()));
}

#[test]
fn a_run_outlives_the_death_of_the_service() {
    let site = Site::with_pytorch().unwrap();
    let server = site.start().unwrap();
    let job = server
        .submit(&training(site.data.path(), "survivor", 400).unwrap())
        .unwrap();
    let committed = run_folder(&site, "survivor").join("checkpoints/step-000020.json");
    let begun = Instant::now();
    while !committed.exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{}",
            site.service_log()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    server.kill().unwrap();
    let server = site.start().unwrap();
    let summary = server.wait_for(&job, "succeeded").unwrap();
    assert_eq!(summary["run_id"], "survivor");
    let log = site.replica_log(&job, "meta-survivor-master-0");
    let resumed = log.lines().find(|line| line.contains("resumed from step"));
    let step: u32 = resumed
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(step >= 20, "{log}");
}

#[test]
fn a_run_whose_script_fails_ends_failed_with_the_exit_code_and_the_reason() {
    let site = Site::with_pytorch().unwrap();
    let server = site.start().unwrap();
    let mut request = training(site.data.path(), "broken", 10).unwrap();
    let empty = site.data.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let dataset = format!("file://{}/", empty.display());
    request["dataset_uri"] = json!(dataset);
    let job = server.submit(&request).unwrap();
    let summary = server.wait_for(&job, "failed").unwrap();
    let detail = summary["detail"].as_str().unwrap();
    assert!(
        detail.contains("meta-broken-master-0 exited with code 1"),
        "{detail}"
    );
    let reason = format!("train.py: error: dataset {dataset} contains no files");
    assert!(detail.contains(&reason), "{detail}");
}

#[test]
fn a_framework_that_the_image_lacks_says_so_in_one_line() {
    let site = Site::with_pytorch().unwrap();
    let server = site.start().unwrap();
    let mut request = training(site.data.path(), "absent", 10).unwrap();
    request["framework"] = json!("nemo");
    let job = server.submit(&request).unwrap();
    let detail = server.wait_for(&job, "failed").unwrap()["detail"].to_string();
    let reason = "train.py: error: framework nemo: package nemo_automodel or megatron-bridge is \
                  not installed";
    assert!(detail.contains(reason), "{detail}");
}

/// Stands for train.py: eight processes that meet, and one that fails.
const ONE_OF_EIGHT: &str = r#"
import signal

import torch
from torch import distributed

# torchrun terminates the others when it notices the failure. On a busy machine that is before they fail.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
distributed.init_process_group("gloo")
for step in range(3):
    distributed.all_reduce(torch.ones(4))
    if distributed.get_rank() == 5 and step == 1:
        raise ValueError("the loss of step 1 is not a number")
"#;

#[test]
fn the_process_that_failed_first_of_eight_is_named_with_its_exception() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train.py"), ONE_OF_EIGHT).unwrap();
    let site = Site::with_pytorch()
        .unwrap()
        .set(
            "TRAINER_LOCAL_WORKDIR",
            &folder.path().display().to_string(),
        )
        .set("TRAINER_LOCAL_SLOTS", "8")
        // One attempt says it all.
        .set("TRAINER_LOCAL_BACKOFF_MS", "600000");
    let server = site.start().unwrap();
    let mut request = training(site.data.path(), "eight", 5).unwrap();
    request["gpus_per_node"] = json!(8);
    let job = server.submit(&request).unwrap();
    let begun = Instant::now();
    let pod = loop {
        let (_, full) = server.get(&format!("/train/{job}?view=full")).unwrap();
        if full["pods"][0]["exit_code"].is_number() {
            break full["pods"][0].clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{full}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let log = site.replica_log(&job, "meta-eight-master-0");
    assert!(log.contains("onnection"), "the others fail after it: {log}");
    assert_eq!(
        (&pod["exit_code"], &pod["phase"]),
        (&json!(1), &json!("Waiting"))
    );
    let message = pod["message"].as_str().unwrap();
    assert!(message.starts_with("rank 5 "), "{message}");
    let exception = "ValueError: the loss of step 1 is not a number";
    assert!(message.ends_with(exception), "{message}");
}
