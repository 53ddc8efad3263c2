//! The maximum cost of validating values against a schema, computed before the schema is compiled.
//!
//! The host runs schemas that plugins publish. They must not be deep, recursive or large, and the
//! cost per value is limited, as the Kubernetes API server limits validation rules.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// The maximum depth, counted through references.
const MAX_DEPTH: usize = 64;
/// The maximum number of values in a schema, including annotations.
const MAX_VALUES: usize = 50_000;
/// The maximum number of subschemas that are reachable from the root.
const MAX_SUBSCHEMAS: usize = 5_000;
/// The maximum number of regular expressions, and the maximum length of one in bytes.
const MAX_PATTERNS: usize = 64;
const MAX_PATTERN_BYTES: usize = 1024;
/// The maximum number of keywords that may be checked for one value of an instance.
const MAX_COST: u64 = 10_000;
/// The cost of a regular expression, in keywords.
const PATTERN_COST: u64 = 50;
/// The cost of `uniqueItems`, which compares items with each other.
const UNIQUE_COST: u64 = 16;
/// `unevaluatedProperties` and `unevaluatedItems` repeat all checks beside them.
const UNEVALUATED_FACTOR: u64 = 4;

/// The cost of a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    /// Keywords that are checked for the value itself.
    here: u64,
    /// The maximum that is checked for any value inside it.
    below: u64,
}

impl Cost {
    fn most(self) -> u64 {
        self.here.max(self.below)
    }
}

/// The maximum number of keywords that a schema checks for one value of an instance.
///
/// # Errors
///
/// Which limit the schema exceeds, or which of its references cannot be resolved.
pub(super) fn cost(schema: &Value) -> Result<u64, String> {
    let mut values = 0;
    count(schema, 0, &mut values)?;
    let mut survey = Survey {
        root: schema,
        known: HashMap::new(),
        patterns: 0,
    };
    let cost = survey.cost(schema, 0)?.most();
    match cost > MAX_COST {
        true => Err(format!(
            "it checks up to {cost} keywords for one value, but at most {MAX_COST} are allowed; \
             combine fewer subschemas with allOf, anyOf, oneOf and $ref"
        )),
        false => Ok(cost.max(1)),
    }
}

fn count(value: &Value, depth: usize, values: &mut usize) -> Result<(), String> {
    *values += 1;
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    if *values > MAX_VALUES {
        return Err(format!("it has more than {MAX_VALUES} values"));
    }
    match value {
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| count(item, depth + 1, values)),
        Value::Object(members) => members
            .values()
            .try_for_each(|member| count(member, depth + 1, values)),
        _ => Ok(()),
    }
}

fn too_deep() -> String {
    format!("it has more than {MAX_DEPTH} levels, counted through its references")
}

/// The subschemas that have been visited.
struct Survey<'a> {
    root: &'a Value,
    /// By address in the tree of the schema. None while the subschema is being visited.
    known: HashMap<*const Value, Option<Cost>>,
    patterns: usize,
}

