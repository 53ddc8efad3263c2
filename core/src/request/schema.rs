//! Validates values against a JSON Schema and describes violations to the author of the value.

mod budget;
pub mod mistakes;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

pub use words::{field, quote, quote_text};

use crate::finding::{Code, Finding, MAX_FINDINGS};
use crate::suggestion::nearest;

/// The maximum size in bytes of a compiled regular expression, and of the table that it fills while
/// matching.
const MAX_PATTERN_BYTES: usize = 64 * 1024;
/// The maximum number of keyword checks for a value that is validated inline: about two
/// milliseconds, and 15 MB for the findings.
const MAX_CHECKS: u64 = 50_000;
/// This many bytes of a string count as one value, because a regular expression reads them all.
const BYTES_OF_A_VALUE: usize = 16;

/// A compiled JSON Schema (draft 2020-12).
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    /// The maximum number of keywords that are checked for one value.
    cost: u64,
    published: Published,
}

/// The parts of a schema that messages use.
#[derive(Debug, Default)]
struct Published {
    /// The names of the properties, for suggestions.
    properties: Vec<String>,
    /// The names of the properties of its parts too.
    all_properties: BTreeSet<String>,
    /// The property for each name and alias (`x-aliases`).
    names: BTreeMap<String, String>,
    /// Descriptions of patterns (`x-form`), by pattern.
    forms: BTreeMap<String, String>,
    /// The plugin's own codes for the host's codes (`x-codes`).
    codes: BTreeMap<String, String>,
}

impl Schema {
    /// Compiles a schema. Schemas of plugins are untrusted, so their size and validation cost are
    /// limited, references must stay within the schema, and patterns run in linear time.
    ///
    /// # Errors
    ///
    /// What is wrong with the schema, or which limit it exceeds.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let cost = budget::cost(schema)?;
        let patterns = PatternOptions::regex()
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = jsonschema::draft202012::options()
            .with_pattern_options(patterns)
            .build(schema)
            .map_err(|error| words::sentence(&error.to_string()))?;
        Ok(Self {
            validator,
            cost,
            published: Published::of(schema),
        })
    }

    /// The findings about a value: at most one per place, and not many more than [`MAX_FINDINGS`].
    /// `root` is the pointer to the value in the request.
    pub fn findings(&self, value: &Value, root: &str) -> Vec<Finding> {
        let nearest = |name: &str| nearest(name, self.properties()).map(str::to_string);
        self.findings_with(value, root, &nearest)
    }

    /// The same findings as [`Schema::findings`]; `meant` suggests a name for an unknown field.
    pub fn findings_with(
        &self,
        value: &Value,
        root: &str,
        meant: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Finding> {
        let mut found = Vec::new();
        for error in self.validator.iter_errors(value) {
            words::describe(&error, &self.published, root, meant, &mut found);
            if found.len() > MAX_FINDINGS {
                break;
            }
        }
        words::deduplicated(found)
    }

    /// The property with this name or alias.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.published.names.get(name).map(String::as_str)
    }

    /// The names of the properties.
    pub fn properties(&self) -> impl Iterator<Item = &str> {
        self.published.properties.iter().map(String::as_str)
    }

    /// The same findings as [`Schema::findings`], with suggestions from the properties at any depth.
    pub fn findings_at_any_depth(&self, value: &Value) -> Vec<Finding> {
        let known = || self.published.all_properties.iter().map(String::as_str);
        self.findings_with(value, "", &|name| {
            nearest(name, known()).map(str::to_string)
        })
    }

    /// The same findings as [`Schema::findings`], or None if checking this value could take long.
    /// Then call [`Schema::accepts`] on a thread that may block.
    pub fn findings_inline(&self, value: &Value, root: &str) -> Option<Vec<Finding>> {
        let checks = self.cost.saturating_mul(size(value));
        (checks <= MAX_CHECKS).then(|| self.findings(value, root))
    }

    /// Whether a value is valid. This creates no findings and so needs no memory; only the cost of
    /// the schema and the size of the value limit how long it takes.
    pub fn accepts(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }
}

impl Published {
    fn of(schema: &Value) -> Self {
        let properties = schema["properties"].as_object().into_iter().flatten();
        let mut names = BTreeMap::new();
        for (name, property) in properties.clone() {
            let aliases = property["x-aliases"].as_array().into_iter().flatten();
            for alias in aliases.filter_map(Value::as_str).chain([name.as_str()]) {
                names.insert(alias.to_string(), name.clone());
            }
        }
        let codes = schema["x-codes"].as_object().into_iter().flatten();
        let mut published = Self {
            properties: properties.map(|(name, _)| name.clone()).collect(),
            all_properties: BTreeSet::new(),
            names,
            forms: BTreeMap::new(),
            codes: codes
                .filter_map(|(ours, theirs)| Some((ours.clone(), theirs.as_str()?.to_string())))
                .collect(),
        };
        published.note(schema);
        published
    }

    /// The code of a finding that the schema makes: the plugin's own where it publishes one.
    fn code(&self, code: Code) -> &str {
        let own = self.codes.get(code.as_str());
        own.map_or(code.as_str(), String::as_str)
    }

    /// Notes what stands at any depth of the schema.
    fn note(&mut self, schema: &Value) {
        if let (Some(pattern), Some(form)) = (schema["pattern"].as_str(), schema["x-form"].as_str())
        {
            self.forms.insert(pattern.to_string(), form.to_string());
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        self.all_properties
            .extend(properties.map(|(name, _)| name.clone()));
        match schema {
            Value::Object(members) => members.values().for_each(|value| self.note(value)),
            Value::Array(items) => items.iter().for_each(|value| self.note(value)),
            _ => {}
        }
    }
}

/// The number of values in a value. Long strings count as several.
fn size(value: &Value) -> u64 {
    match value {
        Value::String(text) => 1 + (text.len() / BYTES_OF_A_VALUE) as u64,
        Value::Array(items) => 1 + items.iter().map(size).sum::<u64>(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.len() / BYTES_OF_A_VALUE) as u64 + size(value))
            .sum::<u64>()
            .saturating_add(1),
        _ => 1,
    }
}
