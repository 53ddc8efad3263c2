//! The binary at a terminal, and as an operator runs it.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e::{Site, binary, root, training};
use serde_json::json;

const SLEEP: &str = "#!/bin/sh\nexec sleep 600\n";

fn trainer(arguments: &[&str], data: &std::path::Path) -> Output {
    Command::new(binary())
        .args(arguments)
        .env("TRAINER_PLUGINS", root().join("target/plugins"))
        .env("TRAINER_DATA_DIR", data)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn preview_prints_the_manifest_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.json");
    let request = training(folder.path(), "run-1", 10).unwrap();
    std::fs::write(&file, request.to_string()).unwrap();
    let output = trainer(&["preview", file.to_str().unwrap()], folder.path());
    let manifest = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(
        manifest.starts_with("apiVersion: kubeflow.org/v1\nkind: PyTorchJob\n"),
        "{manifest}"
    );
    assert!(manifest.contains("name: meta-run-1"));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("world size 1 = data 1"), "{message}");

    let yaml = folder.path().join("job.yaml");
    let text: String = request
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    std::fs::write(&yaml, text).unwrap();
    let output = trainer(&["preview", yaml.to_str().unwrap()], folder.path());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), manifest);
}

#[test]
fn preview_tells_every_fault_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.json");
    let mut request = training(folder.path(), "run-1", 10).unwrap();
    request["num_node"] = json!(2);
    request["extra_args"]["lr"] = json!("fast");
    std::fs::write(&file, request.to_string()).unwrap();
    let output = trainer(&["preview", file.to_str().unwrap()], folder.path());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        message.contains("unknown field \"num_node\", did you mean \"num_nodes\"?"),
        "{message}"
    );
    assert!(
        message.contains("extra_args.lr: expected number, got \"fast\""),
        "{message}"
    );
}

#[test]
fn a_service_without_plugins_is_ready_when_the_first_one_is_there() {
    let plugins = tempfile::tempdir().unwrap();
    let site = Site::with_launcher(SLEEP)
        .unwrap()
        .set("TRAINER_PLUGINS", &plugins.path().display().to_string());
    let server = site.start().unwrap();
    assert_eq!(server.get("/readyz").unwrap().0, 503);
    let log = site.service_log();
    assert!(log.contains("no plugin is loaded"), "{log}");
    let plugin = root().join("target/plugins/meta.wasm");
    std::fs::copy(plugin, plugins.path().join("meta.wasm")).unwrap();
    server.wait_until_ready().unwrap();
}

#[test]
fn sigterm_ends_the_service_its_replicas_and_nothing_is_lost() {
    let site = Site::with_launcher(SLEEP)
        .unwrap()
        .set("TRAINER_SHUTDOWN_GRACE", "2");
    let server = site.start().unwrap();
    let mut request = training(site.data.path(), "run-1", 10).unwrap();
    request["checkpoint_base_uri"] = json!("s3://bucket/runs");
    let job = server.submit(&request).unwrap();
    server.wait_for(&job, "running").unwrap();
    let begun = Instant::now();
    let killed = Command::new("kill")
        .arg(server.pid().to_string())
        .status()
        .unwrap();
    assert!(killed.success());
    while server.get("/healthz").is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(server);
    let server = site.start().unwrap();
    server.wait_for(&job, "running").unwrap();
}

/// Whether a service starts to serve, and its output until then or until it exits.
fn started(settings: &[(&str, &str)]) -> (bool, String) {
    let data = tempfile::tempdir().unwrap();
    let mut service = Command::new(binary())
        .arg("serve")
        .env("TRAINER_PLUGINS", root().join("target/plugins"))
        .env("TRAINER_DATA_DIR", data.path())
        .env("TRAINER_LISTEN", "127.0.0.1:0")
        .env_remove("TRAINER_API_TOKEN")
        .envs(settings.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(service.stderr.take().unwrap()).lines();
    let mut message = String::new();
    let mut serves = false;
    for line in lines.map(Result::unwrap) {
        message.push_str(&line);
        serves = line.contains("serving");
        if serves {
            break;
        }
    }
    service.kill().unwrap();
    service.wait().unwrap();
    (serves, message)
}

#[test]
fn without_a_token_an_address_that_others_reach_is_refused_unless_it_is_meant() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        for token in ["", "none"] {
            let mut settings = vec![("TRAINER_LISTEN", address)];
            settings.extend((token != "none").then_some(("TRAINER_API_TOKEN", token)));
            let (serves, message) = started(&settings);
            assert!(!serves, "{message}");
            assert!(
                message.contains("TRAINER_ALLOW_ANONYMOUS=true"),
                "{message}"
            );
        }
    }
    let meant = ("TRAINER_ALLOW_ANONYMOUS", "true");
    let (serves, message) = started(&[("TRAINER_LISTEN", "0.0.0.0:0"), meant]);
    assert!(
        serves && message.contains("set TRAINER_API_TOKEN"),
        "{message}"
    );
    let (serves, message) = started(&[("TRAINER_LISTEN", "0.0.0.0:0"), ("TRAINER_API_TOKEN", "t")]);
    assert!(
        serves && !message.contains("set TRAINER_API_TOKEN"),
        "{message}"
    );
    let (serves, message) = started(&[]);
    assert!(
        serves && !message.contains("set TRAINER_API_TOKEN"),
        "{message}"
    );
}

