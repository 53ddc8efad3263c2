//! Strict JSON for requests: duplicate names and integers that lose precision are findings, and
//! text with too many values is refused.
//!
//! Parsers disagree on which of two equal names wins, so one program could check what another does
//! not run. serde_json itself limits nesting to 128 levels.

mod mistake;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::finding::{Code, Finding, pointer};
use crate::request::schema::quote_text;

/// The maximum number of values, counted at every depth. A small object takes half a kilobyte of
/// memory, so one megabyte of text could take a hundred.
pub const MAX_VALUES: usize = 20_000;
/// What some editors put before a text. It is not part of it (RFC 8259, 8.1).
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// The maximum number of findings: after ten duplicates, further ones add nothing.
const MAX_FINDINGS: usize = 10;

/// Parses a complete JSON text.
///
/// # Errors
///
/// One finding if the text is not JSON or has too many values; otherwise one for each duplicate
/// name and each integer that is too large, up to ten.
pub fn parse(text: &[u8]) -> Result<Value, Vec<Finding>> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|error| {
        let place = place(text, error.valid_up_to());
        let what = "the text is not UTF-8; save or send it as UTF-8";
        vec![not_json(&format!("{place}: {what}"))]
    })?;
    let mut reading = Reading {
        values: 0,
        long_integers: long_integers(text.as_bytes()),
        findings: Vec::new(),
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = Node {
        path: &Path::Root,
        reading: &mut reading,
    };
    let read = node
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match read {
        _ if reading.values > MAX_VALUES => Err(vec![too_many_values()]),
        Err(error) => Err(vec![unreadable(text, &error)]),
        Ok(_) if !reading.findings.is_empty() => Err(reading.findings),
        Ok(value) => Ok(value),
    }
}

fn too_many_values() -> Finding {
    let detail = format!(
        "request: more than {MAX_VALUES} JSON values; put large data into a file that the job reads"
    );
    Finding::new(Code::Size, "", detail)
}

fn not_json(what: &str) -> Finding {
    Finding::new(Code::NotJson, "", format!("not JSON: {what}"))
}

/// Describes a syntax error and its position without the vocabulary of a parser.
fn unreadable(text: &str, error: &serde_json::Error) -> Finding {
    let (place, what) = match mistake::first(text) {
        Some((at, mistake)) => (place(text.as_bytes(), at), mistake.to_string()),
        None => {
            let (line, column) = (error.line(), error.column());
            let what = "this cannot be read; `python3 -m json.tool FILE` checks a file";
            (format!("line {line}, column {column}"), what.to_string())
        }
    };
    not_json(&format!("{place}: {what}"))
}

