//! Inputs that people might send, and most of which are wrong.

use serde_json::{Value, json};

/// Choices that follow from a seed.
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number below another one.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end.max(1))
    }

    pub fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// Names of fields, arguments and parameters.
const NAMES: &[&str] = &[
    "framework",
    "model_id",
    "run_id",
    "checkpoint_base_uri",
    "dataset_uri",
    "image",
    "num_nodes",
    "gpus_per_node",
    "cpus_per_node",
    "memory_per_node_gb",
    "config_path",
    "resume_from_checkpoint",
    "overwrite",
    "extra_args",
    "env",
    "labels",
    "annotations",
    "namespace",
    "job_name",
    "model",
    "dataset",
    "gpus",
    "lr",
    "batch_size",
    "max_steps",
    "bf16",
    "report_to",
    "monitor",
    "RANK",
    "PATH",
    "WANDB_API_KEY",
    "A/B",
    "team",
    "kubernetes.io/x",
    "view",
    "follow",
    "tail",
    "points",
    "page_size",
    "status",
    "label_selector",
    "dry_run",
    "replica",
    "since",
    "surprise",
];

/// Values as JSON has them.
fn value(random: &mut Random) -> Value {
    match random.below(24) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(1.5),
        4 => json!(5_000_000_000_u64),
        5 => json!(1e300),
        6 => json!(""),
        7 => json!("x".repeat(700)),
        8 => json!([]),
        9 => json!([1, [2]]),
        10 => json!({}),
        11 => json!({"a": {"b": 1}}),
        12 => json!({name(random): value(random)}),
        13 => json!("--foo"),
        14 => json!("a b"),
        15 => json!("\u{7}"),
        16 => json!("HF"),
        17 => json!("s3://Bucket/x y"),
        18 => json!("https://host:99999/a"),
        19 => json!("docker://a:b:c"),
        20 => json!("4"),
        21 => json!(["a", null]),
        22 => json!("ftp://x/y"),
        _ => json!("fast"),
    }
}

/// A name, or a slip of one.
pub fn name(random: &mut Random) -> String {
    let name = random.one(NAMES).to_string();
    if random.below(3) > 0 || name.len() < 4 {
        return name;
    }
    let at = 1 + random.below(name.len() - 2);
    match random.below(3) {
        0 => format!("{}{}", &name[..at], &name[at + 1..]),
        1 => format!("{}q{}", &name[..at], &name[at..]),
        _ => name.to_uppercase(),
    }
}

/// A request with some members replaced or added.
pub fn request(random: &mut Random) -> Value {
    let mut request = crate::service::request("x", "run-1");
    if random.below(3) == 0 {
        request["framework"] = json!(["hf", "nemo", "HF", "mta"][random.below(4)]);
    }
    for _ in 0..1 + random.below(3) {
        let (name, value) = (name(random), value(random));
        match random.below(4) {
            0 => request["extra_args"] = json!({name: value}),
            1 => request["env"] = json!({name: value}),
            2 => request["labels"] = json!({name: value}),
            _ => request[name] = value,
        }
    }
    request
}

/// A text with some characters removed, added or repeated.
pub fn damaged(random: &mut Random, text: &str, with: &[&str]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..1 + random.below(2) {
        let at = random.below(characters.len());
        match random.below(5) {
            0 => drop(characters.remove(at)),
            1 => characters.truncate(at.max(1)),
            2 => {
                let added: Vec<char> = random.one(with).chars().collect();
                characters.splice(at..at, added);
            }
            3 => {
                let end = (at + 1 + random.below(12)).min(characters.len());
                drop(characters.drain(at..end));
            }
            _ => {
                let end = (at + 1 + random.below(20)).min(characters.len());
                let again: Vec<char> = characters[at..end].to_vec();
                characters.splice(at..at, again);
            }
        }
        if characters.is_empty() {
            characters.push(' ');
        }
    }
    characters.into_iter().collect()
}

/// A body in JSON.
pub fn json_body(random: &mut Random) -> String {
    let request = request(random);
    let text = match random.below(2) {
        0 => request.to_string(),
        _ => serde_json::to_string_pretty(&request).unwrap(),
    };
    let signs = [
        "{", "}", "[", "]", ",", ":", "\"", "'", "// x\n", "NaN", "True", "01", "\\q", "\n", "\t",
        "1e999",
    ];
    match random.below(6) {
        0 => damaged(random, &text, &signs),
        1 => random
            .one(&[
                "", " ", "[]", "1", "null", "\"x\"", "{}", "[{}]", "{a: 1}", "# x",
            ])
            .to_string(),
        _ => text,
    }
}

