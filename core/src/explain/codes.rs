//! Codes of the service's own: of findings, and of problem documents.

use serde_json::{Value, json};

use super::{Style, pretty};
use crate::finding::{Code, Effect, Kind, TYPE_PREFIX};

/// Explains a code that the service itself gives, if this is one: `type`, `name-taken`, or the whole
/// type of a problem document.
pub fn own_code(topic: &str, style: Style) -> Option<String> {
    let topic = topic.strip_prefix(TYPE_PREFIX).unwrap_or(topic);
    let entry = entry(topic)?;
    Some(match style {
        Style::Json => pretty(&json!([entry.json()])),
        Style::Terminal { .. } | Style::Markdown => entry.text(),
    })
}

/// Every code that the service itself gives.
pub fn own_codes() -> impl Iterator<Item = &'static str> {
    let codes = Code::ALL.iter().map(|code| code.as_str());
    codes.chain(Kind::ALL.iter().map(|kind| kind.as_str()))
}

/// What is known of a code.
struct Entry {
    code: &'static str,
    effect: Value,
    shown_effect: String,
    about: &'static str,
    remedy: &'static str,
}

impl Entry {
    fn text(&self) -> String {
        let Self {
            code,
            shown_effect,
            about,
            remedy,
            ..
        } = self;
        format!(
            "{code} ({shown_effect}): {about}\n\n  {:<12} {remedy}\n  {:<12} the service\n",
            "remedy", "source"
        )
    }

    fn json(&self) -> Value {
        json!({
            "code": self.code,
            "effect": self.effect,
            "about": self.about,
            "remedy": self.remedy,
            "source": "the service",
        })
    }
}

fn entry(topic: &str) -> Option<Entry> {
    let is = |name: &str| name.eq_ignore_ascii_case(topic);
    if let Some(code) = Code::ALL.iter().find(|code| is(code.as_str())) {
        let (effect, shown) = match code.effect() {
            Effect::Refuse => ("refuse", "refuses the request"),
            Effect::Warn => ("warn", "warns"),
        };
        return Some(Entry {
            code: code.as_str(),
            effect: effect.into(),
            shown_effect: shown.to_string(),
            about: code.about(),
            remedy: code.remedy(),
        });
    }
    let kind = Kind::ALL.iter().find(|kind| is(kind.as_str()))?;
    Some(Entry {
        code: kind.as_str(),
        effect: kind.status().into(),
        shown_effect: format!("status {}", kind.status()),
        about: kind.about(),
        remedy: kind.remedy(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const STYLE: Style = Style::Terminal { columns: 100 };

    #[test]
    fn every_code_has_a_meaning_and_a_remedy_of_its_own() {
        let mut abouts = BTreeSet::new();
        for code in own_codes() {
            let message = own_code(code, STYLE).unwrap();
            let entry = entry(code).unwrap();
            assert!(message.starts_with(&format!("{code} (")), "{message}");
            assert!(
                entry.about.len() > 10 && entry.remedy.len() > 10,
                "{message}"
            );
            assert!(message.contains(entry.remedy), "{message}");
            assert!(abouts.insert((code, entry.about)), "{code} is there twice");
        }
    }

    #[test]
    fn a_code_is_found_in_any_case_and_by_its_type() {
        assert_eq!(own_code("Type", STYLE), own_code("type", STYLE));
        let whole = own_code("urn:trainer:problem:name-taken", STYLE);
        assert_eq!(whole, own_code("name-taken", STYLE));
        assert!(whole.unwrap().starts_with("name-taken (status 400): "));
        assert_eq!(own_code("E05", STYLE), None);
    }

    #[test]
    fn a_program_gets_json() {
        let message = own_code("secret-in-env", Style::Json).unwrap();
        let message: Value = serde_json::from_str(&message).unwrap();
        assert_eq!(message[0]["code"], "secret-in-env");
        assert_eq!(message[0]["effect"], "warn");
    }
}
