//! Changes a body as JSON: what it changes has the meaning of a request far more often than bytes
//! that are changed anywhere.

use std::sync::LazyLock;

use libfuzzer_sys::fuzzer_mutate;
use serde_json::{Map, Value, json};
use trainer_host::request::json_schema;

use crate::MIB;
use crate::bodies::{FAMILIES, Random, Recipe};
use crate::service::request;

/// Names of arguments and values that some code looks at.
const NAMES: &[&str] = &[
    "lr",
    "max_steps",
    "lora_target_modules",
    "tensor_parallel",
    "batch_size",
    "warmup_ratio",
    "precision",
    "report_to",
    "peft",
    "backend",
    "trainer.deepfinery/profile",
    "PATH",
    "PYTHONPATH",
    "TRAINER_X",
    "HF_TOKEN",
    "num_node",
    "--lr",
    "learning_rate",
    "",
];
const TEXTS: &[&str] = &[
    "meta",
    "hf",
    "nemo",
    "s3://b/x/",
    "file:///tmp/x",
    "pvc://claim/x",
    "https://h/x",
    "1e-4",
    "0x10",
    "true",
    "$(RANK)",
    "$$",
    "a b",
    "-x",
    "\u{1b}[2J",
    "\u{0}",
    "é",
    "..",
    "%20",
    "bf16",
];

static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let properties = json_schema()["properties"].as_object().unwrap();
    properties.keys().cloned().collect()
});

/// Replaces the body of `size` bytes by a mutated one, and returns its size.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u64) -> usize {
    let mut random = Random::new(seed);
    let body = match random.below(16) {
        0 => return fuzzer_mutate(data, size, max_size),
        1 => Recipe::sampled(random.of(&FAMILIES), seed).body(),
        _ => match serde_json::from_slice(&data[..size]) {
            Ok(value) => changed(value, &mut random),
            Err(_) if size == 0 => start(&mut random).to_string().into(),
            Err(_) => return fuzzer_mutate(data, size, max_size),
        },
    };
    if body.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..body.len()].copy_from_slice(&body);
    body.len()
}

fn start(random: &mut Random) -> Value {
    let mut start = request("m", "run-1");
    start["framework"] = random.of(&["meta", "hf", "nemo"]).into();
    start["extra_args"] = json!({});
    start
}

fn changed(mut value: Value, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(4) {
        let part = value.clone();
        change(somewhere(&mut value, random), &part, random);
    }
    let text = value.to_string();
    match (random.below(12), value) {
        (0, Value::Object(members)) => doubled(&members, random),
        _ => text.into(),
    }
}

/// How many parts of a size there is room for in a body.
fn room_for(bytes: usize) -> usize {
    MIB / bytes.max(1)
}

/// A value within a value.
fn somewhere<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let count = match &*value {
        Value::Object(members) => members.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if count == 0 || random.below(4) == 0 {
        return value;
    }
    let at = random.below(count);
    match value {
        Value::Object(members) => somewhere(members.values_mut().nth(at).unwrap(), random),
        Value::Array(items) => somewhere(&mut items[at], random),
        value => value,
    }
}

fn change(value: &mut Value, whole: &Value, random: &mut Random) {
    match (value, random.below(6)) {
        (Value::Object(members), 0..4) => change_members(members, random),
        (Value::Array(items), 0..4) if !items.is_empty() => {
            let item = items[random.below(items.len())].clone();
            let count = random.of(&[1, 2, 10, 100, 1000, 20_000]);
            let count = count.min(room_for(item.to_string().len()));
            items.extend(vec![item; count]);
        }
        (Value::String(text), 0..4) => {
            let count = random.of(&[0, 1, 2, 8, 64, 600, 4096, 100_000]);
            let piece = random.of(TEXTS);
            let grown = text.repeat(count.min(1 + 200_000 / text.len().max(1)));
            *text = random.of(&[grown + piece, piece.repeat(count), piece.to_string()]);
        }
        (value, 4) => *value = json!([value.take()]),
        (value, 5) => *value = json!({ name(random): value.take() }),
        (value, _) => {
            let somewhat = random.value(2);
            *value = random.of(&[somewhat, whole.clone(), json!({}), json!([])]);
        }
    }
}

fn change_members(members: &mut Map<String, Value>, random: &mut Random) {
    let value = match random.below(3) {
        0 => random.of(TEXTS).into(),
        _ => random.value(2),
    };
    match random.below(4) {
        0 | 1 => drop(members.insert(name(random), value)),
        2 => {
            let (count, name) = (random.of(&[10, 60, 256, 2000, 10_000]), name(random));
            let count = count.min(room_for(name.len() + value.to_string().len()));
            members.extend((0..count).map(|at| (format!("{name}{at}"), value.clone())));
        }
        _ => {
            let at = random.below(members.len());
            if let Some(name) = members.keys().nth(at).cloned() {
                members.remove(&name);
            }
        }
    }
}

fn name(random: &mut Random) -> String {
    match random.below(3) {
        0 => random.of(NAMES).to_string(),
        1 => random.of(FIELDS.as_slice()),
        _ => {
            let size = random.of(&[1, 8, 63, 64, 253, 4096, 100_000]);
            random.text(size)
        }
    }
}

/// An object in which one name is there many times.
fn doubled(members: &Map<String, Value>, random: &mut Random) -> Vec<u8> {
    let count = random.of(&[1, 2, 50, 1000]);
    let at = random.below(members.len());
    let mut parts = Vec::new();
    for (number, (name, value)) in members.iter().enumerate() {
        let part = format!("{}:{value}", json!(name));
        let times = if number == at {
            1 + count.min(room_for(part.len()))
        } else {
            1
        };
        parts.extend(vec![part; times]);
    }
    format!("{{{}}}", parts.join(",")).into()
}
