//! What a JSON Schema finds wrong with a value, in words for the person who wrote the value.

mod budget;
mod words;

use std::collections::BTreeMap;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

pub use words::{field, quote, quote_text};

use crate::finding::{Finding, MAX_FINDINGS};
use crate::suggestion::nearest;

/// Most bytes of a compiled regular expression, and of the table that it fills while it matches.
const MAX_PATTERN_BYTES: usize = 64 * 1024;
/// The most keyword checks that a value may take where it is checked at once: about two
/// milliseconds, and 15 MB for what is found.
const MAX_CHECKS: u64 = 50_000;
/// So many bytes of a text count as one value: a regular expression reads them all.
const BYTES_OF_A_VALUE: usize = 16;

/// A compiled JSON Schema (draft 2020-12).
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    /// The most keywords that are checked for one value.
    cost: u64,
    published: Published,
}

/// What a schema says for people.
#[derive(Debug, Default)]
struct Published {
    /// The names of its properties, to offer the nearest for one that is not among them.
    properties: Vec<String>,
    /// Every name that a property is known by (`x-aliases`), with its own.
    names: BTreeMap<String, String>,
    /// What a text looks like that matches a pattern, by pattern (`x-form`).
    forms: BTreeMap<String, String>,
    /// The plugin's own codes for what a schema finds, by the host's (`x-codes`).
    codes: BTreeMap<String, String>,
}

impl Schema {
    /// Compiles a schema. Plugins publish schemas too, so it may neither be large nor make much
    /// work, its references stay within it, and its patterns run in linear time.
    ///
    /// # Errors
    ///
    /// What is wrong with the schema, or which limit it passes.
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

    /// The findings about a value, at most one for each place and not many more than
    /// [`MAX_FINDINGS`]. `root` is where the value is in the request.
    pub fn findings(&self, value: &Value, root: &str) -> Vec<Finding> {
        let nearest = |name: &str| nearest(name, self.properties()).map(str::to_string);
        self.faults_with(value, root, &nearest)
    }

    /// The findings as [`Schema::findings`] has them; `meant` gives the name for a field that is not
    /// known.
    pub fn faults_with(
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
        words::settled(found)
    }

    /// The name of the property that is called so, under this name or another.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.published.names.get(name).map(String::as_str)
    }

    /// The names of the properties.
    pub fn properties(&self) -> impl Iterator<Item = &str> {
        self.published.properties.iter().map(String::as_str)
    }

    /// The findings about a value, as [`Schema::findings`] has them, unless it would take long to
    /// check this value: then only [`Schema::accepts`] may be asked, on a thread that may take long.
    pub fn faults_at_once(&self, value: &Value, root: &str) -> Option<Vec<Finding>> {
        let checks = self.cost.saturating_mul(size(value));
        (checks <= MAX_CHECKS).then(|| self.findings(value, root))
    }

    /// Whether a value fits. This makes no findings, so it takes no memory; how long it takes is
    /// bounded by the cost of the schema and the size of the value only.
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
            names,
            forms: BTreeMap::new(),
            codes: codes
                .filter_map(|(ours, theirs)| Some((ours.clone(), theirs.as_str()?.to_string())))
                .collect(),
        };
        published.note_forms(schema);
        published
    }

    fn note_forms(&mut self, schema: &Value) {
        if let (Some(pattern), Some(form)) = (schema["pattern"].as_str(), schema["x-form"].as_str())
        {
            self.forms.insert(pattern.to_string(), form.to_string());
        }
        match schema {
            Value::Object(members) => members.values().for_each(|value| self.note_forms(value)),
            Value::Array(items) => items.iter().for_each(|value| self.note_forms(value)),
            _ => {}
        }
    }
}

/// How many values there are in a value, with long texts as several.
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