/// What people write in YAML without quotes.
const UNQUOTED: &[&str] = &[
    "NO",
    "yes",
    "on",
    "0755",
    "0o17",
    "1_000",
    "001",
    "1e3",
    "2024-01-31",
    "~",
    "",
    "1.10",
    "1:30",
    "0x1F",
    "18446744073709551616",
    ".inf",
    "!env X",
    "!!binary aGk=",
    "*nowhere",
    "&anchor a",
    "@at",
    "%percent",
    "`tick",
    "[1, 2",
    "{a: 1",
    "\"open",
    "'open",
    "\"\\q\"",
    "a: b",
    "- a",
    "| x",
    "> 5",
    "{a: 1, a: 2}",
    "[a, [b]]",
    "true",
    "3",
    "text",
    "a # b",
    "? x",
    "<<",
];

/// A file in YAML with a request.
pub fn yaml_request(random: &mut Random) -> String {
    let mut text = "framework: meta\nmodel_id: x\nrun_id: run-1\ncheckpoint_base_uri: s3://b/r\n\
                    dataset_uri: s3://b/d/\n"
        .to_string();
    for _ in 0..1 + random.below(3) {
        let (name, value) = (name(random), random.one(UNQUOTED));
        match random.below(4) {
            0 => text.push_str(&format!("extra_args:\n  {name}: {value}\n")),
            1 => text.push_str(&format!("env: {{{name}: {value}}}\n")),
            2 => text.push_str(&format!("{value}: {name}\n")),
            _ => text.push_str(&format!("{name}: {value}\n")),
        }
    }
    match random.below(4) {
        0 => damaged(
            random,
            &text,
            &[
                "\t", "  ", "- ", ": ", "---\n", "&a ", "*a", "!x ", "\"", "'", "{", "]", "|",
            ],
        ),
        _ => text,
    }
}

/// A file of settings in YAML: names of its members with values of any kind.
pub fn yaml_settings(random: &mut Random, beginning: &str, names: &[&str]) -> String {
    let mut text = beginning.to_string();
    for _ in 0..1 + random.below(3) {
        let slip = format!("{}x", random.one(names));
        let name = if random.below(4) == 0 {
            slip
        } else {
            random.one(names).to_string()
        };
        let value = random.one(UNQUOTED);
        let indent = " ".repeat(2 * random.below(3));
        text.push_str(&format!("{indent}{name}: {value}\n"));
    }
    match random.below(4) {
        0 => damaged(random, &text, &["\t", "  ", "- ", ": ", "---\n", "{", "]"]),
        _ => text,
    }
}

/// A file in TOML.
pub fn toml_settings(random: &mut Random) -> String {
    let tables = [
        "[host]",
        "[defaults]",
        "[require]",
        "[[plugin]]",
        "[limits]",
        "[plugin",
    ];
    let names = [
        "concurrency",
        "queue_ms",
        "time_ms",
        "memory_mib",
        "digest",
        "keys",
        "source",
        "name",
        "limits",
        "signed_as",
        "timems",
    ];
    let values = [
        "1",
        "-1",
        "0",
        "1.5",
        "true",
        "\"x\"",
        "\"a.wasm\"",
        "\"http://x\"",
        "[]",
        "[1]",
        "{ a = 1 }",
        "2024-01-31",
        "99999999999999999999",
        "x",
        "\"open",
        "",
    ];
    let mut text = String::new();
    for _ in 0..1 + random.below(3) {
        let (table, name, value) = (random.one(&tables), random.one(&names), random.one(&values));
        text.push_str(&format!("{table}\n{name} = {value}\n"));
    }
    text
}

/// A query.
pub fn query(random: &mut Random) -> String {
    let values = [
        "",
        "1",
        "-1",
        "x",
        "true",
        "full",
        "ful",
        "99999999999999999999",
        "1.5",
        "a=b",
        "a in (b",
        "%20",
        "10q",
        "2024-13-01T00:00:00Z",
        "master-9",
        "all",
        "running",
        "runing",
        "%ff",
        "a,b",
        "server",
    ];
    let mut pairs: Vec<String> = Vec::new();
    for _ in 0..1 + random.below(3) {
        pairs.push(format!("{}={}", name(random), random.one(&values)));
    }
    pairs.join("&")
}
