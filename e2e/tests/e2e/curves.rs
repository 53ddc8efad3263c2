//! The commands that show runs: `watch`, `metrics`, `compare` and `list`, in a pipe and on a terminal;
//! and those that change several.

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::{Server, Site};
use serde_json::{Value, json};

use crate::client;

/// A replica that reports ten steps, in which the loss falls from 19.5 to 10.5.
const REPORTS: &str = r#"#!/bin/sh
for step in 1 2 3 4 5 6 7 8 9 10; do
  printf '{"event": "progress", "step": %s, "total_steps": 10, "loss": %s.5, "tokens_per_second": 100, "seconds_left": 1}\n' \
    $step $((20 - step))
  sleep 0.5
done
"#;

/// The longest line that a terminal of 80 columns shows as one.
const COLUMNS: usize = 80;

struct Session {
    server: Server,
    site: Site,
}

impl Session {
    fn start() -> Self {
        let site = Site::with_launcher(REPORTS).unwrap();
        let server = site.start().unwrap();
        Self { server, site }
    }

    fn submit(&self, run: &str, steps: u32) {
        let request = json!({
            "framework": "meta",
            "model_id": "llama-debug",
            "run_id": run,
            "checkpoint_base_uri": "file:///tmp/trainer-demo/runs",
            "dataset_uri": "file:///tmp/trainer-demo/data/",
            "extra_args": {"max_steps": steps},
        });
        std::fs::create_dir_all("/tmp/trainer-demo/data").unwrap();
        let file = self.site.data.path().join("job.json");
        std::fs::write(file, request.to_string()).unwrap();
        self.run("submit -f job.json");
    }

    fn command(&self, line: &str) -> Output {
        let line = format!("NO_COLOR=1 trainer {line}");
        let mut command = client::command(&self.server, self.site.data.path(), &line);
        command.output().unwrap()
    }

    /// What a command prints into a pipe.
    fn run(&self, line: &str) -> String {
        client::printed(&self.command(line))
    }

    /// What a command prints on a terminal of 80 columns.
    fn on_a_terminal(&self, line: &str) -> String {
        let line = format!("stty cols {COLUMNS} rows 24; NO_COLOR=1 trainer {line}");
        client::on_a_terminal(&self.server, self.site.data.path(), &line)
    }
}

fn fits(text: &str) -> bool {
    text.lines()
        .all(|line| line.trim_end().chars().count() <= COLUMNS)
}

#[test]
fn a_run_is_watched_drawn_and_compared() {
    let session = Session::start();
    session.submit("live", 10);
    let live = session.on_a_terminal("watch meta-live");
    let shown: Vec<&str> = live.split("\r\x1b[K").collect();
    assert!(shown.len() > 2, "{live:?}");
    assert!(
        shown.iter().any(|line| line.contains("/10 loss ")),
        "{live:?}"
    );
    assert!(shown.last().unwrap().starts_with("succeeded: "), "{live:?}");
    assert!(shown.iter().all(|line| fits(line)), "{live:?}");
    session.submit("piped", 20);
    let piped = session.run("watch meta-piped");
    assert!(
        piped.lines().last().unwrap().starts_with("succeeded: "),
        "{piped}"
    );
    assert!(!piped.contains(['\r', '\x1b']), "{piped:?}");

    for chart in [
        session.run("metrics meta-live"),
        session.on_a_terminal("metrics meta-live"),
    ] {
        assert!(chart.starts_with("loss"), "{chart}");
        assert!(
            chart.contains("19.500 |*") && chart.contains("10.500 |"),
            "{chart}"
        );
        assert!(chart.contains("step 1 ") && fits(&chart), "{chart}");
    }
    let csv = session.run("metrics meta-live -o csv");
    assert_eq!(csv.lines().count(), 11, "{csv}");
    let metrics: Value = serde_json::from_str(&session.run("metrics meta-live -o json")).unwrap();
    assert_eq!(metrics["points"][9]["loss"], 10.5);
    let none = session.run("metrics meta-live --metric eval_loss");
    assert_eq!(none, "");

    let compared = session.run("compare meta-live meta-piped");
    let row = |name: &str| {
        let mut rows = compared
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.find(|row| row.first() == Some(&name))
            .map(|row| row[1..].join(" "))
    };
    assert_eq!(
        row("extra_args.max_steps").as_deref(),
        Some("10 20"),
        "{compared}"
    );
    assert_eq!(
        row("status").as_deref(),
        Some("succeeded succeeded"),
        "{compared}"
    );
    assert_eq!(row("framework"), None, "{compared}");
    assert!(
        compared.contains("* meta-live") && compared.contains("o meta-piped"),
        "{compared}"
    );
}

