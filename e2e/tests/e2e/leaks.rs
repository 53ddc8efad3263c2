//! A run whose secrets are known: neither they nor any token or key of the service is in what the service
//! answers, logs, counts, traces or stores, nor in what the commands print.
//!
//! The replica has its values in its environment and may write them. Its own log is the only exception.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::{Server, Site, binary, training};
use serde_json::{Value, json};

use crate::observed::Collector;
use crate::wait::eventually;

/// How long a process may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The values that jobs get.
const HUB: &str = "hunter2-value-of-the-hub-token";
const STORE: &str = "hunter2-value-of-the-object-store";
/// 32 bytes in base64, by which stored secrets are encrypted.
const KEY: &str = "aHVudGVyMi1rZXktb2YtdGhlLXN0b3JlLS0tLS0tLS0=";
/// Prints its secrets in several ways, and fails after some time.
const LAUNCHER: &str = r#"#!/bin/sh
echo "hub $HF_TOKEN and store $AWS_SECRET_ACCESS_KEY"
echo "{\"step\": 1, \"loss\": 2.0, \"token\": \"$HF_TOKEN\"}"
echo "values $HF_TOKEN$AWS_SECRET_ACCESS_KEY" >&2
sleep 12
echo "train.py: error: $HF_TOKEN is wrong" >&2
echo "RuntimeError: $AWS_SECRET_ACCESS_KEY is wrong" >&2
exit 1
"#;
const PROFILES: &str = "profiles:\n  store:\n    env_secrets:\n      AWS_SECRET_ACCESS_KEY: {secret: \
                        store, key: secret-key}\n";

/// What must not be found, and where it was looked for.
struct Search {
    known: Vec<String>,
    seen: Vec<(String, Vec<u8>)>,
}

impl Search {
    fn add(&mut self, source: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.seen.push((source.into(), content.into()));
    }

    fn assert_nothing_is_found(&self) {
        let mut found = Vec::new();
        for (source, content) in &self.seen {
            for known in &self.known {
                let is_there = content
                    .windows(known.len())
                    .any(|part| part == known.as_bytes());
                found.extend(is_there.then(|| format!("{known} in {source}")));
            }
        }
        assert!(found.is_empty(), "{found:#?}");
    }

    fn content(&self, source: &str) -> String {
        let all = self
            .seen
            .iter()
            .filter(|(known, _)| known.starts_with(source));
        all.map(|(_, content)| String::from_utf8_lossy(content).into_owned())
            .collect()
    }
}

/// A service with two callers, and the folder in which it keeps everything.
struct Setting {
    site: Site,
    server: Server,
    /// The tokens of a submitter and of an admin.
    alice: String,
    adam: String,
    collector: Collector,
}

