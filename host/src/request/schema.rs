//! What a JSON Schema finds wrong with a value, in words for the person who wrote the value.

use jsonschema::{
    JsonType, PatternOptions, ValidationError, Validator, error::TypeKind,
    error::ValidationErrorKind as Kind,
};
use serde_json::Value;

use crate::fault::{Fault, pointer};
use crate::suggestion::did_you_mean;

/// Longest piece of a wrong value that a fault repeats.
const MAX_QUOTE_BYTES: usize = 64;

/// A compiled JSON Schema (draft 2020-12).
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    /// The names of its properties, to offer the nearest for one that is not among them.
    properties: Vec<String>,
}

impl Schema {
    /// Compiles a schema. References outside of it are refused, and patterns run in linear time,
    /// since plugins publish schemas too.
    ///
    /// # Errors
    ///
    /// What is wrong with the schema.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let validator = jsonschema::draft202012::options()
            .with_pattern_options(PatternOptions::regex())
            .build(schema)
            .map_err(|error| error.to_string())?;
        let properties = schema["properties"].as_object();
        let properties = properties.map(|p| p.keys().cloned().collect());
        Ok(Self {
            validator,
            properties: properties.unwrap_or_default(),
        })
    }

    /// Every fault of a value. `root` is where the value stands in the request.
    pub fn faults(&self, value: &Value, root: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        for error in self.validator.iter_errors(value) {
            describe(&error, &self.properties, root, &mut faults);
        }
        faults
    }
}

fn describe(error: &ValidationError, known: &[String], root: &str, faults: &mut Vec<Fault>) {
    let at = format!("{root}{}", error.instance_path().as_str());
    let name = field(&at);
    let value = error.instance();
    let (code, what) = match error.kind() {
        Kind::Required { property } => {
            let property = property.as_str().unwrap_or_default();
            let at = format!("{at}{}", pointer([property]));
            let detail = format!("{}: required, but missing", field(&at));
            return faults.push(Fault::new("required", at, detail));
        }
        Kind::AdditionalProperties { unexpected } => {
            faults.extend(unexpected.iter().map(|property| {
                let at = format!("{at}{}", pointer([property.as_str()]));
                let hint = did_you_mean(property, known.iter().map(String::as_str));
                let detail = format!("unknown field {}{hint}", quote(&property.as_str().into()));
                Fault::new("unknown-field", at, detail)
            }));
            return;
        }
        Kind::PropertyNames { error } => {
            let key = error.instance().as_str().unwrap_or_default().to_string();
            let at = format!("{at}{}", pointer([key.as_str()]));
            let detail = format!(
                "{name}: {} is not a valid name here",
                quote(error.instance())
            );
            return faults.push(Fault::new("name", at, detail));
        }
        Kind::Type { kind } => (
            "type",
            format!("expected {}, got {}", types(kind), quote(value)),
        ),
        Kind::Enum { options } => {
            let options = options.as_array().map_or(&[][..], Vec::as_slice);
            let options: Vec<String> = options.iter().map(Value::to_string).collect();
            let what = format!("{} is not one of {}", quote(value), options.join(", "));
            ("choice", what)
        }
        Kind::Minimum { limit } => ("range", format!("{value} is less than {limit}")),
        Kind::Maximum { limit } => ("range", format!("{value} is more than {limit}")),
        Kind::ExclusiveMinimum { limit } => ("range", format!("{value} is not more than {limit}")),
        Kind::ExclusiveMaximum { limit } => ("range", format!("{value} is not less than {limit}")),
        Kind::MinLength { limit: 1 } => ("length", "must not be empty".to_string()),
        Kind::MinLength { limit } => ("length", format!("shorter than {limit} characters")),
        Kind::MaxLength { limit } => ("length", format!("longer than {limit} characters")),
        Kind::MaxProperties { limit } => ("length", format!("more than {limit} members")),
        Kind::Pattern { pattern } => (
            "format",
            format!("{} does not match {pattern}", quote(value)),
        ),
        // Keywords that only a plugin's schema uses; the library's sentence names value and rule.
        _ => ("schema", shortened(&error.to_string())),
    };
    faults.push(Fault::new(code, at, format!("{name}: {what}")));
}

/// The name of a field as a person says it: `extra_args.lr` for `/extra_args/lr`.
pub fn field(pointer: &str) -> String {
    match pointer.strip_prefix('/') {
        Some(tokens) => tokens
            .replace('/', ".")
            .replace("~1", "/")
            .replace("~0", "~"),
        None => "request".to_string(),
    }
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

/// A value as JSON, shortened.
pub fn quote(value: &Value) -> String {
    shortened(&value.to_string())
}

fn shortened(text: &str) -> String {
    match text.len() {
        0..=MAX_QUOTE_BYTES => text.to_string(),
        _ => format!("{}…", &text[..text.floor_char_boundary(MAX_QUOTE_BYTES)]),
    }
}
