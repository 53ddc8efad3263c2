//! The values that a schema takes, in words.

use serde_json::Value;

use super::argument::{plain, texts};

/// Maximum depth to which unions and lists are described.
const MOST_DEPTH: usize = 4;

/// What values a schema takes.
pub(super) fn takes(schema: &Value) -> String {
    takes_at(schema, 0)
}

fn takes_at(schema: &Value, depth: usize) -> String {
    if depth >= MOST_DEPTH {
        return "any".to_string();
    }
    if !schema["enum"].is_null() {
        return format!("one of {}", choices(schema));
    }
    if let Some(value) = schema.get("const") {
        return plain(value);
    }
    match &schema["type"] {
        Value::String(kind) => of_type(kind, schema, depth),
        Value::Array(_) => {
            let kinds = texts(&schema["type"]).map(|kind| of_type(kind, schema, depth));
            joined(kinds)
        }
        _ => {
            let unions = ["anyOf", "oneOf"].map(|name| schema[name].as_array());
            match unions.into_iter().flatten().next() {
                Some(parts) => joined(parts.iter().map(|part| takes_at(part, depth + 1))),
                None => "any".to_string(),
            }
        }
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" or ")
}

fn of_type(kind: &str, schema: &Value, depth: usize) -> String {
    match kind {
        "integer" => format!("integer{}", whole_range(schema)),
        "number" => format!("number{}", range(schema)),
        "string" => with_form(&text_range(schema), schema),
        "array" => {
            let items = match &schema["items"] {
                items @ Value::Object(_) => takes_at(items, depth + 1),
                _ => "any".to_string(),
            };
            with_form(&format!("list of {}", plural(&items)), schema)
        }
        other => other.to_string(),
    }
}

/// The SDK's lists are of strings without anything else.
fn plural(items: &str) -> String {
    match items {
        "string" => "strings".to_string(),
        items => items.to_string(),
    }
}

fn whole_range(schema: &Value) -> String {
    if let Some([also, rest]) = schema["anyOf"].as_array().map(Vec::as_slice)
        && let Some(also) = also.get("const")
    {
        return format!(" {also} or{}", whole_range(rest));
    }
    let least = schema["minimum"].as_i64();
    let least = least.or_else(|| Some(schema["exclusiveMinimum"].as_i64()?.saturating_add(1)));
    let most = schema["maximum"].as_i64();
    let most = most.or_else(|| Some(schema["exclusiveMaximum"].as_i64()?.saturating_sub(1)));
    match (least, most) {
        (Some(least), Some(most)) => format!(" {least}..{most}"),
        (Some(least), None) => format!(" of at least {least}"),
        (None, Some(most)) => format!(" of at most {most}"),
        (None, None) => String::new(),
    }
}

fn range(schema: &Value) -> String {
    let low = match (
        schema["exclusiveMinimum"].as_f64(),
        schema["minimum"].as_f64(),
    ) {
        (Some(low), _) => Some(format!("({low}")),
        (None, Some(low)) => Some(format!("[{low}")),
        (None, None) => None,
    };
    let high = match (
        schema["exclusiveMaximum"].as_f64(),
        schema["maximum"].as_f64(),
    ) {
        (Some(high), _) => Some(format!("{high})")),
        (None, Some(high)) => Some(format!("{high}]")),
        (None, None) => None,
    };
    match (low, high) {
        (None, None) => String::new(),
        (low, high) => {
            let low = low.unwrap_or_else(|| "(-inf".to_string());
            let high = high.unwrap_or_else(|| "inf)".to_string());
            format!(" {low},{high}")
        }
    }
}

fn text_range(schema: &Value) -> String {
    let length = |member: &str| schema[member].as_u64();
    match (length("minLength"), length("maxLength")) {
        (Some(least), Some(most)) => format!("string of {least}..{most} characters"),
        (Some(least), None) => format!("string of at least {least} characters"),
        (None, Some(most)) => format!("string of at most {most} characters"),
        (None, None) => "string".to_string(),
    }
}

fn with_form(kind: &str, schema: &Value) -> String {
    match (schema["x-form"].as_str(), schema["pattern"].as_str()) {
        (Some(form), _) => format!("{kind}: {form}"),
        (None, Some(pattern)) => format!("{kind} that matches {pattern}"),
        (None, None) => kind.to_string(),
    }
}

/// The words it takes, without those that are other spellings.
fn choices(schema: &Value) -> String {
    let others = schema["x-value-aliases"].as_array();
    let is_other = |value: &&Value| {
        let mut others = others.into_iter().flatten();
        others.any(|pair| &pair[0] == *value)
    };
    let choices = schema["enum"].as_array().into_iter().flatten();
    let choices: Vec<String> = choices.filter(|c| !is_other(c)).map(plain).collect();
    choices.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_that_are_not_the_sdks_are_told_as_well() {
        for (schema, expected) in [
            (
                json!({"type": "integer", "minimum": 1}),
                "integer of at least 1",
            ),
            (
                json!({"type": "integer", "exclusiveMaximum": 8}),
                "integer of at most 7",
            ),
            (json!({"type": "integer"}), "integer"),
            (json!({"type": "number"}), "number"),
            (
                json!({"type": "number", "exclusiveMinimum": 0}),
                "number (0,inf)",
            ),
            (
                json!({"type": "number", "maximum": 1.5}),
                "number (-inf,1.5]",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                "string that matches ^a+$",
            ),
            (
                json!({"type": "string", "maxLength": 9}),
                "string of at most 9 characters",
            ),
            (json!({"type": ["integer", "null"]}), "integer or null"),
            (
                json!({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
                "integer of at least 1 or auto",
            ),
            (json!({"type": "string", "enum": ["a", "b"]}), "one of a, b"),
            (
                json!({"type": "array", "items": {"type": "integer"}}),
                "list of integer",
            ),
            (json!({"type": "array"}), "list of any"),
            (json!({}), "any"),
            (json!(true), "any"),
        ] {
            assert_eq!(takes(&schema), expected, "{schema}");
        }
    }

    #[test]
    fn a_schema_without_end_is_told_shortly() {
        let mut schema = json!({"type": "integer"});
        for _ in 0..50 {
            schema = json!({"anyOf": [schema, {"type": "null"}]});
        }
        assert!(takes(&schema).len() < 100, "{}", takes(&schema));
    }
}