/// The line and column of a byte, counted from 1.
fn place(text: &[u8], at: usize) -> String {
    let before = &text[..at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let begin = before.iter().rposition(|byte| *byte == b'\n');
    format!(
        "line {line}, column {}",
        at - begin.map_or(0, |at| at + 1) + 1
    )
}

/// The integers of a text that do not fit into 64 bits: the floating-point numbers that they would
/// become, and their digits.
fn long_integers(text: &[u8]) -> Vec<(f64, String)> {
    /// This many digits always fit.
    const FITS: usize = 18;
    let mut found = Vec::new();
    let mut in_string = false;
    let mut at = 0;
    while at < text.len() && found.len() < MAX_FINDINGS {
        match text[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let is_of_number =
                    |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let rest = &text[at..];
                let length = rest
                    .iter()
                    .position(|b| !is_of_number(b))
                    .unwrap_or(rest.len());
                if length > FITS
                    && let Some(long) = long_integer(&rest[..length])
                {
                    found.push(long);
                }
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn long_integer(number: &[u8]) -> Option<(f64, String)> {
    let digits = std::str::from_utf8(number).ok()?;
    let is_integer = digits.bytes().skip(1).all(|byte| byte.is_ascii_digit());
    let fits = digits.parse::<u64>().is_ok() || digits.parse::<i64>().is_ok();
    let value = digits.parse().ok()?;
    (is_integer && !fits).then(|| (value, digits.to_string()))
}

/// The state while a text is parsed.
struct Reading {
    values: usize,
    long_integers: Vec<(f64, String)>,
    findings: Vec<Finding>,
}

/// The path of a value, kept on the stack because most values never need a pointer.
enum Path<'a> {
    Root,
    Item(&'a Path<'a>, usize),
    Member(&'a Path<'a>, &'a str),
}

impl Path<'_> {
    fn pointer(&self) -> String {
        let mut tokens = Vec::new();
        let mut here = self;
        loop {
            here = match here {
                Path::Root => break,
                Path::Item(parent, index) => {
                    tokens.push(index.to_string());
                    parent
                }
                Path::Member(parent, name) => {
                    tokens.push((*name).to_string());
                    parent
                }
            };
        }
        pointer(tokens.iter().rev().map(String::as_str))
    }
}

/// Deserializes one value and knows its path.
struct Node<'a> {
    path: &'a Path<'a>,
    reading: &'a mut Reading,
}

impl Node<'_> {
    fn found(&mut self, code: Code, path: &Path, detail: String) {
        if self.reading.findings.len() < MAX_FINDINGS {
            let finding = Finding::new(code, path.pointer(), detail);
            self.reading.findings.push(finding);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.reading.values += 1;
        match self.reading.values > MAX_VALUES {
            true => Err(D::Error::custom("too many values")),
            false => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(mut self, value: f64) -> Result<Value, E> {
        let mut long = self.reading.long_integers.iter();
        if let Some((_, digits)) = long.find(|(number, _)| *number == value) {
            let detail = format!(
                "the integer {} does not fit into 64 bits and would lose digits; write it as a \
                 string, or with a decimal point if it need not be exact",
                quote_text(digits)
            );
            let path = self.path;
            self.found(Code::Number, path, detail);
        }
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            let item = items.next_element_seed(Node {
                path: &Path::Item(self.path, values.len()),
                reading: self.reading,
            });
            match item? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let path = Path::Member(self.path, &name);
            let value = members.next_value_seed(Node {
                path: &path,
                reading: self.reading,
            })?;
            if object.contains_key(&name) {
                let detail = format!(
                    "duplicate name {}; remove one of the two",
                    quote_text(&name)
                );
                self.found(Code::DuplicateName, &path, detail);
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<(String, String)> {
        let findings = parse(text.as_bytes()).unwrap_err();
        findings.into_iter().map(|f| (f.code, f.pointer)).collect()
    }

    #[test]
    fn reads_what_serde_json_reads() {
        let text =
            r#"{"a":[1,-2,2.5,true,null,"x"],"b":{"c":{}},"d":18446744073709551615,"e":1e20}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn names_every_name_given_twice() {
        let text = r#"{"a":1,"a":2,"extra_args":{"x/y":1,"x/y":1},"l":[{"z":1,"z":2}]}"#;
        let code = "duplicate-name".to_string();
        let expected = ["/a", "/extra_args/x~1y", "/l/0/z"].map(|p| (code.clone(), p.to_string()));
        assert_eq!(findings(text), expected);
    }

    #[test]
    fn only_the_first_names_given_twice_are_listed_and_a_long_one_is_cut() {
        let name = "x".repeat(500_000);
        let text = format!("{{\"{name}\":{{{}}}}}", vec!["\"a\":1"; 4000].join(","));
        let findings = parse(text.as_bytes()).unwrap_err();
        assert_eq!(findings.len(), MAX_FINDINGS);
        assert!(findings.iter().all(|finding| finding.pointer.is_empty()));
        let text = format!("{{\"{name}\":1,\"{name}\":1}}");
        let findings = parse(text.as_bytes()).unwrap_err();
        assert!(findings[0].detail.len() < 200, "{}", findings[0].detail);
    }

    #[test]
    fn an_integer_that_would_lose_digits_is_refused() {
        for (text, pointers) in [
            (r#"{"a":18446744073709551616}"#, vec!["/a"]),
            (r#"[-9223372036854775809]"#, vec!["/0"]),
            (r#"{"a":[1,123456789012345678901234567890]}"#, vec!["/a/1"]),
            (
                r#"{"a":"18446744073709551616","b":18446744073709551616.0}"#,
                vec![],
            ),
            (
                r#"{"a":1e30,"b":-9223372036854775808,"c":18446744073709551615}"#,
                vec![],
            ),
            (r#"{"a":"\"18446744073709551616"}"#, vec![]),
        ] {
            let found = parse(text.as_bytes()).err().unwrap_or_default();
            let found: Vec<String> = found.into_iter().map(|finding| finding.pointer).collect();
            assert_eq!(found, pointers, "{text}");
        }
    }

    #[test]
    fn very_many_values_are_refused() {
        let text = format!("[{}]", vec!["{\"\":1}"; 100_000].join(","));
        assert_eq!(findings(&text), [("size".to_string(), String::new())]);
    }

    #[test]
    fn refuses_what_is_not_json() {
        let deep = "[".repeat(100_000);
        for text in ["", "{", "{}{}", "NaN", "1e999", "{\"a\":01}", deep.as_str()] {
            assert_eq!(
                findings(text),
                [("not-json".to_string(), String::new())],
                "{text:.20}"
            );
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
    }
}
