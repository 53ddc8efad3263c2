//! Converts errors of the JSON Schema validator to findings that name the field, the problem and a
//! remedy.

use std::collections::BTreeSet;
use std::io::{self, Write};

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::Published;
use crate::finding::{Code, Finding, MAX_FINDINGS, pointer};

/// The maximum length of a quoted value in a finding, in bytes.
const MAX_QUOTE_BYTES: usize = 64;
/// The maximum length of a field name in a finding, and of a list of choices, in bytes.
const MAX_FIELD_BYTES: usize = 256;
const MAX_LIST_BYTES: usize = 512;

/// A finding, and how it relates to others.
pub(super) struct Found {
    finding: Finding,
    about: About,
}

#[derive(Clone, PartialEq, Eq)]
enum About {
    /// The value has the wrong type. Other findings about it follow from that.
    Type,
    Missing,
    /// An unknown field, and the pointer to the field that was probably meant.
    Unknown {
        meant: Option<String>,
    },
    Other,
}

/// Returns the name that was probably meant by an unknown field name.
pub(super) type Meant<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Adds the findings for one error of the validator.
pub(super) fn describe(
    error: &ValidationError,
    published: &Published,
    root: &str,
    meant: Meant,
    found: &mut Vec<Found>,
) {
    let at = format!("{root}{}", error.instance_path().as_str());
    let value = error.instance();
    let mut find = |code: Code, at: String, about: About, detail: String| {
        let code = published.code(code);
        let finding = Finding::of_plugin(code, at, detail);
        found.push(Found { finding, about });
    };
    match error.kind() {
        Kind::Required { property } => {
            let property = property.as_str().unwrap_or_default();
            let at = format!("{at}{}", pointer([property]));
            let detail = format!("{}: required, but missing", field(&at));
            find(Code::Required, at, About::Missing, detail);
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            for property in unexpected.iter().take(MAX_FINDINGS + 1) {
                let meant = meant(property);
                let hint = meant
                    .as_ref()
                    .map(|name| format!(", did you mean \"{name}\"?"));
                let hint = hint.unwrap_or_else(|| "; correct its name or remove it".to_string());
                let of = match at.is_empty() {
                    true => String::new(),
                    false => format!("{}: ", field(&at)),
                };
                let detail = format!("{of}unknown field {}{hint}", quote_text(property));
                let meant = meant.map(|name| format!("{at}{}", pointer([name.as_str()])));
                let at = format!("{at}{}", pointer([property.as_str()]));
                find(Code::UnknownField, at, About::Unknown { meant }, detail);
            }
        }
        Kind::PropertyNames { error } => {
            let key = error.instance().as_str().unwrap_or_default().to_string();
            let detail = format!("{}: {} is not a valid name", field(&at), quote_text(&key));
            let at = format!("{at}{}", pointer([key.as_str()]));
            find(Code::Name, at, About::Other, detail);
        }
        Kind::Type { kind } => {
            let detail = format!(
                "{}: expected {}, got {}",
                field(&at),
                types(kind),
                quote(value)
            );
            find(Code::Type, at, About::Type, detail);
        }
        kind => {
            let (code, what) = of_value(kind, value, published);
            let detail = format!("{}: {what}", field(&at));
            find(code, at, About::Other, detail);
        }
    }
}

