//! From an empty folder to a served framework, in each language, with the commands of
//! docs/plugin-author.md.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use e2e::{Server, Site, binary, root};
use serde_json::{Value, json};

use e2e::documents::blocks;

/// A host that was running before the plugin existed, and a folder for the author.
struct Workplace {
    site: Site,
    server: Server,
    plugins: tempfile::TempDir,
    folder: tempfile::TempDir,
}

impl Workplace {
    fn new() -> Self {
        let plugins = tempfile::tempdir().unwrap();
        let meta = root().join("target/plugins/meta.wasm");
        std::fs::copy(meta, plugins.path().join("meta.wasm")).unwrap();
        let site = Site::with_launcher("#!/bin/sh\n").unwrap();
        let site = site.set("TRAINER_PLUGINS", &plugins.path().display().to_string());
        Self {
            server: site.start().unwrap(),
            site,
            plugins,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn plugin(&self, arguments: &[&str]) -> Output {
        Command::new(binary().canonicalize().unwrap())
            .arg("plugin")
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TRAINER_CACHE", self.site.data.path())
            .output()
            .unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.plugin(arguments);
        let message = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {message}{error}");
        message
    }

    /// Runs commands of a document.
    fn shell(&self, commands: &str) {
        let programs = binary().canonicalize().unwrap();
        let programs = programs.parent().unwrap().display();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-ec", commands])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("TRAINER_PLUGINS", self.plugins.path())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}: {error}");
    }

    /// As an author does it: written beside, then renamed.
    fn put(&self, file: &Path) {
        let unfinished = self.plugins.path().join("new.unfinished");
        std::fs::copy(file, &unfinished).unwrap();
        std::fs::rename(unfinished, self.plugins.path().join("new.wasm")).unwrap();
    }

    fn served(&self, framework: &str) -> Value {
        let begun = Instant::now();
        loop {
            let (status, view) = self
                .server
                .get(&format!("/frameworks/{framework}"))
                .unwrap();
            if status == 200 {
                return view;
            }
            let (_, all) = self.server.get("/frameworks").unwrap();
            assert!(begun.elapsed() < Duration::from_secs(300), "{all}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processor time of everything that this process has started and that has ended, in seconds.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks: Vec<f64> = after_name
        .split_whitespace()
        .skip(13)
        .take(2)
        .map(|ticks| ticks.parse().unwrap())
        .collect();
    (ticks[0] + ticks[1]) / 100.0
}

fn is_there(program: &str) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

fn from_nothing_to_served(language: &str, most_seconds: f64) {
    let work = Workplace::new();
    let (begun, before) = (Instant::now(), processor_seconds());
    // The first block of the page: three commands.
    let commands = blocks("docs/plugin-author.md", "sh").unwrap().remove(0);
    assert_eq!(commands.lines().count(), 3);
    work.shell(&commands.replace("python", language));
    let file = work.folder.path().join("fresh/build/fresh.wasm");
    assert_eq!(work.served("fresh")["version"], "0.1.0");
    let (took, processor) = (begun.elapsed().as_secs_f64(), processor_seconds() - before);
    println!("{language}: served after {took:.0} s, {processor:.0} s of processor time");
    // Two cores that have nothing else to do need at most this; others may be at work here.
    assert!(processor < most_seconds, "{processor} s of processor time");

    let job = work.folder.path().join("fresh/tests/two-nodes.json");
    let request: Value = serde_json::from_slice(&std::fs::read(&job).unwrap()).unwrap();
    let (status, preview) = work.server.post("/train/preview", &request).unwrap();
    assert_eq!(status, 200, "{preview}");
    let path = file.display().to_string();
    let message: Value =
        serde_json::from_str(&work.done(&["run", &path, "fresh/tests/two-nodes.json"])).unwrap();
    assert_eq!(message["command"], preview["command"]);
    assert!(
        work.done(&["check", &path])
            .ends_with("a host will accept this plugin\n")
    );
    work.done(&["test", &path, "fresh/tests", "--accept"]);
    assert_eq!(
        work.done(&["test", &path, "fresh/tests"]),
        "ok    two-nodes\n"
    );
    let kept = work.folder.path().join("bench.json").display().to_string();
    work.done(&["bench", &path, "--calls", "50", "--save", &kept]);
    let table = work.done(&["bench", &path, "--calls", "50", "--against", &kept]);
    assert!(
        table.contains("call p99") && table.contains(" %)"),
        "{table}"
    );
    assert!(
        work.done(&["inspect", &path])
            .contains("contract  0.1.0\nimports   none\n")
    );
}

#[test]
fn a_plugin_in_rust_is_served_within_two_minutes() {
    from_nothing_to_served("rust", 120.0);
}

#[test]
fn a_plugin_in_python_is_served_within_three_minutes() {
    from_nothing_to_served("python", 180.0);
}

#[test]
fn a_plugin_in_javascript_is_served_within_three_minutes() {
    match is_there("npm") {
        true => from_nothing_to_served("javascript", 180.0),
        false => println!("left out: npm is not on this machine"),
    }
}

#[test]
fn a_plugin_carries_its_tests_and_a_host_runs_them() {
    if !is_there("npm") {
        println!("left out: npm is not on this machine");
        return;
    }
    let work = Workplace::new();
    work.done(&["new", "tested", "--language", "javascript"]);
    work.done(&["build", "tested"]);
    let file = "tested/build/tested.wasm";
    work.done(&["test", file, "tested/tests", "--accept"]);
    assert!(work.done(&["build", "tested"]).contains("1 tests included"));
    work.put(&work.folder.path().join(file));
    let digest = work.served("tested")["digest"].clone();

    // A change that its author did not look at.
    let app = work.folder.path().join("tested/app.js");
    let text = std::fs::read_to_string(&app).unwrap();
    std::fs::write(&app, text.replace("\"torchrun\"", "\"mpirun\"")).unwrap();
    work.done(&["build", "tested"]);
    let message = "/plan/command/0: expected \"torchrun\", got \"mpirun\"";
    let output = work.plugin(&["check", file]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains(message));
    work.put(&work.folder.path().join(file));
    let begun = Instant::now();
    loop {
        let (_, all) = work.server.get("/frameworks").unwrap();
        if let Some(reason) = all["refused"][0]["reason"].as_str() {
            assert!(reason.contains(message), "{reason}");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{all}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(work.served("tested")["digest"], digest);
}

#[test]
fn the_fourth_framework_is_served_by_a_host_that_was_there_before_it() {
    let work = Workplace::new();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(root().join("examples/accelerate"))
        .arg(work.folder.path())
        .status();
    assert!(copied.unwrap().success());
    let message = work.done(&["build", "accelerate"]);
    assert!(message.contains("3 tests included"), "{message}");
    work.put(&work.folder.path().join("accelerate/build/accelerate.wasm"));
    work.served("accelerate");
    let job = work.folder.path().join("accelerate/tests/two-nodes.json");
    let request: Value = serde_json::from_slice(&std::fs::read(&job).unwrap()).unwrap();
    let (status, preview) = work.server.post("/train/preview", &request).unwrap();
    assert_eq!(status, 200, "{preview}");
    assert_eq!(preview["command"][0], "accelerate");
    let mut wrong = request.clone();
    wrong["extra_args"]["mixed_precision"] = json!("fp17");
    let (status, problem) = work.server.post("/train/preview", &wrong).unwrap();
    assert_eq!(status, 400);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("mixed_precision"),
        "{problem}"
    );
}

/// An exception in `plan` of a plugin: its author sees it, and so does the log of a host, but not the
/// caller.
fn an_exception_reaches_its_author(language: &str, app: &str, (from, to): (&str, &str)) {
    let work = Workplace::new();
    work.done(&["new", "fresh", "--language", language]);
    let app = work.folder.path().join("fresh").join(app);
    let text = std::fs::read_to_string(&app).unwrap();
    assert!(text.contains(from));
    std::fs::write(&app, text.replacen(from, &format!("{to}\n{from}"), 1)).unwrap();
    work.done(&["build", "fresh"]);
    let file = work.folder.path().join("fresh/build/fresh.wasm");
    let path = file.display().to_string();
    let job = work.folder.path().join("fresh/tests/two-nodes.json");
    let run = work.plugin(&["run", &path, &job.display().to_string()]);
    assert!(!run.status.success());
    let shown = String::from_utf8_lossy(&run.stderr);
    assert!(shown.contains("the plugin says: "), "{shown}");
    assert!(
        shown.contains("no such size") && shown.contains("app."),
        "{shown}"
    );

    work.put(&file);
    work.served("fresh");
    let request: Value = serde_json::from_slice(&std::fs::read(&job).unwrap()).unwrap();
    let (status, problem) = work.server.post("/train/preview", &request).unwrap();
    assert_eq!(status, 502, "{problem}");
    assert!(!problem.to_string().contains("no such size"), "{problem}");
    let log = work.site.service_log();
    assert!(log.contains("no such size"), "{log}");
}

#[test]
fn an_exception_in_python_reaches_its_author() {
    let raise = "        raise ValueError(\"no such size\")";
    an_exception_reaches_its_author("python", "app.py", ("        refuse(job, given)", raise));
}

#[test]
fn an_exception_in_javascript_reaches_its_author() {
    let throws = "    throw new Error(\"no such size\");";
    match is_there("npm") {
        true => {
            let place = ("    refuse(job, given);", throws);
            an_exception_reaches_its_author("javascript", "app.js", place);
        }
        false => println!("left out: npm is not on this machine"),
    }
}

#[test]
fn what_is_wrong_is_told_in_a_line() {
    let work = Workplace::new();
    for (arguments, message) in [
        (
            &["new", "Upper", "--language", "rust"][..],
            "is not a valid framework name",
        ),
        (&["build", "."], "Cargo.toml, app.py or app.js"),
        (&["build", "nowhere"], "folder nowhere does not exist"),
        (&["inspect", "nothing.wasm"], "No such file"),
        (
            &["push", "x.wasm", "registry.example.com/x"],
            "is not a registry address",
        ),
    ] {
        let output = work.plugin(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            error.starts_with("error: ") && error.contains(message),
            "{error}"
        );
    }
}
