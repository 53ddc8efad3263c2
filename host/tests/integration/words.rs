//! The errors for thousands of bad inputs use the terms of this project and name a place and a
//! remedy. `TRAINER_WORDS_SEED` and `TRAINER_WORDS_INPUTS` select other inputs and their number.

mod inputs;
mod judge;

use std::collections::BTreeMap;
use std::path::Path;

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;
use trainer_host::cli::client::commands;
use trainer_host::cli::client::output::Style;
use trainer_host::cli::client::source::Source;
use trainer_host::cli::{Command, CommandLine};
use trainer_host::plugin::Limits;
use trainer_host::plugin::settings::PluginSettings;

use crate::service::{Answer, Service};
use inputs::Random;
use judge::{Told, verdict};

/// Errors that are looked at where nobody says otherwise.
const INPUTS: usize = 5000;

/// What was held against the rules.
#[derive(Default)]
struct Held {
    /// Errors by where they came from.
    errors: BTreeMap<&'static str, usize>,
    broken: Vec<String>,
}

impl Held {
    fn hold(&mut self, of: &'static str, message: &Told) {
        *self.errors.entry(of).or_default() += 1;
        if let Some(why) = verdict(message) {
            let Told {
                input, sentence, ..
            } = message;
            self.broken
                .push(format!("{of} {input:?}\n  {why}: {sentence}"));
        }
    }

    /// Every finding of a problem document, or its detail.
    fn problem(&mut self, of: &'static str, input: &str, answer: &Answer) {
        let problem = answer.problem(answer.status.as_u16());
        let findings = problem["errors"].as_array();
        let part = |finding: &'_ Value, member: &str| finding[member].as_str().unwrap().to_string();
        let message = match findings {
            Some(findings) => findings
                .iter()
                .map(|finding| (part(finding, "pointer"), part(finding, "detail")))
                .collect(),
            None => vec![(String::new(), part(&problem, "detail"))],
        };
        for (place, sentence) in message {
            let (place, sentence) = (place.as_str(), sentence.as_str());
            self.hold(
                of,
                &Told {
                    input,
                    place,
                    sentence,
                },
            );
        }
    }

    /// The output of a command for a file: each title, with the lines of the file that it shows.
    fn report(&mut self, of: &'static str, input: &str, report: &str) {
        let place = if report.contains("--> ") { "file" } else { "" };
        let is_said = |line: &&str| line.starts_with("error") || line.contains("= help: ");
        for line in report.lines().filter(is_said) {
            let sentence = line.split_once("= help: ").map_or(line, |(_, help)| help);
            let place = if sentence == line { place } else { "file" };
            self.hold(
                of,
                &Told {
                    input,
                    place,
                    sentence,
                },
            );
        }
    }

    fn total(&self) -> usize {
        self.errors.values().sum()
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap())
}

#[tokio::test]
async fn every_error_of_thousands_says_where_and_what_to_do_in_plain_words() {
    let seed = setting("TRAINER_WORDS_SEED", 20_261_128);
    let wanted = setting("TRAINER_WORDS_INPUTS", INPUTS as u64) as usize;
    println!("TRAINER_WORDS_SEED={seed}");
    let mut random = Random::new(seed);
    let mut held = Held::default();
    let service = Service::start().await;
    let guarded = Service::with_token("secret").await;
    let folder = tempfile::tempdir().unwrap();
    let mut turns = 0;
    while held.total() < wanted {
        turns += 1;
        assert!(turns < wanted, "too few of the inputs are wrong");
        bodies(&service, &mut random, &mut held).await;
        queries(&service, &mut random, &mut held).await;
        headers(&service, &guarded, &mut random, &mut held).await;
        files(&service, &mut random, &mut held).await;
        command_lines(&mut random, &mut held);
        settings(folder.path(), &mut random, &mut held);
    }
    println!("{:?}", held.errors);
    for of in [
        "body",
        "query",
        "header",
        "file",
        "command line",
        "configuration",
        "profiles",
        "plugins.toml",
    ] {
        let count = held.errors.get(of).copied().unwrap_or_default();
        assert!(count >= wanted / 100, "{of}: {count}");
    }
    let shown = held.broken.iter().take(40).cloned().collect::<Vec<_>>();
    assert!(
        held.broken.is_empty(),
        "{} of {} errors\n{}",
        held.broken.len(),
        held.total(),
        shown.join("\n")
    );
}

