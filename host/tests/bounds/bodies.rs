//! Bodies that are as expensive as they can be: each family aims at one part of the service.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::MIB;
use crate::service::request;

/// What the bodies of a family have too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    UnknownFields,
    LongNames,
    UnderLongNames,
    Misspelt,
    Duplicates,
    Arrays,
    Objects,
    Numbers,
    Environment,
    Labels,
    Annotations,
    Arguments,
    ArgumentList,
    LongTexts,
    Escapes,
    Broken,
    Mutated,
    Mixed,
}

use Family::*;

pub const FAMILIES: [Family; 18] = [
    UnknownFields,
    LongNames,
    UnderLongNames,
    Misspelt,
    Duplicates,
    Arrays,
    Objects,
    Numbers,
    Environment,
    Labels,
    Annotations,
    Arguments,
    ArgumentList,
    LongTexts,
    Escapes,
    Broken,
    Mutated,
    Mixed,
];

/// Everything that a body is made of.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    family: Family,
    seed: u64,
    /// The approximate size in bytes.
    size: usize,
}

impl Recipe {
    /// The body of a family for a seed: half of them as large as a body may be.
    pub fn sampled(family: Family, seed: u64) -> Self {
        let mut random = Random::new(seed ^ ((family as u64) << 32));
        let size = match random.below(2) {
            0 => MIB - 4096,
            _ => 64 << random.below(14),
        };
        Self { family, seed, size }
    }

    pub fn body(self) -> Vec<u8> {
        let mut random = Random::new(self.seed);
        let mut body = self.family.body(self.size, &mut random);
        body.truncate(MIB);
        body
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} {} {}", self.family, self.seed, self.size)
    }
}

impl FromStr for Recipe {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [family, seed, size, ..] = words[..] else {
            return Err(line.to_string());
        };
        let named = |known: &Family| format!("{known:?}") == family;
        Ok(Self {
            family: FAMILIES.into_iter().find(named).ok_or(line)?,
            seed: seed.parse().map_err(|_| line)?,
            size: size.parse().map_err(|_| line)?,
        })
    }
}

impl Family {
    fn body(self, size: usize, random: &mut Random) -> Vec<u8> {
        let framework = random.of(&["meta", "hf", "nemo", "HF", "none"]);
        let mut body = request("model", "run-1");
        body["framework"] = json!(framework);
        match self {
            UnknownFields => extend(&mut body, members(size, random)),
            LongNames => {
                let (name, value) = (random.text(size), random.value(2));
                let place = random.of(&["", "extra_args", "env", "labels", "annotations"]);
                put(&mut body, place, [(name, value)].into_iter().collect());
            }
            UnderLongNames => {
                let (name, values) = (random.text(size / 2), members(size / 2, random));
                let place = random.of(&["", "extra_args", "env", "labels", "annotations"]);
                put(
                    &mut body,
                    place,
                    [(name, values.into())].into_iter().collect(),
                );
            }
            Misspelt => {
                let fields = [
                    "num_node",
                    "gpu_per_nodes",
                    "checkpoint_base_url",
                    "datasett_uri",
                ];
                let name = |at: usize| format!("{}{at}", fields[at % fields.len()]);
                let count = (size / 24).min(19_000);
                let place = random.of(&["", "extra_args"]);
                let all = (0..count).map(|at| (name(at), json!(1))).collect();
                put(&mut body, place, all);
            }
            Duplicates => return duplicates(size, random),
            Arrays => {
                let depth = 1 + random.below(120);
                let width = random.below(4);
                body[random.of(&["extra_args", "env", "model_id", "x"])] =
                    nested(depth, width, random);
                let many = vec![json!([]); (size / 3).min(19_000)];
                body[random.of(&["labels", "extra_args", "y"])] = many.into();
            }
            Objects => {
                let one = random.of(&[json!({"": 1}), json!({}), json!({"a": {"b": {}}})]);
                let count = (size / one.to_string().len()).min(random.of(&[9_000, 30_000]));
                let place = random.of(&["extra_args", "model_id", "z", "labels"]);
                body[place] = vec![one; count].into();
            }
            Numbers => {
                let digits = "9".repeat(1 + random.below(size.min(400)));
                let many = vec![digits; (size / 400).clamp(1, 2000)].join(",");
                let sign = random.of(&["", "-", "1e", "0."]);
                let name = random.of(&["num_nodes", "extra_args", "lr"]);
                return format!("{{\"{name}\":[{sign}{many}],\"framework\":\"{framework}\"}}")
                    .into();
            }
            Environment => put(&mut body, "env", members(size, random)),
            Labels => put(&mut body, "labels", members(size, random)),
            Annotations => put(&mut body, "annotations", members(size, random)),
            Arguments => put(&mut body, "extra_args", members(size, random)),
            ArgumentList => {
                let item = random.of(&[
                    json!(1),
                    json!("q_proj"),
                    json!(null),
                    json!(["a"]),
                    json!("--x"),
                ]);
                let count = (size / 4).min(random.of(&[100, 9_000, 19_000, 400_000]));
                let name = random.of(&["lora_target_modules", "report_to", "unknown", "lr"]);
                let name = name.to_string();
                put(
                    &mut body,
                    "extra_args",
                    [(name, vec![item; count].into())].into_iter().collect(),
                );
            }
            LongTexts => {
                let name = random.of(&[
                    "framework",
                    "model_id",
                    "run_id",
                    "checkpoint_base_uri",
                    "dataset_uri",
                    "image",
                    "config_path",
                    "namespace",
                    "job_name",
                ]);
                let prefix = random.of(&["", "s3://bucket/", "file:///", "https://a/"]);
                body[name] = format!("{prefix}{}", random.text(size)).into();
            }
            Escapes => {
                let text = random.of(&["\u{0}", "\u{1b}", "\"", "\\", "\u{7f}", "é", "😀"]);
                let long = text.repeat((size / 6).max(1));
                let place = random.of(&["model_id", "env", "labels", "extra_args", "v"]);
                match place {
                    "model_id" | "v" => body[place] = long.into(),
                    _ => put(&mut body, place, [(long, json!("x"))].into_iter().collect()),
                }
            }
            Broken => {
                let family = random.of(&FAMILIES[..13]);
                let mut bytes = family.body(size, random);
                bytes.truncate(random.below(bytes.len().max(1)));
                return bytes;
            }
            Mutated => {
                let family = random.of(&FAMILIES[..13]);
                let mut bytes = family.body(size, random);
                for _ in 0..=random.below(8) {
                    let at = random.below(bytes.len().max(1));
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = random.of(b"{}[]\",:0a\\\x00\xff");
                    }
                }
                return bytes;
            }
            Mixed => {
                for place in ["", "extra_args", "env", "labels", "annotations"] {
                    put(&mut body, place, members(size / 5, random));
                }
            }
        }
        body.to_string().into_bytes()
    }
}

