//! Plugins change under a service that runs: whole, tried, and back again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use trainer_host::plugin::Reload;
use trainer_host::plugin::source::Digest;
use trainer_host::plugin::watch::{self, Watching};

use crate::service::{Service, built_plugins, hostile_plugin, request};

/// A folder with one plugin, and two versions of it: a custom section tells them apart.
struct Versions {
    folder: tempfile::TempDir,
    bytes: [Vec<u8>; 2],
}

impl Versions {
    fn new() -> Self {
        let bytes = std::fs::read(built_plugins().join("meta.wasm")).unwrap();
        let versions = [1, 2].map(|number| {
            let mut bytes = bytes.clone();
            // Custom section: id, size, size of the name, name, data.
            bytes.extend([0, 3, 1, b'v', number]);
            bytes
        });
        let folder = tempfile::tempdir().unwrap();
        let this = Self {
            folder,
            bytes: versions,
        };
        this.put(0);
        this
    }

    fn put(&self, version: usize) {
        self.write(&self.bytes[version]);
    }

    /// As documented: written beside and renamed.
    fn write(&self, bytes: &[u8]) {
        let unfinished = self.folder.path().join("meta.unfinished");
        std::fs::write(&unfinished, bytes).unwrap();
        std::fs::rename(unfinished, self.folder.path().join("meta.wasm")).unwrap();
    }

    fn digest(&self, version: usize) -> String {
        Digest::of(&self.bytes[version]).to_string()
    }