async fn bodies(service: &Service, random: &mut Random, held: &mut Held) {
    for _ in 0..4 {
        let body = inputs::json_body(random);
        let answer = service.post("/train/preview", body.clone()).await;
        assert!(!answer.status.is_server_error(), "{body}: {}", answer.text);
        if !answer.status.is_success() {
            held.problem("body", &body, &answer);
        }
    }
}

async fn queries(service: &Service, random: &mut Random, held: &mut Held) {
    const ROUTES: [(&str, &str); 8] = [
        ("GET", "/train"),
        ("GET", "/train/meta-none"),
        ("GET", "/train/meta-none/logs"),
        ("GET", "/train/meta-none/metrics"),
        ("DELETE", "/train/meta-none"),
        ("POST", "/train/meta-none/suspend"),
        ("GET", "/frameworks/metta"),
        ("PUT", "/train"),
    ];
    let (method, path) = ROUTES[random.below(ROUTES.len())];
    let query = inputs::query(random);
    let uri = match random.below(8) {
        0 => format!("/{}", inputs::name(random)),
        1 => format!("{path}/{}", inputs::name(random)),
        _ => format!("{path}?{query}"),
    };
    let Ok(request) = Request::builder()
        .method(method)
        .uri(&uri)
        .body(Body::empty())
    else {
        return;
    };
    let answer = service.send(request).await;
    if !answer.status.is_success() {
        held.problem("query", &format!("{method} {uri}"), &answer);
    }
}

async fn headers(service: &Service, guarded: &Service, random: &mut Random, held: &mut Held) {
    let long = "k".repeat(300);
    let kinds: [(&str, &[&str]); 4] = [
        (
            "content-type",
            &[
                "",
                "text/plain",
                "application/xml; x=y",
                "json",
                "application/yaml",
                "*/*",
            ],
        ),
        ("idempotency-key", &["", " ", "a b", "\u{e4}", &long]),
        (
            "host",
            &["evil.example", "evil.example:80", "10.0.0.1.evil.example"],
        ),
        ("x-trainer-token", &["", "wrong", "Bearer secret"]),
    ];
    let (name, values) = kinds[random.below(kinds.len())];
    let value = random.one(values);
    let request = Request::post("/train").header(name, value.as_bytes());
    let request = match name {
        "content-type" => request,
        _ => request.header("content-type", "application/json"),
    };
    let body = crate::service::request("wait", "header").to_string();
    let Ok(request) = request.body(Body::from(body)) else {
        return;
    };
    let service = if name == "x-trainer-token" {
        guarded
    } else {
        service
    };
    let answer = service.send(request).await;
    if !answer.status.is_success() {
        held.problem("header", &format!("{name}: {value}"), &answer);
    }
}

/// Files of requests, as `trainer submit` and `trainer preview` read and show them.
async fn files(service: &Service, random: &mut Random, held: &mut Held) {
    for _ in 0..2 {
        let text = match random.below(5) {
            0 => inputs::json_body(random),
            _ => inputs::yaml_request(random),
        };
        let (source, request) = match Source::parse("job.yaml", text.clone()) {
            Ok(read) => read,
            Err(report) => {
                held.report("file", &text, &report.to_string());
                continue;
            }
        };
        let answer = service.preview(&request).await;
        if answer.status.is_success() {
            continue;
        }
        let problem = answer.problem(400);
        let findings = serde_json::from_value::<Vec<_>>(problem["errors"].clone()).unwrap();
        held.report("file", &text, &source.report(&findings, Style::Plain));
    }
}

