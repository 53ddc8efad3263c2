//! Every way in which a plugin can attack its host that we could think of, through each export and
//! each field of its answers. The snapshot has what was answered.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trainer_host::plugin::Reload;

use crate::abi::{ANSWER, DESCRIPTION, Handmade, WORD};
use crate::service::{Service, hostile_plugin, meta_with, request, with_attack};

/// No attack may begin a rest, and none may take long.
const SETTINGS: &str = "[defaults]\ntime_ms = 300\nfailures = 1000\n";
/// What an answer may take: the limit, the time to notice, and a machine with other work.
const LONGEST: Duration = Duration::from_secs(8);

const ON_DESCRIBE: &[&str] = &[
    "loop",
    "allocate",
    "recurse",
    "recurse-natively",
    "trap",
    "divide",
    "grow",
    "overflow-index",
    "bad-name",
    "empty-name",
    "long-name",
    "upper-name",
    "unicode-name",
    "nul-name",
    "huge-name",
    "empty-version",
    "long-version",
    "nul-version",
    "two-lines",
    "huge-summary",
    "escape-summary",
    "bad-schema",
    "not-json",
    "remote",
    "remote-file",
    "huge-schema",
    "deep-schema",
    "schema-number",
    "bad-pattern",
    "back-reference",
];

const ON_PLAN: &[&str] = &[
    "loop",
    "allocate",
    "recurse",
    "recurse-natively",
    "trap",
    "divide",
    "grow",
    "overflow-index",
    "large-answer",
    "many-words",
    "long-word",
    "large-command",
    "empty-command",
    "empty-program",
    "nul",
    "many-variables",
    "empty-variable",
    "nul-variable",
    "long-value",
    "nul-value",
    "identity",
    "operator",
    "variable",
    "twice",
    "layout",
    "layout-up",
    "layout-beside",
    "layout-new-line",
    "layout-space",
    "layout-double-slash",
    "layout-long",
    "prefix-empty",
    "prefix-above",
    "prefix-of-another-run",
    "checkpoints-elsewhere",
    "config-elsewhere",
    "run-config-up",
    "pattern",
    "pattern-long",
    "not-json",
    "not-an-object",
    "resolved-deep",
    "resolved-large",
    "resolved-number",
    "extensions",
    "extensions-deep",
    "extensions-large",
    "extensions-array",
    "parallel-text",
    "parallel-negative",
    "warnings",
    "warning-long",
    "no-reason",
    "long-reason",
    "many-reasons",
];

fn handmade() -> Vec<(&'static str, Handmade)> {
    let new = Handmade::default;
    let spin = "(loop $l (br $l))";
    let beyond = &[0xff, 0xff, 0xff, 0x7f];
    vec![
        ("start loops", new().start(spin)),
        ("start traps", new().start("unreachable")),
        ("four gigabytes of memory", new().memory("65536")),
        (
            "a table of ten million",
            new().more("(table 10000000 funcref)"),
        ),
        (
            "describe grows a table for ever",
            new().more("(table $t 1 funcref)").describe(
                "(loop $l (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $l))",
            ),
        ),
        (
            "describe answers outside of its memory",
            new().describe("(i32.const -8) return"),
        ),
        (
            "describe answers unaligned",
            new().describe("(i32.const 17) return"),
        ),
        ("a name that is not UTF-8", new().data(1024, b"\xff\xfe")),
        (
            "a name outside of its memory",
            new().data(DESCRIPTION, beyond),
        ),
        (
            "a name of two gigabytes",
            new().data(DESCRIPTION + 4, beyond),
        ),
        (
            "realloc gives memory outside",
            new().realloc("(i32.const -16)"),
        ),
        (
            "realloc gives unaligned memory",
            new().realloc("(i32.const 65537)"),
        ),
        ("realloc traps", new().realloc("unreachable")),
        (
            "realloc loops",
            new().realloc("(loop $l (br $l)) unreachable"),
        ),
        (
            "plan answers outside of its memory",
            new().plan("(i32.const -8)"),
        ),
        ("plan answers a case that is none", new().data(ANSWER, &[7])),
        ("a word of a case that is none", new().data(WORD, &[9])),
        (
            "a command of two thousand million words",
            new().data(ANSWER + 8, beyond),
        ),
        (
            "a list that is everywhere the same",
            new().data(ANSWER + 8, &[0, 0, 1, 0]),
        ),
        ("the clean-up loops", new().post(spin)),
        ("the clean-up traps", new().post("unreachable")),
    ]
}

