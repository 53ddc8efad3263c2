//! JSON objects as lists of members: read and written without a map in between.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The members of an object, sorted by name.
///
/// # Errors
///
/// What is wrong with the text: no JSON, or no object.
pub(crate) fn members(text: &str) -> Result<Vec<(String, Value)>, serde_json::Error> {
    serde_json::from_str(text).map(|Members(members)| members)
}

/// An object of these members, as JSON text. Their names are flag names, which need no escapes.
pub(crate) fn object<'a, V: Serialize>(members: impl Iterator<Item = (&'a str, V)>) -> String {
    let mut text = Vec::with_capacity(2048);
    let mut before = b'{';
    for (name, value) in members {
        text.extend_from_slice(&[before, b'"']);
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"\":");
        // Neither writing to memory nor a value without maps can fail.
        let _ = serde_json::to_writer(&mut text, &value);
        before = b',';
    }
    if before == b'{' {
        text.push(before);
    }
    text.push(b'}');
    String::from_utf8(text).unwrap_or_default()
}

struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        members.sort_by(|(a, _): &(String, Value), (b, _)| a.cmp(b));
        Ok(Members(members))
    }
}