/// The code and message for a value of the right type.
fn of_value(kind: &Kind, value: &Value, published: &Published) -> (Code, String) {
    let given = quote(value);
    match kind {
        Kind::Enum { options } => (
            Code::Choice,
            format!("{given} is not one of {}", list(options)),
        ),
        Kind::Constant { expected_value } => (
            Code::Choice,
            format!("expected {}, got {given}", quote(expected_value)),
        ),
        Kind::UniqueItems => (
            Code::Choice,
            "contains the same item twice; remove one".to_string(),
        ),
        Kind::Minimum { limit } => (
            Code::Range,
            format!("{given} is too small; the minimum is {limit}"),
        ),
        Kind::Maximum { limit } => (
            Code::Range,
            format!("{given} is too large; the maximum is {limit}"),
        ),
        Kind::ExclusiveMinimum { limit } => (
            Code::Range,
            format!("{given} is too small; must be greater than {limit}"),
        ),
        Kind::ExclusiveMaximum { limit } => (
            Code::Range,
            format!("{given} is too large; must be less than {limit}"),
        ),
        Kind::MultipleOf { multiple_of } => (
            Code::Range,
            format!("{given} is not a multiple of {multiple_of}"),
        ),
        Kind::MinLength { limit: 1 } => (Code::Length, "must not be empty".to_string()),
        Kind::MinLength { limit } => (
            Code::Length,
            format!("must have at least {limit} characters"),
        ),
        Kind::MaxLength { limit } => (
            Code::Length,
            format!("must have at most {limit} characters"),
        ),
        Kind::MinItems { limit } => (Code::Length, format!("must have at least {limit} items")),
        Kind::MaxItems { limit } => (Code::Length, format!("must have at most {limit} items")),
        Kind::MinProperties { limit } => {
            (Code::Length, format!("must have at least {limit} members"))
        }
        Kind::MaxProperties { limit } => {
            (Code::Length, format!("must have at most {limit} members"))
        }
        Kind::Pattern { pattern } => match published.forms.get(pattern.as_str()) {
            Some(form) => (Code::Format, format!("{given} is not {form}")),
            None => (
                Code::Format,
                format!("{given} does not match the format of this field"),
            ),
        },
        // For keywords that combine others, the findings of the parts could contradict each other.
        _ => (Code::Schema, format!("{given} is not an accepted value")),
    }
}

/// Keeps one finding per place, preferring the one about the type, and drops missing fields whose
/// name was only misspelt.
pub(super) fn deduplicated(found: Vec<Found>) -> Vec<Finding> {
    let meant = |found: &Found| match &found.about {
        About::Unknown { meant } => meant.clone(),
        _ => None,
    };
    let misspelt: BTreeSet<String> = found.iter().filter_map(meant).collect();
    let typed = found.iter().filter(|found| found.about == About::Type);
    let typed: BTreeSet<String> = typed.map(|found| found.finding.pointer.clone()).collect();
    let mut places = BTreeSet::new();
    let is_reported = |Found { finding, about }: Found| {
        let follows = about == About::Missing && misspelt.contains(&finding.pointer);
        let is_second = about != About::Type && typed.contains(&finding.pointer);
        (!follows && !is_second && places.insert(finding.pointer.clone())).then_some(finding)
    };
    found.into_iter().filter_map(is_reported).collect()
}

/// The name of a field for messages: `extra_args.lr` for `/extra_args/lr`.
pub fn field(pointer: &str) -> String {
    // An escaped character has two bytes. What follows would be cut off anyway.
    let beginning = &pointer[..pointer.floor_char_boundary(2 * MAX_FIELD_BYTES + 3)];
    let name = match beginning.strip_prefix('/') {
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
    // Options beyond the limit would be cut off anyway.
    let options = options.iter().take(MAX_LIST_BYTES).map(quote);
    cut(&options.collect::<Vec<_>>().join(", "), MAX_LIST_BYTES)
}

/// A value as JSON, shortened. Serialization stops at the limit.
pub fn quote(value: &Value) -> String {
    let mut quoted = Beginning(Vec::new());
    // The only possible error is that the limit was reached.
    let _ = serde_json::to_writer(&mut quoted, value);
    cut(&String::from_utf8_lossy(&quoted.0), MAX_QUOTE_BYTES)
}

/// A string as JSON, shortened.
pub fn quote_text(text: &str) -> String {
    match text.len() {
        0..=MAX_QUOTE_BYTES => quote(&Value::from(text)),
        _ => quote(&Value::from(
            &text[..text.ceil_char_boundary(MAX_QUOTE_BYTES + 1)],
        )),
    }
}

/// The beginning of a message that may quote much of a schema.
pub(super) fn sentence(text: &str) -> String {
    cut(text, MAX_LIST_BYTES)
}

fn cut(text: &str, most: usize) -> String {
    match text.len() > most {
        false => text.to_string(),
        true => format!("{}…", &text[..text.floor_char_boundary(most)]),
    }
}

/// A writer that accepts only as many bytes as a quotation needs.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Only the beginning of a pointer is read, which may end within an escaped character.
        #[test]
        fn the_name_of_a_field_is_the_beginning_of_its_unescaped_pointer(
            tokens in proptest::collection::vec("[a~/é.]{0,300}", 1..6),
        ) {
            let pointer = pointer(tokens.iter().map(String::as_str));
            prop_assert_eq!(field(&pointer), cut(&tokens.join("."), MAX_FIELD_BYTES));
        }
    }
}
