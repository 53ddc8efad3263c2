//! An argument as its framework's schema describes it, in words.

use std::fmt::Write;

use serde_json::Value;

use super::Framework;
use super::values::takes;

/// An argument, as its schema describes it.
pub(super) struct Argument<'a> {
    pub(super) name: &'a str,
    pub(super) schema: &'a Value,
    presence: Presence,
}

/// Whether a job has to give an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

impl<'a> Argument<'a> {
    pub(super) fn of(framework: &Framework<'a>) -> Vec<Self> {
        let properties = framework.schema["properties"].as_object();
        let properties = properties.into_iter().flatten();
        let mut arguments: Vec<Self> = properties
            .map(|(name, schema)| Self {
                name,
                schema,
                presence: match texts(&framework.schema["required"]).any(|other| other == name) {
                    true => Presence::Required,
                    false => Presence::Optional,
                },
            })
            .collect();
        // JSON objects are unordered. The plugin's order puts the most important first.
        arguments.sort_by_key(|argument| argument.schema["x-order"].as_u64().unwrap_or(u64::MAX));
        arguments
    }

    pub(super) fn is_required(&self) -> bool {
        self.presence == Presence::Required
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        std::iter::once(self.name).chain(texts(&self.schema["x-aliases"]))
    }

    pub(super) fn aliases(&self) -> String {
        texts(&self.schema["x-aliases"])
            .collect::<Vec<_>>()
            .join(", ")
    }

    pub(super) fn text(&self, member: &str) -> &'a str {
        self.schema[member].as_str().unwrap_or_default()
    }

    /// The values that it accepts.
    pub(super) fn values(&self) -> String {
        let mut values = takes(self.schema);
        let unit = self.text("x-unit");
        if !unit.is_empty() {
            let _ = write!(values, " ({unit})");
        }
        match self.presence {
            Presence::Required => values + ", required",
            Presence::Optional => values,
        }
    }

    /// Alternative spellings of its values.
    pub(super) fn value_aliases(&self) -> String {
        let pairs = self.schema["x-value-aliases"].as_array();
        let pairs = pairs.into_iter().flatten();
        let pairs = pairs.map(|pair| format!("{} for {}", plain(&pair[0]), plain(&pair[1])));
        pairs.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn default(&self) -> String {
        match (self.text("x-default"), &self.schema["default"]) {
            ("", Value::Null) => String::new(),
            ("", default) => plain(default),
            (derived, _) => derived.to_string(),
        }
    }
}

pub(super) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// A value for people: strings without quotes, items separated by commas.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
