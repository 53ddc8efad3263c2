//! Two services with a local cluster each race for one prefix in a real S3 server: one job writes at
//! any time, each other one says why it may not, and nothing is deleted.
//!
//! `TRAINER_RACES` sets the number of rounds (`make race`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use e2e::{Server, Site, free_address, root};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::random::setting;

const KEY: &str = "training";
const SECRET: &str = "a-secret-of-the-tests";

/// In place of torchrun: a process that claims the prefix as train.py does, and trains nothing.
const LAUNCHER: &str = r#"#!/bin/sh
for word; do shift; case $word in *train.py) break;; esac; done
exec "$WRITER_PYTHON" "$WRITER" "$@" </dev/null
"#;

/// An S3 server (rclone) whose buckets are folders of this machine.
struct S3 {
    process: Child,
    address: String,
    folder: TempDir,
}

impl S3 {
    fn start(python: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bucket")).unwrap();
        let address = free_address().unwrap();
        let keys = format!("{KEY},{SECRET}");
        let process = Command::new(python.join("bin/rclone"))
            .args(["serve", "s3", "--addr", &address, "--auth-key", &keys])
            .args(["--no-cleanup", "--config", ""])
            .arg(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            process,
            address,
            folder,
        }
    }

    /// The files under the prefix of a run.
    fn files(&self, run: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.path().join("bucket/runs").join(run)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    true => folders.push(entry.path()),
                    false => drop(found.insert(
                        entry.path(),
                        std::fs::read(entry.path()).unwrap_or_default(),
                    )),
                }
            }
        }
        found
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn site(s3: &S3, python: &Path, alone: &Path) -> Site {
    let python = python.join("bin/python");
    let writer = root().join("trainer/tests/writer.py");
    let path = |path: &Path| path.canonicalize().unwrap().display().to_string();
    // Not canonical: a virtual environment is known by the link.
    let python = std::path::absolute(&python).unwrap().display().to_string();
    Site::with_launcher(LAUNCHER)
        .unwrap()
        .set("TRAINER_LOCAL_SLOTS", "8")
        .set("WRITER_PYTHON", &python)
        .set("WRITER", &path(&writer))
        .set("WRITER_ALONE", &alone.display().to_string())
        .set("WRITER_HOLDS", "1")
        .set("AWS_ENDPOINT_URL", &format!("http://{}", s3.address))
        .set("AWS_ACCESS_KEY_ID", KEY)
        .set("AWS_SECRET_ACCESS_KEY", SECRET)
        .set("AWS_DEFAULT_REGION", "us-east-1")
        .set("AWS_EC2_METADATA_DISABLED", "true")
        .set("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        .set("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
}

fn request(run: &str, job: &str) -> Value {
    json!({
        "framework": "meta",
        "model_id": "x",
        "run_id": run,
        "job_name": job,
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "gpus_per_node": 0,
    })
}

/// How a job ended: its status and detail.
fn end(server: &Server, job: &str) -> (String, String) {
    let begun = Instant::now();
    loop {
        let (_, message) = server.get(&format!("/train/{job}")).unwrap();
        let status = message["status"].as_str().unwrap_or_default();
        if status == "succeeded" || status == "failed" {
            return (status.to_string(), message["detail"].to_string());
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{message}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Submits two jobs to each service at once, and gives those that were accepted.
fn submit(servers: &[Server], run: &str) -> Vec<(usize, String)> {
    let together = Barrier::new(2 * servers.len());
    let submit = |server: usize, job: String| {
        let body = request(run, &job);
        together.wait();
        let (status, message) = servers[server].post("/train", &body).unwrap();
        if status == 201 {
            return Some((server, job));
        }
        assert_eq!(
            (status, message["type"].as_str()),
            (400, Some("urn:trainer:problem:prefix-taken")),
            "{message}"
        );
        None
    };
    std::thread::scope(|scope| {
        let jobs = (0..servers.len()).flat_map(|server| [(server, "a"), (server, "b")]);
        let threads: Vec<_> = jobs
            .map(|(server, kind)| {
                let (job, submit) = (format!("{run}-{server}-{kind}"), &submit);
                scope.spawn(move || submit(server, job))
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn of_two_clusters_that_race_for_a_prefix_one_job_writes_and_nothing_is_deleted() {
    let rounds = setting("TRAINER_RACES", 3);
    let python = std::env::var("TRAINER_TEST_PYTHON");
    let python = python.map_or_else(|_| root().join("target/python"), PathBuf::from);
    let s3 = S3::start(&python);
    let scratch = tempfile::tempdir().unwrap();
    let alone = scratch.path().join("alone");
    let sites = [0, 1].map(|_| site(&s3, &python, &alone));
    let servers = [0, 1].map(|number: usize| sites[number].start().unwrap());
    let begun = Instant::now();
    for number in 0..rounds {
        // Each prefix twice: the second time it has a checkpoint that no request asks for.
        let run = format!("race-{}", number / 2);
        let before = s3.files(&run);
        let accepted = submit(&servers, &run);
        let of: Vec<usize> = accepted.iter().map(|(server, _)| *server).collect();
        assert_eq!(of, [0, 1], "each service accepts one job: {accepted:?}");
        let ends: Vec<(String, String)> = accepted
            .iter()
            .map(|(server, job)| end(&servers[*server], job))
            .collect();
        let succeeded = ends
            .iter()
            .filter(|(status, _)| status == "succeeded")
            .count();
        assert_eq!(succeeded as u64, 1 - number % 2, "round {number}: {ends:?}");
        for (status, detail) in &ends {
            let says = ["(job race-", "checkpoints of an earlier run"];
            let is_refused = says.iter().any(|says| detail.contains(says));
            assert!(
                status == "succeeded" || is_refused,
                "round {number}: {detail}"
            );
        }
        let after = s3.files(&run);
        let kept = before
            .iter()
            .all(|(file, content)| after.get(file) == Some(content));
        assert!(kept, "round {number}: {before:?} {after:?}");
        for (server, job) in accepted {
            assert_eq!(
                servers[server].delete(&format!("/train/{job}")).unwrap().0,
                204
            );
        }
    }
    println!("{rounds} races in {:.0} s", begun.elapsed().as_secs_f64());
}