#[test]
fn all_jobs_are_listed_as_they_change() {
    let session = Session::start();
    let long = "a".repeat(40);
    session.submit(&long, 10);
    let watched = session.on_a_terminal("list --watch & sleep 4; kill $!; echo");
    let (_, table) = watched.rsplit_once("\x1b[H\x1b[J").unwrap();
    assert!(table.starts_with("NAME"), "{watched:?}");
    assert!(watched.contains("/10 "), "{watched:?}");
    assert!(fits(table), "{table}");
    let listed = session.on_a_terminal("list");
    assert!(fits(&listed) && listed.contains("meta-aaa"), "{listed}");
    session.submit("running", 10);
    let mut lists = (0..20).map(|_| session.on_a_terminal("list --status running"));
    let running = lists.find(|listed| listed.contains("/10 ")).unwrap();
    assert!(fits(&running) && running.contains(".5000"), "{running}");
    assert!(session.run("list").contains(&long));

    let piped = session
        .command("list --watch --framework meta & sleep 4; kill $!")
        .stdout;
    let piped = String::from_utf8(piped).unwrap();
    assert!(
        piped.contains(&format!("default/meta-{long} succeeded\n")),
        "{piped}"
    );
}

#[test]
fn several_jobs_are_changed_by_name_or_label_and_one_failure_does_not_stop_the_others() {
    let session = Session::start();
    for run in ["one", "two", "three"] {
        session.submit(run, 10);
    }
    let output = session.command("delete meta-one meta-no-such-1 meta-no-such-2 meta-two");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{errors}");
    let deleted = String::from_utf8(output.stdout).unwrap();
    assert_eq!(deleted, "meta-one was deleted\nmeta-two was deleted\n");
    for missing in ["meta-no-such-1", "meta-no-such-2"] {
        assert!(errors.contains(missing), "{errors}");
    }
    let selector = "trainer.deepfinery/run-id=three";
    let selected = session.run(&format!("delete -l {selector}"));
    assert_eq!(selected, "meta-three was deleted\n");
    assert_eq!(session.run(&format!("delete -l {selector}")), "");
}

const MILLION: u64 = 1_000_000;

/// Alone, since what else the machine does decides how long it takes.
#[test]
#[ignore = "measures time and memory: make bench-logs"]
fn the_metrics_of_a_million_steps_arrive_within_a_second() {
    let launcher = format!(
        "#!/bin/sh\nexec awk 'BEGIN {{ for (i = 1; i <= {MILLION}; i++) printf(\"{{\\\"event\\\": \\\"progress\\\", \
         \\\"step\\\": %d, \\\"total_steps\\\": {MILLION}, \\\"loss\\\": %.4f, \\\"learning_rate\\\": 0.0003, \
         \\\"tokens_per_second\\\": 51234.5, \\\"seconds_left\\\": 12.5}}\\n\", i, 2 + 8 / i) }}'\n"
    );
    let site = Site::with_launcher(&launcher).unwrap();
    let server = site.start().unwrap();
    let request = e2e::training(site.data.path(), "long", 1).unwrap();
    let job = server.submit(&request).unwrap();
    server.wait_for(&job, "succeeded").unwrap();
    let before = server.resident_memory().unwrap();
    let answered = AtomicBool::new(false);
    let (took, metrics, most) = std::thread::scope(|scope| {
        let measured = scope.spawn(|| {
            let mut most = before;
            while !answered.load(Ordering::Relaxed) {
                most = most.max(server.resident_memory().unwrap());
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let begun = Instant::now();
        let (status, metrics) = server.get(&format!("/train/{job}/metrics")).unwrap();
        let took = begun.elapsed();
        answered.store(true, Ordering::Relaxed);
        assert_eq!(status, 200, "{metrics}");
        (took, metrics, measured.join().unwrap())
    });
    let grown = most.saturating_sub(before) / 1_000_000;
    println!("{MILLION} steps: the metrics in {took:?}, the service grew by {grown} MB");
    let points = metrics["points"].as_array().unwrap();
    assert_eq!(points[0]["step"], 1);
    assert_eq!(points.last().unwrap()["step"], MILLION);
    assert!(points.len() <= 500);
    assert!(took <= Duration::from_secs(1), "{took:?}");
    assert!(grown <= 20, "{grown} MB");
}
