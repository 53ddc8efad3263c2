//! Files of settings, read against the schema of their type: what is wrong is told with its line, its
//! place, and what would be right.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::finding::{Finding, pointer};
use crate::request::schema::{Schema, field, quote};
use crate::request::yaml::{self, Places};

/// Reads a file in YAML.
///
/// # Errors
///
/// Everything that is wrong with it, a sentence each.
pub fn from_yaml<T: DeserializeOwned + JsonSchema + Default>(text: &str) -> Result<T, Vec<String>> {
    let (value, places) = yaml::parse(text).map_err(|found| {
        let details = found.into_iter().map(|misread| misread.finding.detail);
        details.collect::<Vec<_>>()
    })?;
    if value.is_null() {
        return Ok(T::default());
    }
    read(value).map_err(|findings| {
        let message = findings
            .iter()
            .map(|finding| with_line(finding, text, &places));
        message.collect()
    })
}

/// Reads a file in TOML.
///
/// # Errors
///
/// Everything that is wrong with it, a sentence each.
pub fn from_toml<T: DeserializeOwned + JsonSchema>(text: &str) -> Result<T, Vec<String>> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = line(text, at);
        vec![format!(
            "line {line}: not TOML; write NAME = VALUE with text in double quotes, [NAME] above the \
             members of a table, and no name twice"
        )]
    })?;
    let value = json_of(toml::Value::Table(table));
    read(value).map_err(|findings| findings.into_iter().map(|finding| finding.detail).collect())
}

fn json_of(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(boolean) => boolean.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(json_of).collect(),
        toml::Value::Table(members) => {
            let members = members.into_iter();
            let members = members.map(|(name, value)| (name, json_of(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
    }
}

fn read<T: DeserializeOwned + JsonSchema>(value: Value) -> Result<T, Vec<Finding>> {
    let mut schema = schemars::schema_for!(T).to_value();
    list_choices(&mut schema);
    let broken = |why: String| vec![Finding::new(crate::finding::Code::Schema, "", why)];
    let findings = Schema::compile(&schema)
        .map_err(broken)?
        .findings_at_any_depth(&value);
    if !findings.is_empty() {
        return Err(findings);
    }
    match serde_json::from_value(value.clone()) {
        Ok(read) => Ok(read),
        Err(_) => {
            let reads = |value: &Value| serde_json::from_value::<T>(value.clone()).is_ok();
            Err(vec![culprit(value, &reads)])
        }
    }
}

/// Turns alternatives that are words, each with a description, into a list of words, so that an error can
/// name all of them.
fn list_choices(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(list_choices);
            let choices = members.get("oneOf").and_then(Value::as_array);
            let words = choices
                .into_iter()
                .flatten()
                .map(|choice| choice.get("const"));
            if let Some(words) = words
                .map(Option::<&Value>::cloned)
                .collect::<Option<Vec<_>>>()
                && !words.is_empty()
            {
                members.remove("oneOf");
                members.insert("enum".to_string(), Value::Array(words));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(list_choices),
        _ => {}
    }
}

/// The smallest part of a value without which the whole can be read. Types of Kubernetes publish no
/// schema, so this is how their fields are named.
fn culprit(mut whole: Value, reads: &dyn Fn(&Value) -> bool) -> Finding {
    let mut path: Vec<String> = Vec::new();
    while let Some(step) = steps(&whole, &path).find(|step| {
        let mut without = whole.clone();
        remove(&mut without, &path, step);
        reads(&without)
    }) {
        path.push(step);
    }
    let at = pointer(path.iter().map(String::as_str));
    let given = whole.pointer(&at).map(quote).unwrap_or_default();
    let alternatives = [
        ("string", json!("x")),
        ("integer", json!(1)),
        ("boolean", json!(true)),
        ("list of strings", json!(["x"])),
    ];
    let taken = alternatives.into_iter().find(|(_, other)| {
        if let Some(place) = whole.pointer_mut(&at) {
            *place = other.clone();
        }
        !at.is_empty() && reads(&whole)
    });
    let what = match taken {
        Some((kind, _)) => format!("expected {kind}, got {given}"),
        None => {
            "Kubernetes has no such field here, or takes another kind of value; `kubectl explain \
             pod.spec` describes its fields"
                .to_string()
        }
    };
    Finding::new(
        crate::finding::Code::Schema,
        at.clone(),
        format!("{}: {what}", field(&at)),
    )
}

/// The names or numbers of the parts of a part.
fn steps(whole: &Value, path: &[String]) -> impl Iterator<Item = String> + use<> {
    let here = whole.pointer(&pointer(path.iter().map(String::as_str)));
    let steps: Vec<String> = match here {
        Some(Value::Object(members)) => members.keys().cloned().collect(),
        Some(Value::Array(items)) => (0..items.len()).map(|index| index.to_string()).collect(),
        _ => Vec::new(),
    };
    steps.into_iter()
}

fn remove(whole: &mut Value, path: &[String], step: &str) {
    match whole.pointer_mut(&pointer(path.iter().map(String::as_str))) {
        Some(Value::Object(members)) => {
            members.remove(step);
        }
        Some(Value::Array(items)) => {
            if let Ok(index) = step.parse::<usize>() {
                items.remove(index);
            }
        }
        _ => {}
    }
}

fn with_line(finding: &Finding, text: &str, places: &Places) -> String {
    let place = places.find(&finding.pointer);
    match place {
        Some(place) if !finding.pointer.is_empty() => {
            let start = place.name.unwrap_or(place.value).start;
            format!("line {}: {}", line(text, start), finding.detail)
        }
        _ => finding.detail.clone(),
    }
}

/// The line of a byte, from 1.
fn line(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}
