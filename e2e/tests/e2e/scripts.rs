//! The client in scripts: pipes that close, redirects, forms of output, hints, and no service at all.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use e2e::{Server, Site, binary, python, root, training};
use serde_json::Value;

const SLEEP: &str = "#!/bin/sh\nexec sleep 600\n";
const BRIEF: &str = "#!/bin/sh\necho hello; sleep 1; exit ${FAILS:-0}\n";

/// What a command prints and says, run by bash in a folder.
fn bash(url: &str, folder: &Path, line: &str) -> Output {
    let line = line.replace("trainer ", &format!("{} ", binary().display()));
    Command::new("bash")
        .args(["-c", &line])
        .current_dir(folder)
        .env("TRAINER_URL", url)
        .env("TRAINER_PLUGINS", root().join("target/plugins"))
        .env("HOME", folder)
        .env_remove("TRAINER_API_TOKEN")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn run(server: &Server, folder: &Path, line: &str) -> Output {
    bash(&format!("http://{}", server.address), folder, line)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn write_request(site: &Site, run_id: &str) {
    let request = training(site.data.path(), run_id, 1).unwrap();
    std::fs::write(site.data.path().join("job.json"), request.to_string()).unwrap();
}

/// A server that keeps the headers of each request, and redirects it.
fn redirecting(status: u16, location: &str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, heard) = channel();
    let answer = format!(
        "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut headers = vec![0; 8192];
            let length = stream.read(&mut headers).unwrap_or_default();
            let _ = sender.send(text(&headers[..length]));
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, heard)
}

#[test]
fn a_redirect_is_not_followed_and_the_token_stays_here() {
    let folder = tempfile::tempdir().unwrap();
    let request = training(folder.path(), "run", 1).unwrap();
    std::fs::write(folder.path().join("job.json"), request.to_string()).unwrap();
    for status in [301, 302, 303, 307, 308] {
        let (elsewhere, heard_elsewhere) = redirecting(404, "/");
        let elsewhere = elsewhere.replace("127.0.0.1", "localhost");
        let (here, heard) = redirecting(status, &format!("http://{elsewhere}/train"));
        for line in [
            "list",
            "get a",
            "logs a",
            "events a",
            "delete a",
            "submit -f job.json",
        ] {
            let line = format!("trainer {line} --api-token secret-token");
            let output = bash(&format!("http://{here}"), folder.path(), &line);
            let outcome = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{status} {line}: {outcome}");
            assert!(
                outcome.contains("redirect") && outcome.contains(&elsewhere),
                "{outcome}"
            );
            assert!(!outcome.contains("secret-token"), "{outcome}");
            assert!(heard.recv().unwrap().contains("secret-token"));
        }
        assert!(heard_elsewhere.try_recv().is_err(), "{status}");
    }
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let site = Site::with_launcher(BRIEF).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    for number in 0..3 {
        let request = training(folder, &format!("run-{number}"), 1).unwrap();
        server.submit(&request).unwrap();
    }
    server.wait_for("meta-run-0", "succeeded").unwrap();
    write_request(&site, "piped");
    for line in [
        "trainer list",
        "trainer list -o json",
        "trainer list -o name",
        "trainer get meta-run-0",
        "trainer get meta-run-0 -o yaml",
        "trainer logs meta-run-0",
        "trainer logs -f meta-run-0",
        "trainer events meta-run-0",
        "trainer frameworks",
        "trainer submit -f job.json --dry-run 2>&1",
        "trainer explain hf",
        "trainer explain",
        "trainer preview job.json",
        "trainer completion bash",
        "trainer completion zsh",
        "trainer plugin --help",
        "trainer --help",
        "trainer submit -f job.json",
        "trainer suspend meta-piped",
        "trainer delete meta-piped",
    ] {
        // Standard output is closed before anything is written to it.
        let piped = format!("set -o pipefail; ( sleep 0.1; {line} ) | true");
        let output = run(&server, folder, &piped);
        let outcome = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {outcome}");
        for word in ["error", "Broken pipe", "panicked"] {
            assert!(!outcome.contains(word), "{line}: {outcome}");
        }
    }
}

#[test]
fn each_form_of_output_is_what_it_says() {
    let site = Site::with_launcher(BRIEF).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    write_request(&site, "formed");
    let json = |line: &str| -> Value {
        serde_json::from_str(&printed(&run(&server, folder, line))).unwrap()
    };
    let ended = json("trainer submit -f job.json --watch -o json");
    assert_eq!(ended["status"], "succeeded");
    assert_eq!(ended.as_object().unwrap().len(), 5, "{ended}");
    let events = printed(&run(&server, folder, "trainer events meta-formed -o yaml"));
    assert!(
        events.starts_with("---\n") && events.contains("\nstatus: succeeded\n"),
        "{events}"
    );
    assert!(!events.contains('{'), "{events}");
    let changes = printed(&run(&server, folder, "trainer events meta-formed -o json"));
    for line in changes.lines() {
        assert_eq!(
            serde_json::from_str::<Value>(line).unwrap()["name"],
            "meta-formed"
        );
    }
    let deleted = json("trainer delete meta-formed -o json");
    assert_eq!(
        (&deleted["name"], &deleted["deleted"]),
        (&"meta-formed".into(), &true.into())
    );
    run(&server, folder, "trainer submit -f job.json --watch");
    let deleted = printed(&run(&server, folder, "trainer delete meta-formed -o yaml"));
    assert!(deleted.contains("name: meta-formed\n"), "{deleted}");
    assert_eq!(json("trainer list -o json"), serde_json::json!([]));
    assert!(json("trainer frameworks -o json").is_array());
    assert!(json("trainer preview -o json job.json")["manifest"].is_object());
    assert!(json("trainer explain -o json hf").is_object());
}

#[test]
fn of_a_watched_job_that_fails_the_end_is_printed_too() {
    let site = Site::with_launcher(BRIEF).unwrap();
    let server = site.start().unwrap();
    write_request(&site, "failing");
    let line = "trainer submit -f job.json --set env.FAILS=3 --watch -o json";
    let output = run(&server, site.data.path(), line);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let ended: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(ended["status"], "failed");
}

#[test]
fn a_dry_run_says_what_a_preview_says() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    let mut request = training(folder, "dry", 1).unwrap();
    request["env"] = serde_json::json!({"MY_PASSWORD": "hunter2"});
    std::fs::write(folder.join("job.json"), request.to_string()).unwrap();
    let preview = run(&server, folder, "trainer preview job.json");
    let dry_run = run(&server, folder, "trainer submit -f job.json --dry-run");
    for manifest in [printed(&dry_run), printed(&preview)] {
        assert!(manifest.contains("kind: PyTorchJob"), "{manifest}");
    }
    let outcome = text(&dry_run.stderr);
    assert_eq!(outcome, text(&preview.stderr));
    assert!(
        outcome.starts_with("world size 1") && outcome.contains("warning: "),
        "{outcome}"
    );
}