#[test]
fn an_honest_plugin_made_by_hand_is_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.wasm"), Handmade::default().bytes()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let service = Service::with(folder.path().to_path_buf(), None).await;
        let answer = service.preview(&asking("handmade", "")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    });
}

fn asking(framework: &str, attack: &str) -> Value {
    let mut request = request("x", "run-1");
    request["framework"] = json!(framework);
    if !attack.is_empty() {
        request["extra_args"] = json!({ "attack": attack });
    }
    request
}

struct Attacked {
    service: Service,
    folder: tempfile::TempDir,
    page: String,
    count: usize,
}

impl Attacked {
    async fn new() -> Self {
        let folder = meta_with(SETTINGS);
        Self {
            service: Service::with(folder.path().to_path_buf(), None).await,
            folder,
            page: String::new(),
            count: 0,
        }
    }

    /// Loads a file, and gives the reason if it is refused.
    fn load(&self, bytes: &[u8]) -> Option<String> {
        std::fs::write(self.folder.path().join("attack.wasm"), bytes).unwrap();
        let begun = Instant::now();
        self.service.registry.reload(Reload::Changed);
        assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
        let plugins = self.service.registry.current();
        let refused = plugins.refused().first();
        refused.map(|refused| refused.why())
    }

    async fn ask(&self, framework: &str, attack: &str) -> String {
        let begun = Instant::now();
        let answer = self.service.preview(&asking(framework, attack)).await;
        assert!(begun.elapsed() < LONGEST, "{attack}: {:?}", begun.elapsed());
        assert_eq!(answer.status, 502, "{attack} is answered");
        let problem = answer.problem(502);
        format!("502 {}", problem["detail"].as_str().unwrap())
    }

    async fn note(&mut self, how: &str, name: &str, answer: &str) {
        let line: String = answer.split_whitespace().collect::<Vec<_>>().join(" ");
        writeln!(self.page, "{how} {name}\n    {line}").unwrap();
        self.count += 1;
        let other = self.service.preview(&request("x", "run-1")).await;
        assert_eq!(other.status, 200, "after {name}");
    }
}

#[tokio::test]
async fn every_attack_is_refused_or_answered_502_inside_its_limit() {
    let mut attacked = Attacked::new().await;
    for attack in ON_DESCRIBE {
        let bytes = with_attack(attack);
        let refused = attacked
            .load(&bytes)
            .unwrap_or_else(|| panic!("{attack} is served"));
        attacked.note("describe:", attack, &refused).await;
    }
    for (name, plugin) in handmade() {
        let answer = match attacked.load(&plugin.bytes()) {
            Some(refused) => refused,
            None => attacked.ask("handmade", "").await,
        };
        attacked.note("by hand:", name, &answer).await;
    }
    assert_eq!(
        attacked.load(&std::fs::read(hostile_plugin()).unwrap()),
        None
    );
    let before = resident_kib();
    for attack in ON_PLAN {
        let answer = attacked.ask("hostile", attack).await;
        attacked.note("plan:", attack, &answer).await;
    }
    assert!(attacked.count >= 60, "{}", attacked.count);
    // What a failed call had is given back: no attack keeps more than a few slots of the pool warm.
    let after = resident_kib();
    println!(
        "{} attacks; resident {before} KiB before those on plan, {after} after",
        attacked.count
    );
    assert!(after < before + 48 * 1024, "{before} KiB, then {after} KiB");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("hostile", attacked.page));
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}
