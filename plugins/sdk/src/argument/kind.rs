//! The types of arguments: their ranges, formats and JSON Schemas.

use serde_json::{Map, Value, json};

use super::Spelling;

/// The type of an argument's values, and the values that it accepts.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Integer {
        minimum: i64,
        maximum: i64,
        /// One value outside the range that has a special meaning, such as -1.
        also: Option<i64>,
    },
    Number(Interval),
    Boolean,
    /// A string with a range of lengths in characters.
    Text {
        minimum: usize,
        maximum: usize,
        form: Option<Format>,
    },
    Choice(&'static [&'static str]),
    /// A flat list of strings.
    List(Option<Format>),
}

/// The format of a string.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Describes a valid value. It completes "is not …" in the error.
    pub expected: &'static str,
    pub accepts: fn(&str) -> bool,
}

/// A range of numbers. Each end may be open.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    pub low_open: bool,
    pub high_open: bool,
}

impl Interval {
    /// `[low, high]`
    pub const fn closed(low: f64, high: f64) -> Self {
        Self {
            low,
            high,
            low_open: false,
            high_open: false,
        }
    }

    /// `(low, high]`
    pub const fn above(low: f64, high: f64) -> Self {
        Self {
            low_open: true,
            ..Self::closed(low, high)
        }
    }

    /// `[low, high)`
    pub const fn below(low: f64, high: f64) -> Self {
        Self {
            high_open: true,
            ..Self::closed(low, high)
        }
    }

    fn contains(&self, value: f64) -> bool {
        let low = if self.low_open {
            value > self.low
        } else {
            value >= self.low
        };
        let high = if self.high_open {
            value < self.high
        } else {
            value <= self.high
        };
        low && high
    }
}

impl Kind {
    /// The name of the type in errors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Integer { .. } => "integer",
            Self::Number(_) => "number",
            Self::Boolean => "boolean",
            Self::Text { .. } | Self::Choice(_) => "string",
            Self::List(_) => "list of strings",
        }
    }

    /// The message of an E06 error, if the value is out of range.
    pub(crate) fn out_of_range(&self, value: &Value) -> Option<String> {
        match *self {
            Self::Integer {
                minimum,
                maximum,
                also,
            } => {
                let given = value.as_i64();
                if given.is_some_and(|n| (minimum..=maximum).contains(&n) || also == Some(n)) {
                    return None;
                }
                let or = also.map(|n| format!("{n} or ")).unwrap_or_default();
                Some(format!("{value} is out of range {or}{minimum}..{maximum}"))
            }
            Self::Number(interval) => {
                if value.as_f64().is_some_and(|n| interval.contains(n)) {
                    return None;
                }
                let open = if interval.low_open { '(' } else { '[' };
                let close = if interval.high_open { ')' } else { ']' };
                let Interval { low, high, .. } = interval;
                Some(format!("{value} is out of range {open}{low},{high}{close}"))
            }
            Self::Text {
                minimum, maximum, ..
            } => {
                let length = value.as_str().unwrap_or_default().chars().count();
                (!(minimum..=maximum).contains(&length))
                    .then(|| format!("a length of {length} is out of range {minimum}..{maximum}"))
            }
            _ => None,
        }
    }

    pub(super) fn schema(&self, value_aliases: &[(Spelling, &str)]) -> Map<String, Value> {
        let schema = match *self {
            Self::Integer {
                minimum,
                maximum,
                also: None,
            } => json!({"type": "integer", "minimum": minimum, "maximum": maximum}),
            Self::Integer {
                minimum,
                maximum,
                also: Some(also),
            } => json!({
                "type": "integer",
                "anyOf": [{"const": also}, {"minimum": minimum, "maximum": maximum}],
            }),
            Self::Number(interval) => {
                let low = if interval.low_open {
                    "exclusiveMinimum"
                } else {
                    "minimum"
                };
                let high = if interval.high_open {
                    "exclusiveMaximum"
                } else {
                    "maximum"
                };
                json!({"type": "number", low: interval.low, high: interval.high})
            }
            Self::Boolean => json!({"type": "boolean"}),
            Self::Text {
                minimum,
                maximum,
                form,
            } => {
                let mut schema =
                    json!({"type": "string", "minLength": minimum, "maxLength": maximum});
                if let Some(form) = form {
                    schema["x-form"] = json!(form.expected);
                }
                schema
            }
            Self::Choice(choices) => {
                let aliases = value_aliases.iter().map(|(spelling, _)| spelling.value());
                let choices: Vec<Value> = choices.iter().map(|c| json!(c)).chain(aliases).collect();
                json!({ "enum": choices })
            }
            Self::List(form) => {
                let mut schema = json!({"type": "array", "items": {"type": "string"}});
                if let Some(form) = form {
                    schema["x-form"] = json!(form.expected);
                }
                schema
            }
        };
        match schema {
            Value::Object(schema) => schema,
            _ => Map::new(),
        }
    }
}