fn command_lines(random: &mut Random, held: &mut Held) {
    const COMMANDS: &[&str] = &[
        "submit",
        "get",
        "list",
        "logs",
        "events",
        "suspend",
        "delete",
        "serve",
        "preview",
        "explain",
        "completion",
        "plugin",
        "submitt",
        "",
    ];
    const OPTIONS: &[&str] = &[
        "--limit",
        "--tail",
        "--output",
        "-o",
        "--listen",
        "--max-connections",
        "--local-slots",
        "--set",
        "--url",
        "--cluster",
        "--local-user",
        "--dataset-schemes",
        "--allowed-origins",
        "--shutdown-grace",
        "--watch",
        "--dry-run",
        "--limt",
        "--local-containment",
        "--log-format",
        "--unknown-arguments",
        "--follow",
        "--previous",
        "--server",
        "-f",
        "x",
    ];
    const VALUES: &[&str] = &[
        "x",
        "-1",
        "1.5",
        "",
        "99999999999999999999",
        "0",
        "127.0.0.1",
        "a:b",
        "jsn",
        "s4",
        "--",
    ];
    let mut words = vec!["trainer", random.one(COMMANDS)];
    for _ in 0..1 + random.below(3) {
        words.push(random.one(OPTIONS));
        if random.below(4) > 0 {
            words.push(random.one(VALUES));
        }
    }
    let Err(error) = CommandLine::read(&words) else {
        return;
    };
    if !error.use_stderr() {
        return;
    }
    let text = error.to_string();
    let sentence = text.split("\n\nUsage").next().unwrap();
    let input = words.join(" ");
    held.hold(
        "command line",
        &Told {
            input: &input,
            place: "",
            sentence,
        },
    );
}

fn settings(folder: &Path, random: &mut Random, held: &mut Held) {
    let file = folder.join("file.yaml");
    let name = file.to_str().unwrap();
    let names = ["current", "servers", "url", "token_file", "a"];
    let text = inputs::yaml_settings(
        random,
        "servers:\n  a: {url: 'http://127.0.0.1:1'}\n",
        &names,
    );
    std::fs::write(&file, &text).unwrap();
    let address = inputs::yaml_settings(random, "", &["x"]);
    let words = match random.below(3) {
        0 => vec!["trainer", "list", "--url", address.trim()],
        _ => vec!["trainer", "list", "--config", name],
    };
    if let Ok(CommandLine {
        command: Command::Client(command),
    }) = CommandLine::read(&words)
        && let Err(failure) = commands::run(command)
        && let Some(report) = failure.report(Style::Plain)
    {
        held.report(
            "configuration",
            &format!("{words:?} {text}"),
            &report.replace('\n', " "),
        );
    }
    let names = [
        "profiles",
        "namespaces",
        "default",
        "a",
        "queue",
        "tolerations",
        "node_selector",
        "volumes",
        "key",
        "backoff_limit",
        "gpu_resource",
        "priority_class",
        "affinity",
        "labels",
    ];
    let text = inputs::yaml_settings(random, "profiles:\n  a:\n    queue: x\n", &names);
    std::fs::write(&file, &text).unwrap();
    let words = ["trainer", "preview", "x", "--profiles", name];
    if let Ok(CommandLine {
        command: Command::Preview(settings),
    }) = CommandLine::read(words)
        && let Err(error) = settings.planning.policy()
    {
        let message = format!("error: {error:#}");
        held.report("profiles", &text, &message.replace('\n', " "));
    }
    let text = inputs::toml_settings(random);
    std::fs::write(folder.join("plugins.toml"), &text).unwrap();
    if let Err(error) = PluginSettings::read(folder, Limits::default()) {
        held.report("plugins.toml", &text, &format!("error: {error}"));
    }
}
