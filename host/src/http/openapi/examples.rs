//! Examples of responses.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::SCHEMAS;
use super::operations::{OPERATIONS, Operation};
use crate::finding::{Kind, TYPE_PREFIX};

/// Examples of responses, by the names of their schemas, and of texts.
static EXAMPLES: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    // A test parses it.
    serde_json::from_str(include_str!("examples.json")).unwrap_or_default()
});

/// The responses with a problem document, one for each status, with an example of each kind.
pub(super) fn problems() -> Value {
    let mut responses = Map::new();
    for status in OPERATIONS.iter().flat_map(Operation::refusals) {
        let kinds = Kind::ALL.iter().filter(|kind| kind.status() == status);
        let examples = kinds.map(|kind| (kind.as_str().to_string(), example_of(*kind)));
        let mut problem = json!({"schema": {"$ref": format!("#{SCHEMAS}/Problem")}});
        problem["examples"] = examples.collect::<Map<String, Value>>().into();
        let response = json!({
            "description": "A problem document",
            "content": {"application/problem+json": problem},
        });
        responses.insert(format!("Problem{status}"), response);
    }
    Value::Object(responses)
}

/// An example of a problem document.
fn example_of(kind: Kind) -> Value {
    let detail = format!("{}; {}", kind.about(), kind.remedy());
    let mut problem = json!({
        "type": format!("{TYPE_PREFIX}{}", kind.as_str()),
        "title": kind.title(),
        "status": kind.status(),
        "detail": detail,
        "instance": "7d4ae8c2-5a4a-4c0e-9a53-6a1f0c1f3a55",
    });
    if kind == Kind::InvalidRequest {
        problem["detail"] = EXAMPLES["Finding"]["detail"].clone();
        problem["errors"] = json!([EXAMPLES["Finding"]]);
    }
    json!({"summary": kind.title(), "value": problem})
}

/// All examples except those of problems, by name.
pub(super) fn all() -> Value {
    let examples = EXAMPLES.iter();
    let examples = examples.map(|(name, value)| (name.clone(), json!({"value": value})));
    Value::Object(examples.collect())
}

/// References to the examples with these names, as far as there are some.
pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Map<String, Value> {
    let known = names.filter(|name| EXAMPLES.contains_key(*name));
    let reference = |name: &str| json!({"$ref": format!("#/components/examples/{name}")});
    known.map(|name| (name.into(), reference(name))).collect()
}
