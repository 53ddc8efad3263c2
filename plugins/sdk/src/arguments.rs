//! `extra_args` of a job against a framework's table: names and values checked, aliases merged,
//! what is left ready for the command line. The codes E01 to E11 and W05 are told here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Number, Value};

use crate::{Argument, Delivery, Finding, Kind, argument::Spelling, reserved};

/// Most keys in `extra_args`.
const MAX_KEYS: usize = 128;
/// Longest key.
const MAX_KEY_BYTES: usize = 64;
/// Most bytes of JSON in one value.
const MAX_VALUE_BYTES: usize = 4096;
/// Most bytes of JSON in all. Linux limits one environment string to 128 KiB.
const MAX_BYTES: usize = 64 * 1024;
/// Most bytes of a wrong value that an error repeats.
const MAX_QUOTE_BYTES: usize = 64;

/// The arguments that a job gives, by canonical name.
#[derive(Debug)]
pub struct Arguments {
    table: &'static [Argument],
    given: BTreeMap<String, Given>,
    refused: BTreeSet<String>,
}

/// An argument that the job gives, or that follows from one that it gives.
#[derive(Debug)]
struct Given {
    /// As the request spells it.
    key: String,
    value: Value,
    delivery: Delivery,
}

/// What an argument that is not in the table means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It is forwarded with a warning, since frameworks have more arguments than any table.
    Forward,
    /// It is refused with the nearest known name.
    Refuse,
}

/// What was found wrong or odd while the arguments were read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub refusals: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl Arguments {
    /// Reads `extra_args` against a table. What is wrong is told and left out; the rest is read.
    pub(crate) fn read(
        framework: &str,
        table: &'static [Argument],
        extra_args: &str,
        unknown: Unknown,
        findings: &mut Findings,
    ) -> Self {
        let mut reader = Reader {
            framework,
            unknown,
            findings,
            arguments: Self {
                table,
                given: BTreeMap::new(),
                refused: BTreeSet::new(),
            },
        };
        reader.read_object(extra_args);
        reader.arguments
    }

    /// Whether the job gives the argument, or it follows from one that the job gives.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The given value of an argument.
    pub fn given(&self, name: &str) -> Option<&Value> {
        self.given.get(name).map(|given| &given.value)
    }

    /// Whether the argument was given with a value that was refused.
    pub fn is_refused(&self, name: &str) -> bool {
        self.refused.contains(name)
    }

    /// Adds an argument that follows from another one, unless the job gives it itself.
    pub fn imply(&mut self, name: &'static str, value: impl Into<Value>) {
        if self.refused.contains(name) {
            return;
        }
        self.given.entry(name.to_string()).or_insert_with(|| Given {
            key: name.to_string(),
            value: value.into(),
            delivery: Delivery::Forwarded,
        });
    }

    /// JSON Pointer to the first of the arguments that the request gives, as it spells it. A
    /// pointer among them stands for itself.
    pub(crate) fn pointer_to_first(&self, names: &[&str]) -> String {
        if let Some(pointer) = names.iter().find(|name| name.starts_with('/')) {
            return pointer.to_string();
        }
        let given = names.iter().find_map(|name| self.given.get(*name));
        let first = names.first().copied().unwrap_or_default();
        pointer(given.map_or(first, |given| &given.key))
    }

    pub(crate) fn table(&self) -> &'static [Argument] {
        self.table
    }

    /// What `TRAINING_EXTRA_ARGS_JSON` carries: the given arguments with their types, `false` kept.
    pub(crate) fn typed(&self) -> Map<String, Value> {
        self.forwarded()
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect()
    }

    /// The command line: `--<name> <value>`, sorted by name, so that the order in which a request
    /// gives its arguments never changes the command.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let mut words = Vec::with_capacity(2 * self.given.len());
        for (name, value) in self.forwarded() {
            match value {
                Value::Bool(true) => words.push(format!("--{name}")),
                Value::Bool(false) | Value::Null => {}
                Value::Array(items) if items.is_empty() => {}
                value => words.extend([format!("--{name}"), word(value)]),
            }
        }
        words
    }

    fn forwarded(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.given
            .iter()
            .filter(|(_, given)| given.delivery == Delivery::Forwarded)
            .map(|(name, given)| (name.as_str(), &given.value))
    }
}

/// Reads the members of `extra_args` one by one.
struct Reader<'a> {
    framework: &'a str,
    unknown: Unknown,
    findings: &'a mut Findings,
    arguments: Arguments,
}