#[test]
fn a_run_id_in_place_of_a_job_gets_the_job_named() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    server
        .submit(&training(folder, "demo_001", 1).unwrap())
        .unwrap();
    for command in ["get", "logs", "events", "suspend", "resume", "delete"] {
        for (asked, said) in [
            ("demo_001", "run demo_001 has job meta-demo-001"),
            ("meta-demo-01", "did you mean meta-demo-001?"),
        ] {
            let output = run(&server, folder, &format!("trainer {command} {asked}"));
            let outcome = text(&output.stderr);
            assert_eq!(output.status.code(), Some(4), "{command}: {outcome}");
            assert!(outcome.contains(said), "{command}: {outcome}");
        }
    }
    let outcome = text(&run(&server, folder, "trainer get other").stderr);
    assert!(!outcome.contains("did you mean"), "{outcome}");
    let suspended = run(&server, folder, "trainer suspend meta-demo-001");
    assert!(suspended.status.success());
    let shown = printed(&run(&server, folder, "trainer get meta-demo-001"));
    assert!(
        shown.contains("trainer resume meta-demo-001") && !shown.contains("POST"),
        "{shown}"
    );
}

#[test]
fn an_address_without_a_scheme_and_a_token_of_nothing_are_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    for (line, said) in [
        (
            "trainer list --url 127.0.0.1:8080",
            "--url is \"127.0.0.1:8080\", which has no scheme",
        ),
        (
            "TRAINER_URL=localhost:1 trainer list",
            "TRAINER_URL is \"localhost:1\", which has no scheme",
        ),
        (
            "trainer list --url http://127.0.0.1:1 --api-token 'a b'",
            "--api-token contains the character",
        ),
        (
            "TRAINER_API_TOKEN=' ' trainer list",
            "TRAINER_API_TOKEN contains only white space",
        ),
    ] {
        let output = bash("http://127.0.0.1:1", folder.path(), line);
        let outcome = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {outcome}");
        assert!(outcome.contains(said), "{line}: {outcome}");
    }
}