#[test]
fn a_token_that_nobody_could_send_is_refused_at_the_start() {
    for token in [" ", "\n", "\t", "two words", "two\nlines", "caf\u{e9}"] {
        let (serves, message) = started(&[("TRAINER_API_TOKEN", token)]);
        assert!(!serves, "{token:?}: {message}");
        assert!(
            message.contains("error: TRAINER_API_TOKEN contains "),
            "{token:?}: {message}"
        );
    }
}

#[test]
fn white_space_around_a_token_locks_nobody_out() {
    for token in ["secret\n", " secret", "secret\r\n"] {
        let site = Site::with_launcher(SLEEP).unwrap();
        let site = site.set("TRAINER_API_TOKEN", token);
        let server = site.start_with_token().unwrap();
        let listed = Command::new(binary())
            .args(["list", "--url", &format!("http://{}", server.address)])
            .env("TRAINER_API_TOKEN", "secret")
            .output()
            .unwrap();
        assert!(listed.status.success(), "{token:?}: {listed:?}");
    }
}

/// The specification: 500 for an unexpected error while creating the PyTorchJob. A limit on the
/// size of files fails the store's writes as a full disk does.
#[test]
fn a_full_disk_is_answered_500_and_the_service_lives_on() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let limited = "trap '' XFSZ; ulimit -f 3000; exec \"$0\" \"$@\"";
    let server = site
        .start_as(Command::new("bash").args(["-c", limited]).arg(binary()))
        .unwrap();
    let mut request = training(site.data.path(), "run", 10).unwrap();
    request["annotations"] = json!({"example.org/note": "x".repeat(200_000)});
    let mut last = (0, json!(null));
    for number in 0..100 {
        request["run_id"] = json!(format!("run-{number}"));
        last = server.post("/train", &request).unwrap();
        if last.0 != 201 {
            break;
        }
    }
    let (status, problem) = last;
    assert_eq!(status, 500, "{problem}");
    let detail = "internal error; the cause is in the log of this service";
    assert_eq!(problem["detail"], detail);
    assert_eq!(server.get("/healthz").unwrap().0, 200);
    assert!(site.service_log().contains("a request failed"));
}

#[test]
fn a_replica_whose_launcher_is_missing_says_what_to_do() {
    let site = Site::with_launcher(SLEEP)
        .unwrap()
        .set("TRAINER_LOCAL_PYTHON", "/nonexistent");
    let site = site.set("PATH", "/nonexistent");
    let server = site.start().unwrap();
    let job = server
        .submit(&training(site.data.path(), "run-1", 10).unwrap())
        .unwrap();
    let summary = server.wait_for(&job, "failed").unwrap();
    let detail = summary["detail"].as_str().unwrap();
    assert!(
        detail.contains("exited with code 127 (cannot start torchrun"),
        "{detail}"
    );
}

#[test]
fn a_token_comes_from_a_file_that_others_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "from-a-file\n").unwrap();
    let name = file.to_str().unwrap();
    let mode = |mode| std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let (serves, output) = started(&[("TRAINER_API_TOKEN_FILE", name)]);
    assert!(!serves && output.contains("has mode 644"), "{output}");
    mode(0o600);
    let twice = [("TRAINER_API_TOKEN_FILE", name), ("TRAINER_API_TOKEN", "t")];
    let (serves, output) = started(&twice);
    assert!(!serves && output.contains("set one of them"), "{output}");
    let site = Site::with_launcher(SLEEP).unwrap();
    let site = site.set("TRAINER_API_TOKEN_FILE", name);
    let server = site.start().unwrap();
    assert_eq!(server.get("/train").unwrap().0, 401);
    let right = ("X-TRAINER-TOKEN", "from-a-file");
    let preview = server.post_with_header("/train/preview", right, &json!({}));
    assert_eq!(preview.unwrap().0, 400);
}