impl Reader<'_> {
    fn read_object(&mut self, extra_args: &str) {
        let members = match serde_json::from_str(extra_args) {
            Ok(Value::Object(members)) => members,
            Ok(other) => {
                let detail = format!("extra_args: expected object, got {}", quote(&other));
                return self.refuse("E05", "/extra_args".to_string(), detail);
            }
            Err(error) => {
                let detail = format!("extra_args: not JSON: {error}");
                return self.refuse("E05", "/extra_args".to_string(), detail);
            }
        };
        if members.len() > MAX_KEYS {
            let detail = format!(
                "extra_args: {} keys are more than the {MAX_KEYS} allowed",
                members.len()
            );
            return self.refuse("E01", "/extra_args".to_string(), detail);
        }
        if extra_args.len() > MAX_BYTES {
            let detail = format!(
                "extra_args: {} bytes of JSON are more than the {MAX_BYTES} allowed",
                extra_args.len()
            );
            return self.refuse("E06", "/extra_args".to_string(), detail);
        }
        for (key, value) in members {
            // `null` is how many clients write an argument that is not given.
            if !value.is_null() {
                self.read_member(key, value);
            }
        }
    }

    fn read_member(&mut self, key: String, value: Value) {
        if !is_flag_name(&key) {
            let detail = format!("extra_args: key '{key}' is not a valid flag name");
            return self.refuse("E01", pointer(&key), detail);
        }
        let name = key.replace('-', "_");
        if reserved::is_request_field(&name) {
            let detail = format!("extra_args.{key}: set the top-level field {name} instead");
            return self.refuse("E02", pointer(&key), detail);
        }
        if reserved::is_train_option(&name) {
            let option = name.replace('_', "-");
            let detail = format!(
                "extra_args.{key}: reserved by train.py \
                 (argparse would read --{option} as another option)"
            );
            return self.refuse("E03", pointer(&key), detail);
        }
        let table = self.arguments.table;
        match table.iter().find(|argument| argument.is_called(&name)) {
            Some(argument) => {
                let value = checked(argument, value).map_err(|wrong| wrong.of(&key));
                self.keep(argument.name.to_string(), key, value, argument.delivery);
            }
            None if self.unknown == Unknown::Refuse => {
                let detail = format!(
                    "extra_args.{key}: unknown argument{}",
                    nearest(table, &name)
                        .map(|known| format!(", did you mean \"{known}\"?"))
                        .unwrap_or_default()
                );
                self.refuse("E11", pointer(&key), detail);
            }
            None => {
                let detail = format!(
                    "extra_args.{key}: unknown to framework {}, forwarded as --{name}",
                    self.framework
                );
                let value = forwardable(value).map_err(|wrong| wrong.of(&key));
                if value.is_ok() {
                    let pointer = pointer(&key);
                    self.findings.warnings.push(finding("W05", pointer, detail));
                }
                self.keep(name, key, value, Delivery::Forwarded);
            }
        }
    }

    /// Keeps a checked value under its canonical name, or tells what is wrong with it.
    fn keep(
        &mut self,
        name: String,
        key: String,
        value: Result<Value, Refusal>,
        delivery: Delivery,
    ) {
        let value = match value {
            Ok(value) => value,
            Err(Refusal { code, detail }) => {
                self.arguments.refused.insert(name);
                return self.refuse(code, pointer(&key), detail);
            }
        };
        if let Some(first) = self.arguments.given.get(&name) {
            if first.value != value {
                let detail = format!(
                    "extra_args.{} and extra_args.{key} are the same argument ({name}) \
                     with different values",
                    first.key
                );
                self.arguments.refused.insert(name);
                self.refuse("E04", pointer(&key), detail);
            }
            return;
        }
        let given = Given {
            key,
            value,
            delivery,
        };
        self.arguments.given.insert(name, given);
    }

    fn refuse(&mut self, code: &str, pointer: String, detail: String) {
        let finding = finding(code, pointer, detail);
        self.findings.refusals.push(finding);
    }
}

struct Refusal {
    code: &'static str,
    detail: String,
}

/// What is wrong with a value: the sentence goes after the name of its key.
pub(crate) struct Wrong {
    code: &'static str,
    what: String,
}

impl Wrong {
    fn new(code: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { code, what }
    }

    fn of(self, key: &str) -> Refusal {
        Refusal {
            code: self.code,
            detail: format!("extra_args.{key}: {}", self.what),
        }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.what)
    }
}