impl<'a> Survey<'a> {
    fn cost(&mut self, schema: &'a Value, depth: usize) -> Result<Cost, String> {
        let Value::Object(keywords) = schema else {
            // true, false, or a value that the compiler rejects.
            return Ok(Cost { here: 1, below: 0 });
        };
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        match self.known.get(&std::ptr::from_ref(schema)) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => {
                return Err(
                    "a $ref is recursive: it refers to a schema that contains it".to_string(),
                );
            }
            None => self.known.insert(schema, None),
        };
        if self.known.len() > MAX_SUBSCHEMAS {
            return Err(format!("it has more than {MAX_SUBSCHEMAS} subschemas"));
        }
        let cost = self.of_keywords(keywords, depth)?;
        self.known.insert(schema, Some(cost));
        Ok(cost)
    }

    fn of_keywords(
        &mut self,
        keywords: &'a Map<String, Value>,
        depth: usize,
    ) -> Result<Cost, String> {
        let mut cost = Cost { here: 1, below: 0 };
        for (keyword, value) in keywords {
            let of_keyword = self.of_keyword(keyword, value, depth)?;
            cost.here = cost.here.saturating_add(of_keyword.here);
            cost.below = cost.below.saturating_add(of_keyword.below);
        }
        for keyword in ["unevaluatedProperties", "unevaluatedItems"] {
            if keywords.contains_key(keyword) {
                cost.here = cost.here.saturating_mul(UNEVALUATED_FACTOR);
                cost.below = cost.below.saturating_mul(UNEVALUATED_FACTOR);
            }
        }
        Ok(cost)
    }

    fn of_keyword(
        &mut self,
        keyword: &str,
        value: &'a Value,
        depth: usize,
    ) -> Result<Cost, String> {
        let here = |here: u64| Ok(Cost { here, below: 0 });
        match keyword {
            "$ref" => self.of_reference(value, depth),
            "$dynamicRef" | "$recursiveRef" => Err(format!("{keyword} is not supported")),
            "$id" if depth > 0 => Err("$id is only allowed at the root".to_string()),
            "allOf" | "anyOf" | "oneOf" | "dependentSchemas" | "dependencies" => {
                self.sum(children(value), depth)
            }
            "not" | "if" | "then" | "else" => self.cost(value, depth + 1),
            "properties" | "prefixItems" => {
                // Only one of these schemas applies to a value.
                let within = self.most(children(value), depth)?;
                Ok(Cost {
                    here: 1 + size(value) / 4,
                    below: within,
                })
            }
            "patternProperties" => {
                let patterns = value.as_object().into_iter().flatten();
                let patterns: Vec<&String> = patterns.map(|(pattern, _)| pattern).collect();
                for pattern in &patterns {
                    self.pattern(pattern)?;
                }
                Ok(Cost {
                    here: PATTERN_COST * patterns.len() as u64,
                    // One name can match all patterns.
                    below: self.sum(children(value), depth)?.most(),
                })
            }
            "items" if value.is_array() => Ok(Cost {
                here: 1,
                below: self.most(children(value), depth)?,
            }),
            "items"
            | "additionalItems"
            | "additionalProperties"
            | "contains"
            | "propertyNames"
            | "unevaluatedItems"
            | "unevaluatedProperties" => Ok(Cost {
                here: 1,
                below: self.cost(value, depth + 1)?.most(),
            }),
            "pattern" => {
                self.pattern(value.as_str().unwrap_or_default())?;
                here(PATTERN_COST)
            }
            "enum" | "const" | "required" | "dependentRequired" => here(size(value)),
            "uniqueItems" => here(UNIQUE_COST),
            "$defs" | "definitions" | "title" | "description" | "default" | "examples" => here(0),
            keyword if keyword.starts_with("x-") => here(0),
            _ => here(1),
        }
    }

    fn of_reference(&mut self, reference: &Value, depth: usize) -> Result<Cost, String> {
        let reference = reference.as_str().unwrap_or_default();
        let pointer = reference.strip_prefix('#');
        let found = pointer
            .filter(|pointer| pointer.is_empty() || pointer.starts_with('/'))
            .and_then(|pointer| self.root.pointer(pointer));
        let shown: String = reference.chars().take(64).collect();
        let target = found.ok_or_else(|| {
            format!(
                "$ref {shown:?} does not exist in this schema; use a pointer such as \
                 \"#/$defs/name\" with letters, digits, '-' and '_' in names"
            )
        })?;
        self.cost(target, depth + 1)
    }

    fn pattern(&mut self, pattern: &str) -> Result<(), String> {
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            return Err(format!("it has more than {MAX_PATTERNS} patterns"));
        }
        let size = pattern.len();
        match size > MAX_PATTERN_BYTES {
            true => Err(format!(
                "it has a pattern of {size} bytes, but at most {MAX_PATTERN_BYTES} are allowed"
            )),
            false => Ok(()),
        }
    }

    /// The cost of schemas that all apply to the same value.
    fn sum(&mut self, schemas: Vec<&'a Value>, depth: usize) -> Result<Cost, String> {
        let mut sum = Cost::default();
        for schema in schemas {
            let cost = self.cost(schema, depth + 1)?;
            sum.here = sum.here.saturating_add(cost.here);
            sum.below = sum.below.saturating_add(cost.below);
        }
        Ok(sum)
    }

    /// The maximum cost of schemas of which only one applies to a value.
    fn most(&mut self, schemas: Vec<&'a Value>, depth: usize) -> Result<u64, String> {
        let mut most = 0;
        for schema in schemas {
            most = most.max(self.cost(schema, depth + 1)?.most());
        }
        Ok(most)
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

/// The number of values in a value, including itself. [`count`] has limited it.
fn size(value: &Value) -> u64 {
    1 + children(value).into_iter().map(size).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(schema: &Value) -> String {
        cost(schema).unwrap_err()
    }

    /// `allOf` of the same reference twice, nested: each level doubles the work.
    fn doubling(levels: usize, keyword: &str) -> Value {
        let mut defs = Map::new();
        for level in 0..levels {
            let next = json!({"$ref": format!("#/$defs/a{}", level + 1)});
            defs.insert(format!("a{level}"), json!({keyword: [next, next]}));
        }
        defs.insert(format!("a{levels}"), json!({"type": "object"}));
        json!({"$defs": defs, "$ref": "#/$defs/a0"})
    }

    #[test]
    fn an_ordinary_schema_is_cheap() {
        let schema = json!({
            "type": "object",
            "properties": {
                "lr": {"type": "number", "exclusiveMinimum": 0},
                "names": {"type": "array", "items": {"$ref": "#/$defs/name"}},
            },
            "$defs": {"name": {"type": "string", "pattern": "^[a-z]+$"}},
        });
        assert!(cost(&schema).unwrap() < 100);
        assert_eq!(cost(&json!(true)), Ok(1));
    }

    #[test]
    fn work_that_doubles_with_each_level_is_refused() {
        for keyword in ["allOf", "anyOf", "oneOf"] {
            assert!(cost(&doubling(8, keyword)).is_ok());
            let message = refused(&doubling(29, keyword));
            assert!(message.contains("keywords for one value"), "{message}");
        }
    }

    #[test]
    fn chains_recursion_and_depth_are_refused() {
        let chain = |length: usize| {
            let mut defs = Map::new();
            for level in 0..length {
                let next = format!("#/$defs/a{}", level + 1);
                defs.insert(format!("a{level}"), json!({"$ref": next}));
            }
            defs.insert(format!("a{length}"), json!(true));
            json!({"$defs": defs, "$ref": "#/$defs/a0"})
        };
        assert!(cost(&chain(20)).is_ok());
        assert!(refused(&chain(100)).contains("levels, counted"));
        assert!(refused(&chain(8000)).contains("levels, counted"));
        let itself = json!({"properties": {"a": {"$ref": "#"}}});
        assert!(refused(&itself).contains("is recursive"));
        let mut deep = json!({});
        for _ in 0..100 {
            deep = json!({"not": deep});
        }
        assert!(refused(&deep).contains("levels, counted"));
    }

    #[test]
    fn references_stay_within_the_schema() {
        for reference in [
            "http://localhost/x",
            "#name",
            "#/$defs/missing",
            "other.json",
        ] {
            let message = refused(&json!({"$ref": reference}));
            assert!(
                message.contains("does not exist in this schema"),
                "{message}"
            );
        }
        assert!(refused(&json!({"not": {"$id": "x"}})).contains("$id"));
        assert!(refused(&json!({"$dynamicRef": "#x"})).contains("not supported"));
    }

    #[test]
    fn many_patterns_long_patterns_and_many_values_are_refused() {
        let pattern = |at: usize| (format!("p{at}"), json!({"pattern": format!("x{at}")}));
        let properties: Map<String, Value> = (0..140).map(pattern).collect();
        let message = refused(&json!({"properties": properties}));
        assert!(message.contains("patterns"), "{message}");
        let message = refused(&json!({"pattern": "x".repeat(2000)}));
        assert!(message.contains("2000 bytes"), "{message}");
        let message = refused(&json!({"enum": vec![0; 60_000]}));
        assert!(message.contains("50000 values"), "{message}");
        let message = refused(&json!({"enum": vec![0; 20_000]}));
        assert!(message.contains("keywords for one value"), "{message}");
    }

    #[test]
    fn unevaluated_keywords_count_again() {
        let mut schema = json!({"type": "object"});
        for _ in 0..10 {
            schema = json!({"allOf": [schema], "unevaluatedProperties": false});
        }
        assert!(refused(&schema).contains("keywords for one value"));
    }
}
