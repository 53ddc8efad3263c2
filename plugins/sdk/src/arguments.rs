//! `extra_args` of a job against a framework's table: names and values checked, aliases merged,
//! what is left ready for the command line. The codes E01 to E11 and W05 are told here.

use std::borrow::Cow;

use serde_json::{Number, Value};

use crate::{Argument, Delivery, Finding, Kind, Table, Text, argument::Spelling, json, reserved};

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

/// What every argument is checked for: the code, what comes of it, what it asks for.
pub(crate) const CHECKS: &[(&str, &str, &str)] = &[
    (
        "E01",
        "refuse",
        "a key is a flag name: letters, digits, _, . and -, first a letter; at most 128 of them",
    ),
    (
        "E02",
        "refuse",
        "a field of the request stands in the request, not in extra_args",
    ),
    (
        "E03",
        "refuse",
        "a key is neither an option of train.py nor the beginning of one",
    ),
    (
        "E04",
        "refuse",
        "two spellings of an argument have the same value",
    ),
    ("E05", "refuse", "a value has the argument's type"),
    (
        "E06",
        "refuse",
        "a value is within the argument's range, a text no longer than 4096 bytes",
    ),
    (
        "E07",
        "refuse",
        "a value is one of those that the argument takes",
    ),
    (
        "E08",
        "refuse",
        "a string does not begin with --, an item of a list has no comma",
    ),
    ("E09", "refuse", "a string has no control characters"),
    (
        "E10",
        "refuse",
        "a value is flat: no object, no list in a list, no null in a list",
    ),
    (
        "E11",
        "refuse",
        "where the service is strict, an argument is known",
    ),
    (
        "W05",
        "warn",
        "an argument is known; others are forwarded as they are",
    ),
];

/// The arguments that a job gives.
#[derive(Debug)]
pub struct Arguments {
    table: &'static Table,
    /// By the number of the argument in the table.
    states: Vec<State>,
    given: Vec<Given>,
}

/// What is known of an argument of the table.
#[derive(Clone, Copy, Debug)]
enum State {
    Absent,
    /// Its place among the given ones.
    Given(u8),
    Refused,
}

