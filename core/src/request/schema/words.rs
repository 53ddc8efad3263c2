//! The findings of a JSON Schema in words that name the field, what is wrong and what would be right.

use std::collections::BTreeSet;
use std::io::{self, Write};

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::Published;
use crate::finding::{Finding, MAX_FINDINGS, pointer};

/// Longest piece of a wrong value that a finding repeats.
const MAX_QUOTE_BYTES: usize = 64;
/// Longest name of a field that a finding repeats, and longest list of what would be right.
const MAX_FIELD_BYTES: usize = 256;
const MAX_LIST_BYTES: usize = 512;

/// A finding, and what it says about the others.
pub(super) struct Found {
    finding: Finding,
    about: About,
}

#[derive(Clone, PartialEq, Eq)]
enum About {
    /// A value of another type: what else is said of the value follows from that.
    Type,
    Missing,
    /// A field that is not known, and the pointer to the one that is meant.
    Unknown {
        meant: Option<String>,
    },
    Other,
}

/// What an unknown field is called that somebody means who writes this name.
pub(super) type Meant<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Adds what one error of the validator is about.
pub(super) fn describe(
    error: &ValidationError,
    published: &Published,
    root: &str,
    meant: Meant,
    found: &mut Vec<Found>,
) {
    let at = format!("{root}{}", error.instance_path().as_str());
    let value = error.instance();
    let mut find = |code: &str, at: String, about: About, detail: String| {
        let code = published.codes.get(code).map_or(code, String::as_str);
        let finding = Finding::new(code, at, detail);
        found.push(Found { finding, about });
    };
    match error.kind() {
        Kind::Required { property } => {
            let property = property.as_str().unwrap_or_default();
            let at = format!("{at}{}", pointer([property]));
            let detail = format!("{}: required, but missing", field(&at));
            find("required", at, About::Missing, detail);
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            for property in unexpected.iter().take(MAX_FINDINGS + 1) {
                let meant = meant(property);
                let hint = meant
                    .as_ref()
                    .map(|name| format!(", did you mean \"{name}\"?"));
                let hint = hint.unwrap_or_default();
                let detail = format!("unknown field {}{hint}", quote_text(property));
                let meant = meant.map(|name| format!("{at}{}", pointer([name.as_str()])));
                let at = format!("{at}{}", pointer([property.as_str()]));
                find("unknown-field", at, About::Unknown { meant }, detail);
            }
        }
        Kind::PropertyNames { error } => {
            let key = error.instance().as_str().unwrap_or_default().to_string();
            let detail = format!(
                "{}: {} is not a valid name here",
                field(&at),
                quote_text(&key)
            );
            let at = format!("{at}{}", pointer([key.as_str()]));
            find("name", at, About::Other, detail);
        }
        Kind::Type { kind } => {
            let detail = format!(
                "{}: expected {}, got {}",
                field(&at),
                types(kind),
                quote(value)
            );
            find("type", at, About::Type, detail);
        }
        kind => {
            let (code, what) = of_value(kind, value, published);
            let detail = format!("{}: {what}", field(&at));
            find(code, at, About::Other, detail);
        }
    }
}

/// The code and the words for a value that has the right type.
fn of_value(kind: &Kind, value: &Value, published: &Published) -> (&'static str, String) {
    let given = quote(value);
    match kind {
        Kind::Enum { options } => ("choice", format!("{given} is not one of {}", list(options))),
        Kind::Constant { expected_value } => (
            "choice",
            format!("expected {}, got {given}", quote(expected_value)),
        ),
        Kind::UniqueItems => ("choice", "the same item is given twice".to_string()),
        Kind::Minimum { limit } => ("range", format!("{given} is less than {limit}")),
        Kind::Maximum { limit } => ("range", format!("{given} is more than {limit}")),
        Kind::ExclusiveMinimum { limit } => ("range", format!("{given} is not more than {limit}")),
        Kind::ExclusiveMaximum { limit } => ("range", format!("{given} is not less than {limit}")),
        Kind::MultipleOf { multiple_of } => (
            "range",
            format!("{given} is not a multiple of {multiple_of}"),
        ),
        Kind::MinLength { limit: 1 } => ("length", "must not be empty".to_string()),
        Kind::MinLength { limit } => ("length", format!("shorter than {limit} characters")),
        Kind::MaxLength { limit } => ("length", format!("longer than {limit} characters")),
        Kind::MinItems { limit } => ("length", format!("fewer than {limit} items")),
        Kind::MaxItems { limit } => ("length", format!("more than {limit} items")),
        Kind::MinProperties { limit } => ("length", format!("fewer than {limit} members")),
        Kind::MaxProperties { limit } => ("length", format!("more than {limit} members")),
        Kind::Pattern { pattern } => match published.forms.get(pattern.as_str()) {
            Some(form) => ("format", format!("{given} is not {form}")),
            None => (
                "format",
                format!("{given} does not have the form of this argument"),
            ),
        },
        // A keyword that combines others: what each of them finds would contradict the rest.
        _ => (
            "schema",
            format!("{given} is not a value that is taken here"),
        ),
    }
}