#[test]
fn outside_the_repository_the_program_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let request = training(folder.path(), "run", 1).unwrap();
    std::fs::write(folder.path().join("job.json"), request.to_string()).unwrap();
    for (command, printing) in [
        ("explain hf.lr", "lr"),
        ("preview job.json", "kind: PyTorchJob"),
    ] {
        let line = format!("env -u TRAINER_PLUGINS trainer {command}");
        let text = printed(&bash("http://127.0.0.1:1", folder.path(), &line));
        assert!(text.contains(printing), "{command}: {text}");
    }
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".cache", "data", "job.json"]);
}

#[test]
fn outside_the_repository_a_service_trains_with_what_it_carries() {
    let home = tempfile::tempdir().unwrap();
    let site = Site::in_a_container()
        .unwrap()
        .set("HOME", &home.path().display().to_string())
        .set("TRAINER_LOCAL_PYTHON", &python().display().to_string());
    let mut command = Command::new(binary());
    command.current_dir(home.path());
    for variable in ["XDG_CACHE_HOME", "XDG_STATE_HOME"] {
        command.env_remove(variable);
    }
    let server = site.start_as(&mut command).unwrap();
    let request = training(home.path(), "carried", 2).unwrap();
    let name = server.submit(&request).unwrap();
    server.wait_for(&name, "succeeded").unwrap();
    let kept = home.path().join(".local/state/trainer/jobs.redb");
    assert!(kept.is_file());
}

#[test]
fn bash_completes_the_names_of_jobs() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    server
        .submit(&training(folder, "completed", 1).unwrap())
        .unwrap();
    let bin = binary().parent().unwrap().display().to_string();
    for (words, expected) in [
        ("trainer get meta-c", "meta-completed"),
        ("trainer delete ''", "meta-completed"),
        ("trainer su", "submit suspend"),
    ] {
        let line = format!(
            "PATH={bin}:$PATH; source <(command trainer completion bash); COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE=x; \
             _trainer_jobs trainer \"${{COMP_WORDS[COMP_CWORD]}}\" x; echo ${{COMPREPLY[@]}}"
        );
        let output = Command::new("bash")
            .args(["-c", &line])
            .env("TRAINER_URL", format!("http://{}", server.address))
            .output()
            .unwrap();
        assert_eq!(
            printed(&output).trim(),
            expected,
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn what_jobs_will_miss_is_told_at_the_start_with_its_path() {
    let site = Site::with_launcher(SLEEP)
        .unwrap()
        .set("TRAINER_LOCAL_WORKDIR", "/nowhere/work")
        .set("TRAINER_LOCAL_PYTHON", "/nowhere/python");
    let _server = site.start().unwrap();
    let log = site.service_log();
    for said in [
        "/nowhere/work is not a folder; set TRAINER_LOCAL_WORKDIR",
        "/nowhere/python/bin/torchrun does not exist; set TRAINER_LOCAL_PYTHON",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("file");
    std::fs::write(&file, "").unwrap();
    for wrong in [file.join("data"), file.clone()] {
        let output = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&wrong)
            .env("TRAINER_PLUGINS", root().join("target/plugins"))
            .output()
            .unwrap();
        let outcome = text(&output.stderr);
        assert!(
            !output.status.success() && outcome.contains(wrong.to_str().unwrap()),
            "{outcome}"
        );
    }
}