    async fn service(&self) -> Service {
        Service::with(self.path().to_path_buf(), None).await
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

async fn digest(service: &Service) -> String {
    let view = service.get("/frameworks/meta").await.json();
    view["digest"].as_str().unwrap().to_string()
}

async fn refused(service: &Service) -> Value {
    service.get("/frameworks").await.json()["refused"][0].clone()
}

#[tokio::test]
async fn a_bad_file_leaves_the_last_good_version_serving_and_says_why_everywhere() {
    trainer_host::measure::metrics();
    let versions = Versions::new();
    let service = versions.service().await;
    for (bad, why) in [
        (&versions.bytes[1][..1000], "not WebAssembly"),
        (b"#!/bin/sh", "not WebAssembly"),
        (
            b"\0asm\x01\0\0\0",
            "it does not export deepfinery:trainer/framework",
        ),
    ] {
        versions.write(bad);
        service.registry.reload(Reload::Changed);
        assert_eq!(digest(&service).await, versions.digest(0));
        assert_eq!(service.preview(&request("x", "run-1")).await.status, 200);
        let refused = refused(&service).await;
        assert_eq!(refused["source"], "meta.wasm");
        assert_eq!(refused["serving"], versions.digest(0));
        let reason = refused["reason"].as_str().unwrap();
        assert!(reason.starts_with(why), "{reason}");
        let ready = service.get("/readyz?verbose").await;
        assert_eq!(ready.status, 200);
        let message = format!(
            "refused meta.wasm: {reason}; still serving {}",
            versions.digest(0)
        );
        let detail = ready.json()["checks"][0]["detail"].clone();
        assert!(detail.as_str().unwrap().contains(&message), "{detail}");
        let metrics = service.get("/metrics").await.text;
        assert!(
            metrics.contains("trainer_plugin_refused{source=\"meta.wasm\"} 1"),
            "{metrics}"
        );
    }
    versions.put(1);
    service.registry.reload(Reload::Changed);
    assert_eq!(digest(&service).await, versions.digest(1));
    assert_eq!(refused(&service).await, Value::Null);
    let metrics = service.get("/metrics").await.text;
    assert!(
        metrics.contains("trainer_plugin_refused{source=\"meta.wasm\"} 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_framework_goes_back_to_the_version_before_until_its_file_changes_again() {
    let versions = Versions::new();
    let service = versions.service().await;
    let back = "/frameworks/meta/rollback";
    service.post(back, "").await.problem(409);
    versions.put(1);
    service.registry.reload(Reload::Changed);
    let answer = service.post(back, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["digest"], versions.digest(0));
    // The file is still the one that was rolled back from.
    service.registry.reload(Reload::Changed);
    assert_eq!(digest(&service).await, versions.digest(0));
    service.post(back, "").await.problem(409);
    service
        .post("/frameworks/mta/rollback", "")
        .await
        .problem(404);
    versions.put(0);
    service.registry.reload(Reload::Changed);
    versions.put(1);
    service.registry.reload(Reload::Changed);
    assert_eq!(digest(&service).await, versions.digest(1));
}

#[tokio::test]
async fn a_change_of_the_folder_is_noticed() {
    let versions = Versions::new();
    let service = versions.service().await;
    let watching = tokio::spawn(watch::keep_current(
        service.registry.clone(),
        Duration::from_secs(2),
    ));
    tokio::time::sleep(Duration::from_millis(200)).await;
    versions.put(1);
    until_served(&service, &versions.digest(1)).await;
    watching.abort();
}

/// Waits until the service serves a version.
async fn until_served(service: &Service, expected: &str) {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while digest(service).await != expected {
        assert!(tokio::time::Instant::now() < until, "not noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_watched_is_listed() {
    let versions = Versions::new();
    let service = versions.service().await;
    // Nobody can watch what is not there.
    let (folder, aside) = (versions.path(), versions.path().with_extension("aside"));
    std::fs::rename(folder, &aside).unwrap();
    let every = Duration::from_secs(1);
    let watching = tokio::spawn(watch::keep_current(service.registry.clone(), every));
    while !matches!(service.registry.watching(), Watching::Listed { .. }) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ready = service.get("/readyz?verbose").await.json();
    let check = &ready["checks"][1];
    assert_eq!(check["name"], "plugin folder");
    let detail = check["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("listed every 1 s; not watched: "),
        "{detail}"
    );
    assert_eq!(digest(&service).await, versions.digest(0));
    std::fs::write(aside.join("meta.wasm"), &versions.bytes[1]).unwrap();
    std::fs::rename(&aside, folder).unwrap();
    until_served(&service, &versions.digest(1)).await;
    watching.abort();
}

#[tokio::test]
async fn a_reload_that_somebody_asks_for_looks_at_everything_again() {
    let versions = Versions::new();
    let service = versions.service().await;
    versions.put(1);
    let answer = service.post("/frameworks/reload", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let frameworks = answer.json();
    assert_eq!(frameworks["frameworks"][0]["digest"], versions.digest(1));
    assert_eq!(digest(&service).await, versions.digest(1));
    service.get("/frameworks/reload").await.problem(405);
}

#[tokio::test]
async fn a_file_that_is_removed_is_served_no_more_and_a_new_one_is() {
    let versions = Versions::new();
    let service = versions.service().await;
    std::fs::rename(
        versions.path().join("meta.wasm"),
        versions.path().join("meta.gone"),
    )
    .unwrap();
    std::fs::copy(hostile_plugin(), versions.path().join("hostile.wasm")).unwrap();
    service.registry.reload(Reload::Changed);
    service.get("/frameworks/meta").await.problem(404);
    assert_eq!(service.get("/frameworks/hostile").await.status, 200);
}

/// In a process of its own: it measures memory, and other tests take some at the same time.
#[test]
fn a_thousand_reloads_under_load_fail_no_request_and_mix_no_versions() {
    let alone = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reload::a_thousand_reloads", "--ignored"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success(), "{message}");
    assert!(message.contains("1 passed"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the test above runs it"]
async fn a_thousand_reloads() {
    let versions = Versions::new();
    let service = Arc::new(versions.service().await);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (service, stop) = (service.clone(), stop.clone());
            let known = [versions.digest(0), versions.digest(1)];
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = service.preview(&request("x", "run-1")).await;
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    let preview = answer.json();
                    let digest = preview["plugin"]["digest"].as_str().unwrap();
                    assert!(known.iter().any(|known| known == digest), "{digest}");
                    let annotations = &preview["manifest"]["metadata"]["annotations"];
                    assert!(annotations.to_string().contains(digest), "{annotations}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut early = 0;
    for number in 0..1000 {
        versions.put((number + 1) % 2);
        let registry = service.registry.clone();
        tokio::task::spawn_blocking(move || registry.reload(Reload::Changed))
            .await
            .unwrap();
        assert_eq!(digest(&service).await, versions.digest((number + 1) % 2));
        if number == 50 {
            early = resident_kib();
        }
    }
    let late = resident_kib();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 100);
    }
    println!("resident after 50 reloads {early} KiB, after 1000 {late} KiB");
    assert!(late <= early + early / 10, "{early} KiB, then {late} KiB");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}
