//! What a host accepts in the schema of a plugin, and its author did not mean.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Schema;
use crate::suggestion::did_you_mean;

/// The draft that hosts read.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Its keywords.
const KEYWORDS: &[&str] = &[
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "dependentRequired",
    "dependentSchemas",
    "deprecated",
    "description",
    "else",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "items",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "readOnly",
    "required",
    "then",
    "title",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    "writeOnly",
];
/// Keywords whose members are schemas, whose items are, and that are one.
const OF_MEMBERS: &[&str] = &[
    "$defs",
    "dependentSchemas",
    "patternProperties",
    "properties",
];
const OF_ITEMS: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
const OF_ONE: &[&str] = &[
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// So deep schemas are read.
const MOST_DEPTH: usize = 64;

/// The mistakes in a schema of `extra_args`, a sentence each. `fields` are those of a request.
pub fn mistakes(schema: &Value, fields: &BTreeSet<&str>) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(draft) = schema.get("$schema")
        && draft.as_str().map(|draft| draft.trim_end_matches('#')) != Some(DRAFT)
    {
        found.push(format!("$schema is {draft}, and a host reads {DRAFT}"));
    }
    if schema.get("type").is_some_and(|kind| kind != "object") {
        found.push(format!(
            "type is {}, and extra_args is always an object",
            schema["type"]
        ));
    }
    unknown_keywords(schema, "", 0, &mut found);
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, property) in properties {
        if fields.contains(name.as_str()) {
            found.push(format!(
                "properties.{name} is called as a field of the request, where people will give it"
            ));
        }
        found.extend(wrong_default(name, property));
        found.extend(wrong_aliases(name, property));
    }
    found
}

fn unknown_keywords(schema: &Value, place: &str, depth: usize, found: &mut Vec<String>) {
    let Some(members) = schema.as_object().filter(|_| depth < MOST_DEPTH) else {
        return;
    };
    for (name, value) in members {
        let at = match place {
            "" => name.clone(),
            place => format!("{place}.{name}"),
        };
        let is_known =
            KEYWORDS.contains(&name.as_str()) || name.starts_with('$') || name.starts_with("x-");
        if !is_known {
            let hint = did_you_mean(name, KEYWORDS.iter().copied());
            found.push(format!("{at} is not a keyword of JSON Schema{hint}"));
        }
        let depth = depth + 1;
        if OF_MEMBERS.contains(&name.as_str()) {
            for (member, schema) in value.as_object().into_iter().flatten() {
                unknown_keywords(schema, &format!("{at}.{member}"), depth, found);
            }
        }
        if OF_ITEMS.contains(&name.as_str()) {
            for (index, schema) in value.as_array().into_iter().flatten().enumerate() {
                unknown_keywords(schema, &format!("{at}[{index}]"), depth, found);
            }
        }
        if OF_ONE.contains(&name.as_str()) {
            unknown_keywords(value, &at, depth, found);
        }
    }
}

/// A default that the property itself would refuse. One that refers to other places is left out.
fn wrong_default(name: &str, property: &Value) -> Option<String> {
    let default = property.get("default")?;
    let compiled = Schema::compile(property).ok()?;
    (!compiled.accepts(default)).then(|| {
        format!("properties.{name}.default is {default}, which the property itself does not take")
    })
}

fn wrong_aliases(name: &str, property: &Value) -> Option<String> {
    let names = |value: &Value| {
        let items = value.as_array();
        items.is_some_and(|items| items.iter().all(Value::is_string))
    };
    let pairs = |value: &Value| {
        let items = value.as_array();
        items.is_some_and(|items| {
            let is_pair = |pair: &Value| pair.as_array().is_some_and(|pair| pair.len() == 2);
            items.iter().all(is_pair)
        })
    };
    let property: &Map<String, Value> = property.as_object()?;
    if property.get("x-aliases").is_some_and(|value| !names(value)) {
        return Some(format!(
            "properties.{name}.x-aliases is not a list of names"
        ));
    }
    let values = property.get("x-value-aliases");
    values.is_some_and(|value| !pairs(value)).then(|| {
        format!(
            "properties.{name}.x-value-aliases is not a list of pairs of a spelling and its value"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: Value) -> Vec<String> {
        mistakes(&schema, &["num_nodes", "model_id"].into())
    }

    #[test]
    fn a_schema_without_mistakes_has_none() {
        let schema = json!({
            "$schema": DRAFT,
            "type": "object",
            "properties": {
                "lr": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "default": 2e-5,
                    "x-aliases": ["learning_rate"],
                    "x-value-aliases": [["high", 1.0]],
                    "x-order": 1,
                },
                // A property name is not a keyword.
                "minimun": {"anyOf": [{"type": "integer"}, {"const": "auto"}]},
            },
            "additionalProperties": false,
        });
        assert_eq!(of(schema), Vec::<String>::new());
    }

    #[test]
    fn each_mistake_is_named_with_its_place() {
        for (schema, expected) in [
            (
                json!({"properties": {"lr": {"type": "number", "minimun": 0}}}),
                "properties.lr.minimun is not a keyword of JSON Schema, did you mean \"minimum\"?",
            ),
            (
                json!({"properties": {"lr": {"anyOf": [{}, {"maxlength": 3}]}}}),
                "properties.lr.anyOf[1].maxlength is not a keyword of JSON Schema, did you mean \
                 \"maxLength\"?",
            ),
            (
                json!({"properties": {"lr": {"maximum": 1, "default": 2}}}),
                "properties.lr.default is 2, which the property itself does not take",
            ),
            (
                json!({"type": "array"}),
                "type is \"array\", and extra_args is always an object",
            ),
            (
                json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
                "$schema is \"http://json-schema.org/draft-07/schema#\", and a host reads \
                 https://json-schema.org/draft/2020-12/schema",
            ),
            (
                json!({"properties": {"num_nodes": {}}}),
                "properties.num_nodes is called as a field of the request, where people will give it",
            ),
            (
                json!({"properties": {"lr": {"x-aliases": "rate"}}}),
                "properties.lr.x-aliases is not a list of names",
            ),
            (
                json!({"properties": {"lr": {"x-value-aliases": {"a": 1}}}}),
                "properties.lr.x-value-aliases is not a list of pairs of a spelling and its value",
            ),
        ] {
            assert_eq!(of(schema), [expected]);
        }
    }
}