/// Members of a total size: few with long values, or many with short ones.
fn members(size: usize, random: &mut Random) -> Map<String, Value> {
    let count = [3, 60, 120, 255, 2_000, 9_000, 19_000][random.below(7)];
    let count = count.min(size / 8).max(1);
    let each = size / count;
    let longest_name = random.of(&[8, 60, 64, 200]);
    let mut members = Map::new();
    for at in 0..count {
        let name = random.text(each.min(longest_name).saturating_sub(6));
        let value = match random.below(6) {
            0 => random.value(2),
            _ => random.text(each.saturating_sub(name.len() + 8)).into(),
        };
        members.insert(format!("{name}{at}"), value);
    }
    members
}

/// A name repeated under a parent whose own name is long.
fn duplicates(size: usize, random: &mut Random) -> Vec<u8> {
    let parent = "x".repeat(random.below(size));
    let one = random.of(&["\"a\":1", "\"a\":{\"b\":1,\"b\":2}", "\"\\u0061\":1"]);
    let count = (size.saturating_sub(parent.len()) / (one.len() + 1)).max(2);
    let many = vec![one; count.min(random.of(&[9_000, 80_000]))].join(",");
    format!("{{\"{parent}\":{{{many}}}}}").into_bytes()
}

fn nested(depth: usize, width: usize, random: &mut Random) -> Value {
    let mut value = random.value(1);
    for _ in 0..depth {
        value = match random.below(2) {
            0 => json!([value]),
            _ => json!({"a": value}),
        };
    }
    vec![value; width + 1].into()
}

fn extend(body: &mut Value, members: Map<String, Value>) {
    if let Value::Object(all) = body {
        all.extend(members);
    }
}

fn put(body: &mut Value, place: &str, members: Map<String, Value>) {
    match place {
        "" => extend(body, members),
        place => body[place] = Value::Object(members),
    }
}

/// What a body is made from: the same for a seed.
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit.max(1))
    }

    pub fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// A text of a size, or a few bytes less.
    pub fn text(&mut self, size: usize) -> String {
        let piece = self.of(&[
            "a",
            "num_nodes_",
            "/~1",
            "\n",
            "é",
            "$(RANK)",
            "$",
            "lr.",
            "\u{1}",
            "--",
        ]);
        // JSON writes a control character in six bytes.
        let written = json!(piece).to_string().len() - 2;
        piece.repeat(size / written)
    }

    pub fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(self.0.u64(..)),
            3 => json!(f64::from_bits(self.0.u64(..))),
            4 => self.of(&["", "x", "1e-4", "s3://b/x"]).into(),
            5 => json!([self.value(depth - 1)]),
            _ => json!({"a": self.value(depth - 1)}),
        }
    }
}