/// An argument that the job gives, or that follows from one that it gives.
#[derive(Debug)]
struct Given {
    name: Cow<'static, str>,
    /// As the request spells it.
    key: Cow<'static, str>,
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
        table: &'static Table,
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
                states: vec![State::Absent; table.arguments().len()],
                given: Vec::new(),
            },
        };
        reader.read_object(extra_args);
        let mut arguments = reader.arguments;
        arguments.sort();
        arguments
    }

    /// Whether the job gives the argument, or it follows from one that the job gives.
    pub fn is_given(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// The given value of an argument, unless it was refused.
    pub fn given(&self, name: &str) -> Option<&Value> {
        match self.table.find(name) {
            Some(number) => self.given_at(number),
            None => self.given_unknown(name).map(|given| &given.value),
        }
    }

    /// Whether the argument was given with a value that was refused.
    pub fn is_refused(&self, name: &str) -> bool {
        let number = self.table.find(name);
        number.is_some_and(|number| self.is_refused_at(number))
    }

    /// Adds an argument of the table that follows from another one, unless the job gives it itself.
    pub fn imply(&mut self, name: &'static str, value: impl Into<Value>) {
        let Some(number) = self.table.find(name) else {
            return;
        };
        if !matches!(self.states.get(number), Some(State::Absent)) {
            return;
        }
        self.add(
            Some(number),
            Given {
                name: name.into(),
                key: name.into(),
                value: value.into(),
                delivery: Delivery::Forwarded,
            },
        );
        self.sort();
    }

    pub(crate) fn given_at(&self, number: usize) -> Option<&Value> {
        match self.states.get(number)? {
            State::Given(at) => Some(&self.given.get(usize::from(*at))?.value),
            _ => None,
        }
    }

    pub(crate) fn is_refused_at(&self, number: usize) -> bool {
        matches!(self.states.get(number), Some(State::Refused))
    }

    /// JSON Pointer to the first of the arguments that the request gives, as it spells it. A
    /// pointer among them stands for itself.
    pub(crate) fn pointer_to_first(&self, names: &[&str]) -> String {
        if let Some(pointer) = names.iter().find(|name| name.starts_with('/')) {
            return pointer.to_string();
        }
        let mut given = names
            .iter()
            .filter_map(|name| self.given.iter().find(|given| given.name == *name));
        let first = names.first().copied().unwrap_or_default();
        pointer(given.next().map_or(first, |given| &given.key))
    }

    pub(crate) fn table(&self) -> &'static Table {
        self.table
    }

    /// What `TRAINING_EXTRA_ARGS_JSON` carries: the given arguments with their types, `false` kept.
    pub(crate) fn typed(&self) -> String {
        json::object(self.forwarded())
    }

    /// The arguments that the table does not have, sorted by name.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = (&str, &Value)> {
        let unknown = |given: &&Given| matches!(given.name, Cow::Owned(_));
        let unknown = self.given.iter().filter(unknown);
        unknown.map(|given| (given.name.as_ref(), &given.value))
    }

    /// The command line: `--<name> <value>`, sorted by name, so that the order in which a request
    /// gives its arguments never changes the command.
    pub(crate) fn command_line(&self, words: &mut Vec<Text>) {
        for (name, value) in self.forwarded() {
            match value {
                Value::Bool(false) | Value::Null => continue,
                Value::Array(items) if items.is_empty() => continue,
                _ => words.push(Text::Literal(["--", name].concat())),
            }
            if !value.is_boolean() {
                words.push(Text::Literal(word(value)));
            }
        }
    }

    fn forwarded(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.given
            .iter()
            .filter(|given| given.delivery == Delivery::Forwarded)
            .map(|given| (given.name.as_ref(), &given.value))
    }

    /// An argument that is not in the table: its name is the request's own.
    fn given_unknown(&self, name: &str) -> Option<&Given> {
        let mut given = self.given.iter();
        given.find(|given| matches!(given.name, Cow::Owned(_)) && given.name == name)
    }

    fn add(&mut self, number: Option<usize>, given: Given) {
        if let Some(state) = number.and_then(|number| self.states.get_mut(number)) {
            // There are at most MAX_KEYS.
            *state = State::Given(u8::try_from(self.given.len()).unwrap_or(u8::MAX));
        }
        self.given.push(given);
    }

    /// Brings the given arguments into the order of their names.
    fn sort(&mut self) {
        if self.given.is_sorted_by(|a, b| a.name <= b.name) {
            return;
        }
        self.given.sort_by(|a, b| a.name.cmp(&b.name));
        for (at, given) in self.given.iter().enumerate() {
            let Cow::Borrowed(name) = given.name else {
                continue;
            };
            let number = self.table.find(name);
            if let Some(state @ State::Given(_)) = number.and_then(|n| self.states.get_mut(n)) {
                *state = State::Given(u8::try_from(at).unwrap_or(u8::MAX));
            }
        }
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
        let members = match json::members(extra_args) {
            Ok(members) => members,
            Err(error) => {
                let detail = format!("extra_args: expected object: {error}");
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
        self.arguments.given.reserve(members.len() + 1);
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
        let name = match key.contains('-') {
            true => Cow::Owned(key.replace('-', "_")),
            false => Cow::Borrowed(key.as_str()),
        };
        let table = self.arguments.table;
        match table.find(&name) {
            Some(number) => {
                let Some(argument) = table.arguments().get(number) else {
                    return;
                };
                self.read_known(number, argument, key, value);
            }
            // A table has no reserved names: `Framework::mistakes` tells.
            None if reserved::is_request_field(&name) => {
                let detail = format!("extra_args.{key}: set the top-level field {name} instead");
                self.refuse("E02", pointer(&key), detail);
            }
            None if reserved::is_train_option(&name) => {
                let option = name.replace('_', "-");
                let detail = format!(
                    "extra_args.{key}: reserved by train.py \
                     (argparse would read --{option} as another option)"
                );
                self.refuse("E03", pointer(&key), detail);
            }
            None if self.unknown == Unknown::Refuse => {
                let detail = format!(
                    "extra_args.{key}: unknown argument{}",
                    nearest(table.arguments(), &name)
                        .map(|known| format!(", did you mean \"{known}\"?"))
                        .unwrap_or_default()
                );
                self.refuse("E11", pointer(&key), detail);
            }
            None => self.read_unknown(name.into_owned(), key, value),
        }
    }

    fn read_known(
        &mut self,
        number: usize,
        argument: &'static Argument,
        key: String,
        value: Value,
    ) {
        let value = match checked(argument, value) {
            Ok(value) => value,
            Err(wrong) => {
                self.forget(number);
                return self.refuse_value(&key, wrong);
            }
        };
        let mut given = self.arguments.given.iter();
        let first = match self.arguments.states.get(number).copied() {
            Some(State::Absent) => {
                let given = Given {
                    name: argument.name.into(),
                    key: key.into(),
                    value,
                    delivery: argument.delivery,
                };
                return self.arguments.add(Some(number), given);
            }
            Some(State::Given(at)) => given.nth(usize::from(at)),
            _ => given.find(|given| given.name == argument.name),
        };
        if let Some(first) = first.filter(|first| !same(&first.value, &value)) {
            let detail = different(&first.key, &key, argument.name);
            self.forget(number);
            self.refuse("E04", pointer(&key), detail);
        }
    }

    fn read_unknown(&mut self, name: String, key: String, value: Value) {
        let value = match forwardable(value) {
            Ok(value) => value,
            Err(wrong) => return self.refuse_value(&key, wrong),
        };
        if let Some(first) = self.arguments.given_unknown(&name) {
            if !same(&first.value, &value) {
                let detail = different(&first.key, &key, &name);
                self.refuse("E04", pointer(&key), detail);
            }
            return;
        }
        let detail = format!(
            "extra_args.{key}: unknown to framework {}, forwarded as --{name}",
            self.framework
        );
        let warning = finding("W05", pointer(&key), detail);
        self.findings.warnings.push(warning);
        let given = Given {
            name: name.into(),
            key: key.into(),
            value,
            delivery: Delivery::Forwarded,
        };
        self.arguments.add(None, given);
    }

    /// Notes that an argument was refused, so that no rule looks at it. What was given before under
    /// another name keeps its place, which others are counted by; the job is refused anyway.
    fn forget(&mut self, number: usize) {
        if let Some(state) = self.arguments.states.get_mut(number) {
            *state = State::Refused;
        }
    }

    fn refuse_value(&mut self, key: &str, Wrong { code, what }: Wrong) {
        self.refuse(code, pointer(key), format!("extra_args.{key}: {what}"));
    }

    fn refuse(&mut self, code: &str, pointer: String, detail: String) {
        let finding = finding(code, pointer, detail);
        self.findings.refusals.push(finding);
    }
}

/// Whether two values of an argument are one: 1 and 1.0 are the same number.
fn same(first: &Value, second: &Value) -> bool {
    let float = first.is_f64() || second.is_f64();
    first == second || float && first.is_number() && first.as_f64() == second.as_f64()
}

fn different(first: &str, second: &str, name: &str) -> String {
    format!(
        "extra_args.{first} and extra_args.{second} are the same argument ({name}) with different \
         values"
    )
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
    let size = match &value {
        Value::String(text) => text.len(),
        Value::Array(_) => word(&value).len(),
        _ => 0,
    };
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
            None => number.as_f64().is_some_and(|float| float.fract() == 0.0),
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