impl Setting {
    fn start() -> Self {
        let site = Site::with_launcher(LAUNCHER).unwrap();
        let folder = site.data.path().to_path_buf();
        let (alice, line) = token("alice", &["--namespace", "team-a"]);
        let (adam, other) = token("adam", &["--namespace", "*", "--role", "admin"]);
        let policy = "\n[namespaces.team-a]\nsecrets = [\"hub\", \"store\"]\n";
        private(&folder.join("access.toml"), &(line + &other + policy));
        private(&folder.join("profiles.yaml"), PROFILES);
        let collector = Collector::start();
        let file = |name: &str| folder.join(name).display().to_string();
        let site = site
            .set("TRAINER_ACCESS", &file("access.toml"))
            .set("TRAINER_AUDIT", &file("audit.jsonl"))
            .set("TRAINER_PROFILES", &file("profiles.yaml"))
            .set("TRAINER_SECRETS_KEY", KEY)
            .set("TRAINER_LOG", "trace")
            .set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
            .set("OTEL_BSP_SCHEDULE_DELAY", "100");
        let server = site.start().unwrap();
        server.wait_until_ready().unwrap();
        Self {
            site,
            server,
            alice,
            adam,
            collector,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.site.data.path().join(name)
    }

    /// Output and errors of a command.
    fn trainer(&self, arguments: &[&str], input: &str) -> String {
        let mut command = Command::new(binary())
            .args(arguments)
            .env("TRAINER_URL", format!("http://{}", self.server.address))
            .env("TRAINER_API_TOKEN", &self.alice)
            .env("TRAINER_DATA_DIR", self.site.data.path())
            .env("TRAINER_PLUGINS", e2e::root().join("target/plugins"))
            .env("TRAINER_PROFILES", self.file("profiles.yaml"))
            .env("TRAINER_AUDIT", self.file("audit.jsonl"))
            .env("TRAINER_SECRETS_KEY", KEY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may have ended.
        let _ = command.stdin.take().unwrap().write_all(input.as_bytes());
        let output = command.wait_with_output().unwrap();
        [output.stdout, output.stderr]
            .map(|text| String::from_utf8(text).unwrap())
            .concat()
    }

    /// A whole answer with its headers, or what a stream has sent within a second.
    fn ask(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> String {
        let mut stream = TcpStream::connect(&self.server.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-TRAINER-TOKEN: {token}\r\nConnection: \
             close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn request(&self, run_id: &str) -> Value {
        let mut body = training(self.site.data.path(), run_id, 1).unwrap();
        body["namespace"] = json!("team-a");
        body["annotations"] = json!({"trainer.deepfinery/profile": "store"});
        body["env"] = json!({"HF_TOKEN": {"secret": "hub", "key": "token"}});
        body
    }

    /// Everything that the service answers about a run, and in general.
    fn answers(&self, search: &mut Search, when: &str) {
        for path in [
            "/train",
            "/train/meta-leak?view=full",
            "/train/meta-leak/manifest",
            "/train/meta-leak/logs?replica=all&timestamps=true",
            "/train/meta-leak/logs?tail=3",
            "/train/meta-leak/logs?follow=true",
            "/train/meta-leak/metrics",
            "/train/meta-leak/metrics?follow=true",
            "/train/meta-leak/events",
            "/train/meta-other",
            "/events",
            "/whoami",
            "/frameworks",
            "/frameworks/meta",
            "/metrics",
            "/readyz?verbose",
            "/openapi.json",
            "/docs",
            "/",
            "/console/app.js",
        ] {
            search.add(
                format!("{when} {path}"),
                self.ask(&self.adam, "GET", path, None),
            );
        }
        let mut wrong = self.request("wrong");
        wrong["env"]["OTHER"] = json!({"secret": "hub", "key": "missing"});
        wrong["image"] = json!(7);
        for (path, body) in [
            ("/train/preview", self.request("next")),
            ("/train/preview?dry_run=server", self.request("next")),
            ("/train", self.request("leak")),
            ("/train", wrong),
        ] {
            let answer = self.ask(&self.alice, "POST", path, Some(&body));
            search.add(format!("{when} POST {path}"), answer);
        }
        let file = self.file("request.json").display().to_string();
        private(Path::new(&file), &self.request("leak").to_string());
        for arguments in [
            &["get", "meta-leak", "--output", "yaml"][..],
            &["list", "--mine"],
            &["logs", "meta-leak"],
            &["whoami"],
            &["preview", &file],
            &["submit", &file],
            &["secret", "list", "--namespace", "team-a"],
            &["audit"],
            &["frameworks"],
        ] {
            let output = self.trainer(arguments, "");
            search.add(format!("{when} trainer {}", arguments.join(" ")), output);
        }
    }
}

/// A token, and its entry for the access file.
fn token(name: &str, arguments: &[&str]) -> (String, String) {
    let output = Command::new(binary())
        .args(["token", "new", name])
        .args(arguments)
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    let token = message.lines().last().unwrap().to_string();
    (token, String::from_utf8(output.stdout).unwrap())
}

fn private(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
}

/// The files of a folder, except the logs of replicas.
fn files(folder: &Path, search: &mut Search) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_log_of_replica = path.extension().is_some_and(|kind| kind == "log")
            && path.components().any(|part| part.as_os_str() == "jobs");
        if path.is_dir() && !path.is_symlink() {
            files(&path, search);
        } else if path.is_file() && !is_log_of_replica {
            search.add(
                path.display().to_string(),
                std::fs::read(&path).unwrap_or_default(),
            );
        }
    }
}

/// Arguments and environment of a process and of the processes that it has started as itself.
fn processes(service: u32, search: &mut Search) {
    let name = binary().canonicalize().unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let is_ours = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == name);
        let is_service = entry.file_name().to_str() == Some(service.to_string().as_str());
        for part in ["environ", "cmdline"] {
            let content = std::fs::read(entry.path().join(part)).unwrap_or_default();
            if is_service || is_ours {
                search.add(format!("{part} of {}", entry.path().display()), content);
            }
        }
    }
}

#[test]
fn no_secret_token_or_key_is_in_anything_that_the_service_shows_or_stores() {
    let setting = Setting::start();
    let (alice, adam) = (setting.alice.clone(), setting.adam.clone());
    let known = [HUB, STORE, KEY, &alice, &adam].map(str::to_string);
    let mut search = Search {
        known: known.into(),
        seen: Vec::new(),
    };
    for (secret, key, value) in [("hub", "token", HUB), ("store", "secret-key", STORE)] {
        let message = setting.trainer(
            &["secret", "set", secret, key, "--namespace", "team-a"],
            value,
        );
        assert_eq!(message, "");
    }
    let created = setting.ask(&alice, "POST", "/train", Some(&setting.request("leak")));
    assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    search.add("the created job", created);
    let logs = "/train/meta-leak/logs?namespace=team-a";
    eventually("the job writes its log", PATIENCE, || {
        setting
            .ask(&alice, "GET", logs, None)
            .contains("values ***")
            .then_some(())
    });
    setting.answers(&mut search, "running");
    processes(setting.server.pid(), &mut search);
    eventually("the job fails", PATIENCE, || {
        setting
            .ask(&alice, "GET", "/train/meta-leak", None)
            .contains("\"failed\"")
            .then_some(())
    });
    setting.answers(&mut search, "failed");
    let log = search.content("failed /train/meta-leak/logs?replica=all");
    assert!(log.contains("hub *** and store ***"), "{log}");
    let Setting {
        site,
        server,
        collector,
        ..
    } = setting;
    // Its last spans are sent within this time.
    let spans = std::iter::from_fn(|| collector.spans.recv_timeout(Duration::from_secs(2)).ok());
    let spans: Vec<String> = spans.map(|span| format!("{span:?}")).collect();
    assert!(
        spans.iter().any(|span| span.contains("POST /train")),
        "no traces"
    );
    search.add("traces", spans.join("\n"));
    server.kill().unwrap();
    files(site.data.path(), &mut search);
    assert!(
        search
            .content(site.data.path().to_str().unwrap())
            .contains("createJob")
    );
    search.assert_nothing_is_found();
}
