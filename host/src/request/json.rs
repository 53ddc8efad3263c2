//! JSON as requests have to write it: like serde_json reads it, but a name given twice is a fault.
//!
//! Readers disagree on which of two equal names counts, so what one checks is not what the next
//! one runs. Nesting is bounded by serde_json's own limit of 128.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::fault::{Fault, pointer};

/// Reads a whole JSON text.
///
/// # Errors
///
/// One fault where the text stops being JSON, or one for each name that an object gives twice.
pub fn parse(text: &[u8]) -> Result<Value, Vec<Fault>> {
    let mut path = Vec::new();
    let mut twice = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let node = Node {
        path: &mut path,
        twice: &mut twice,
    };
    let value = node
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| vec![Fault::new("not-json", "", format!("not JSON: {error}"))])?;
    if twice.is_empty() {
        Ok(value)
    } else {
        Err(twice)
    }
}

/// One value on its way from text, and where in the text it is.
struct Node<'a> {
    path: &'a mut Vec<String>,
    twice: &'a mut Vec<Fault>,
}

impl Node<'_> {
    fn child(&mut self) -> Node<'_> {
        Node {
            path: self.path,
            twice: self.twice,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
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

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            self.path.push(values.len().to_string());
            let item = items.next_element_seed(self.child());
            self.path.pop();
            match item? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.path.push(name.clone());
            let value = members
                .next_value_seed(self.child())
                .map_err(A::Error::custom);
            if object.contains_key(&name) {
                let at = pointer(self.path.iter().map(String::as_str));
                let detail = format!("the name {} is given twice", Value::from(name.as_str()));
                self.twice.push(Fault::new("duplicate-name", at, detail));
            }
            self.path.pop();
            object.insert(name, value?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(String, String)> {
        let faults = parse(text.as_bytes()).unwrap_err();
        faults.into_iter().map(|f| (f.code, f.pointer)).collect()
    }

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,2.5,true,null,"x"],"b":{"c":{}},"d":18446744073709551616}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn names_every_name_given_twice() {
        let text = r#"{"a":1,"a":2,"extra_args":{"x/y":1,"x/y":1},"l":[{"z":1,"z":2}]}"#;
        let code = "duplicate-name".to_string();
        let expected = ["/a", "/extra_args/x~1y", "/l/0/z"].map(|p| (code.clone(), p.to_string()));
        assert_eq!(faults(text), expected);
    }

    #[test]
    fn refuses_what_is_not_json() {
        let deep = "[".repeat(100_000);
        for text in ["", "{", "{}{}", "NaN", "1e999", "{\"a\":01}", deep.as_str()] {
            assert_eq!(
                faults(text),
                [("not-json".to_string(), String::new())],
                "{text:.20}"
            );
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
    }
}