/// The value of a known argument in its canonical form.
pub(crate) fn checked(argument: &Argument, value: Value) -> Result<Value, Wrong> {
    let value = canonical_spelling(argument, value);
    let value = forwardable(value)?;
    let value = typed(&argument.kind, value)?;
    if let Some(range) = argument.kind.out_of_range(&value) {
        return Err(Wrong::new("E06", range));
    }
    let unexpected = match (&argument.kind, &value) {
        (Kind::Choice(choices), Value::String(text)) if !choices.contains(&text.as_str()) => {
            Some((text, format!("one of {}", choices.join(", "))))
        }
        (Kind::Text { form, .. } | Kind::List(form), value) => form.and_then(|form| {
            let texts = value.as_array().map_or(std::slice::from_ref(value), |a| a);
            let mut texts = texts.iter().filter_map(as_string);
            let text = texts.find(|text| !(form.accepts)(text))?;
            Some((text, form.expected.to_string()))
        }),
        _ => None,
    };
    match unexpected {
        Some((text, expected)) => {
            let what = format!("'{}' is not {expected}", shortened(text));
            Err(Wrong::new("E07", what))
        }
        None => Ok(value),
    }
}

fn as_string(value: &Value) -> Option<&String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn canonical_spelling(argument: &Argument, value: Value) -> Value {
    let alias = argument
        .value_aliases
        .iter()
        .find(|(spelling, _)| match spelling {
            Spelling::Text(text) => value.as_str() == Some(*text),
            Spelling::Boolean(boolean) => value.as_bool() == Some(*boolean),
        });
    alias.map_or(value, |(_, canonical)| Value::from(*canonical))
}

/// Checks that a value can travel on a command line at all: E08, E09, E10 and its size.
fn forwardable(value: Value) -> Result<Value, Wrong> {
    let items = match &value {
        Value::Array(items) => items.as_slice(),
        scalar => std::slice::from_ref(scalar),
    };
    for item in items {
        match item {
            Value::Object(_) | Value::Array(_) => {
                let what = "nested objects are not supported, use dotted keys or overrides";
                return Err(Wrong::new("E10", what));
            }
            Value::String(text) if text.starts_with("--") => {
                let what = "a string value must not start with \"--\"";
                return Err(Wrong::new("E08", what));
            }
            Value::String(text) if text.chars().any(char::is_control) => {
                return Err(Wrong::new("E09", "control characters are not allowed"));
            }
            Value::String(text) if value.is_array() && text.contains(',') => {
                let what = "an item of a list must not contain a comma, which separates the items";
                return Err(Wrong::new("E08", what));
            }
            Value::Null => {
                let what = "null has no place in a list";
                return Err(Wrong::new("E10", what));
            }
            _ => {}
        }
    }
    let size = word(&value).len();
    if size > MAX_VALUE_BYTES {
        let what = format!("{size} bytes are more than the {MAX_VALUE_BYTES} allowed");
        return Err(Wrong::new("E06", what));
    }
    Ok(value)
}

/// The value as the kind wants it. Nothing is coerced, but 3.0 is the integer 3.
fn typed(kind: &Kind, value: Value) -> Result<Value, Wrong> {
    let fits = match (kind, &value) {
        (Kind::Integer { .. }, Value::Number(number)) => match integral(number) {
            Some(integer) => return Ok(Value::from(integer)),
            // A whole number that no i64 holds is out of range, not of the wrong type.
            None => number.is_u64(),
        },
        (Kind::Number(_), Value::Number(_)) => true,
        (Kind::Boolean, Value::Bool(_)) => true,
        (Kind::Text { .. } | Kind::Choice(_), Value::String(_)) => true,
        (Kind::List(_), Value::Array(items)) => items.iter().all(Value::is_string),
        _ => false,
    };
    if fits {
        return Ok(value);
    }
    let what = format!("expected {}, got {}", kind.name(), quote(&value));
    Err(Wrong::new("E05", what))
}

fn integral(number: &Number) -> Option<i64> {
    /// Up to here every whole f64 is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i64)
    })
}

/// A value as one word of a command line.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// `^[A-Za-z][A-Za-z0-9_.-]{0,63}$`
fn is_flag_name(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES
        && key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn nearest(table: &[Argument], name: &str) -> Option<&'static str> {
    // So many slips of the finger may lie between two names that mean the same.
    let most = (name.len() / 3).max(1);
    table
        .iter()
        .flat_map(|argument| std::iter::once(argument.name).chain(argument.aliases.iter().copied()))
        .map(|known| (strsim::osa_distance(known, name), known))
        .filter(|(slips, _)| *slips <= most)
        .min()
        .map(|(_, known)| known)
}

/// JSON Pointer to a member of `extra_args` (RFC 6901).
fn pointer(key: &str) -> String {
    format!("/extra_args/{}", key.replace('~', "~0").replace('/', "~1"))
}

pub(crate) fn finding(code: &str, pointer: String, detail: String) -> Finding {
    Finding {
        code: code.to_string(),
        pointer,
        detail,
    }
}

fn quote(value: &Value) -> String {
    shortened(&value.to_string()).to_string()
}

fn shortened(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= MAX_QUOTE_BYTES {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_QUOTE_BYTES)]).into()
}
