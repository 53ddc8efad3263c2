//! A value of `extra_args` against its argument, and as one word of a command line.

use serde_json::{Number, Value};

use crate::argument::Spelling;
use crate::{Argument, Kind};

/// Most bytes of JSON in one value.
const MAX_VALUE_BYTES: usize = 4096;
/// Most bytes of a wrong value that an error repeats.
const MAX_QUOTE_BYTES: usize = 64;

/// Whether two values of an argument are one: 1 and 1.0 are the same number.
pub(super) fn same(first: &Value, second: &Value) -> bool {
    let float = first.is_f64() || second.is_f64();
    first == second || float && first.is_number() && first.as_f64() == second.as_f64()
}

/// Keeps the shorter spelling of two equal values, so that their order makes no difference.
pub(super) fn keep_shorter(kept: &mut Value, other: Value) {
    if other.to_string().len() < kept.to_string().len() {
        *kept = other;
    }
}

/// What is wrong with a value: the sentence goes after the name of its key.
pub(crate) struct Wrong {
    pub(super) code: &'static str,
    pub(super) what: String,
}

impl Wrong {
    pub(super) fn new(code: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { code, what }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.what)
    }
}

/// The value of a known argument in its canonical form.
pub(crate) fn checked(argument: &Argument, value: Value) -> Result<Value, Wrong> {
    let value = canonical_spelling(argument, value);
    // Checks that the schema expresses come first: the host may find these errors itself.
    let value = typed(&argument.kind, value)?;
    if let Some(range) = argument.kind.out_of_range(&value) {
        return Err(Wrong::new("E06", range));
    }
    if let (Kind::Choice(choices), Value::String(text)) = (&argument.kind, &value)
        && !choices.contains(&text.as_str())
    {
        let mut excluded = argument.excluded.iter();
        let why = excluded.find(|excluded| excluded.value == text);
        let why = why.map_or_else(String::new, |excluded| format!(": {}", excluded.why));
        return Err(other_than(
            text,
            &format!("one of {}{why}", choices.join(", ")),
        ));
    }
    let value = forwardable(value)?;
    let (Kind::Text { form, .. } | Kind::List(form)) = argument.kind else {
        return Ok(value);
    };
    let Some(form) = form else {
        return Ok(value);
    };
    let texts = value.as_array().map_or(std::slice::from_ref(&value), |a| a);
    let mut texts = texts.iter().filter_map(as_string);
    match texts.find(|text| !(form.accepts)(text)) {
        Some(text) => Err(other_than(text, form.expected)),
        None => Ok(value),
    }
}

fn other_than(text: &str, expected: &str) -> Wrong {
    Wrong::new("E07", format!("'{}' is not {expected}", shortened(text)))
}

fn as_string(value: &Value) -> Option<&String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn canonical_spelling(argument: &Argument, value: Value) -> Value {
    let alias = argument
        .value_aliases
        .iter()
        .find(|(spelling, _)| match spelling {
            Spelling::Text(text) => value.as_str() == Some(*text),
            Spelling::Boolean(boolean) => value.as_bool() == Some(*boolean),
        });
    alias.map_or(value, |(_, canonical)| Value::from(*canonical))
}

/// Checks that a value can travel on a command line at all: E08, E09, E10 and its size.
pub(super) fn forwardable(value: Value) -> Result<Value, Wrong> {
    let items = match &value {
        Value::Array(items) => items.as_slice(),
        scalar => std::slice::from_ref(scalar),
    };
    for item in items {
        match item {
            Value::Object(_) | Value::Array(_) => {
                let what = "nested objects are not supported, use dotted keys or overrides";
                return Err(Wrong::new("E10", what));
            }
            Value::String(text) if text.starts_with("--") => {
                let what = "a string value must not start with \"--\"";
                return Err(Wrong::new("E08", what));
            }
            // As `-h`, which has `train.py` print its help and succeed.
            Value::String(text) if text.starts_with('-') && text.parse::<f64>().is_err() => {
                let what = "a string value must not start with \"-\", which would start an option";
                return Err(Wrong::new("E08", what));
            }
            Value::String(text) if text.chars().any(char::is_control) => {
                return Err(Wrong::new("E09", "control characters are not allowed"));
            }
            Value::String(text) if value.is_array() && text.contains(',') => {
                let what = "an item of a list must not contain a comma, which separates the items";
                return Err(Wrong::new("E08", what));
            }
            Value::Null => {
                let what = "null is not allowed in a list";
                return Err(Wrong::new("E10", what));
            }
            _ => {}
        }
    }
    fitting(value)
}

/// Checks the size of a value on a command line.
pub(super) fn fitting(value: Value) -> Result<Value, Wrong> {
    let size = match &value {
        Value::String(text) => text.len(),
        Value::Array(_) | Value::Object(_) => word(&value).len(),
        _ => 0,
    };
    if size > MAX_VALUE_BYTES {
        let what = format!("{size} bytes, but at most {MAX_VALUE_BYTES} are allowed");
        return Err(Wrong::new("E06", what));
    }
    Ok(value)
}

/// The value as the kind wants it. Nothing is coerced, but 3.0 is the integer 3.
fn typed(kind: &Kind, value: Value) -> Result<Value, Wrong> {
    let fits = match (kind, &value) {
        (Kind::Integer { .. }, Value::Number(number)) => match integral(number) {
            Some(integer) => return Ok(Value::from(integer)),
            // A whole number that no i64 holds is out of range, not of the wrong type.
            None => number.as_f64().is_some_and(|float| float.fract() == 0.0),
        },
        (Kind::Number(_), Value::Number(_)) => true,
        (Kind::Boolean, Value::Bool(_)) => true,
        (Kind::Text { .. } | Kind::Choice(_), Value::String(_)) => true,
        (Kind::List(_), Value::Array(items)) => items.iter().all(Value::is_string),
        _ => false,
    };
    if fits {
        return Ok(value);
    }
    let what = format!("expected {}, got {}", kind.name(), quote(&value));
    Err(Wrong::new("E05", what))
}

fn integral(number: &Number) -> Option<i64> {
    /// Up to here every whole f64 is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i64)
    })
}

/// A value as one word of a command line: an object as JSON.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

pub(super) fn quote(value: &Value) -> String {
    shortened(&value.to_string()).to_string()
}

/// A text to quote in a finding, cut if it is long.
pub(super) fn shortened(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= MAX_QUOTE_BYTES {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_QUOTE_BYTES)]).into()
}