/// Leaves one finding for each place, the one about the type before others, and no field that is
/// missing because its name is misspelt.
pub(super) fn settled(found: Vec<Found>) -> Vec<Finding> {
    let meant = |found: &Found| match &found.about {
        About::Unknown { meant } => meant.clone(),
        _ => None,
    };
    let misspelt: BTreeSet<String> = found.iter().filter_map(meant).collect();
    let typed = found.iter().filter(|found| found.about == About::Type);
    let typed: BTreeSet<String> = typed.map(|found| found.finding.pointer.clone()).collect();
    let mut places = BTreeSet::new();
    let is_told = |Found { finding, about }: Found| {
        let follows = about == About::Missing && misspelt.contains(&finding.pointer);
        let is_second = about != About::Type && typed.contains(&finding.pointer);
        (!follows && !is_second && places.insert(finding.pointer.clone())).then_some(finding)
    };
    found.into_iter().filter_map(is_told).collect()
}

/// The name of a field as a person says it: `extra_args.lr` for `/extra_args/lr`.
pub fn field(pointer: &str) -> String {
    let name = match pointer.strip_prefix('/') {
        Some(tokens) => tokens
            .replace('/', ".")
            .replace("~1", "/")
            .replace("~0", "~"),
        None => "request".to_string(),
    };
    cut(&name, MAX_FIELD_BYTES)
}

fn types(kind: &TypeKind) -> String {
    let names: Vec<String> = match kind {
        TypeKind::Single(name) => vec![name.to_string()],
        TypeKind::Multiple(names) => names
            .iter()
            .filter(|name| *name != JsonType::Null)
            .map(|name| name.to_string())
            .collect(),
    };
    names.join(" or ")
}

fn list(options: &Value) -> String {
    let options = options.as_array().map_or(&[][..], Vec::as_slice);
    // What is cut off again is not made.
    let options = options.iter().take(MAX_LIST_BYTES).map(quote);
    cut(&options.collect::<Vec<_>>().join(", "), MAX_LIST_BYTES)
}

/// A value as JSON, shortened. What is cut off is not written in the first place.
pub fn quote(value: &Value) -> String {
    let mut quoted = Beginning(Vec::new());
    // The only error is that enough was written.
    let _ = serde_json::to_writer(&mut quoted, value);
    cut(&String::from_utf8_lossy(&quoted.0), MAX_QUOTE_BYTES)
}

/// A text as JSON, shortened.
pub fn quote_text(text: &str) -> String {
    match text.len() {
        0..=MAX_QUOTE_BYTES => quote(&Value::from(text)),
        _ => quote(&Value::from(
            &text[..text.ceil_char_boundary(MAX_QUOTE_BYTES + 1)],
        )),
    }
}

/// The beginning of a sentence that can repeat much of a schema.
pub(super) fn sentence(text: &str) -> String {
    cut(text, MAX_LIST_BYTES)
}

fn cut(text: &str, most: usize) -> String {
    match text.len() > most {
        false => text.to_string(),
        true => format!("{}…", &text[..text.floor_char_boundary(most)]),
    }
}

/// Takes what is written until it has enough for a quotation.
struct Beginning(Vec<u8>);

impl Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = 2 * MAX_QUOTE_BYTES - self.0.len().min(2 * MAX_QUOTE_BYTES);
        if room == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        let taken = bytes.len().min(room);
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
