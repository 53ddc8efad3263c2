//! What a YAML text without quotes means: one value where all readers agree, a doubt where not.
//!
//! YAML 1.2 (core schema) decides. Where YAML 1.1, which PyYAML and many others follow, reads a
//! boolean or another number, the text is in doubt.

use serde_json::{Number, Value};

use crate::finding::Code;
use crate::request::schema::quote_text;

/// Why a text has no certain value.
#[derive(Debug, PartialEq)]
pub(super) struct Doubt {
    pub(super) code: Code,
    /// What is wrong and what would be right.
    pub(super) detail: String,
}

/// The value of a text without quotes.
pub(super) fn resolve(text: &str) -> Result<Value, Doubt> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if let Some(boolean) = boolean_of_yaml_1_1(text) {
        return doubt(text, &format!("{boolean} if it is a boolean"));
    }
    match text.as_bytes() {
        [b'0'..=b'9' | b'+' | b'-' | b'.', ..] => number(text),
        _ => Ok(Value::from(text)),
    }
}

fn boolean_of_yaml_1_1(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let title = |c: char| c.is_ascii_uppercase();
    let rest_agrees = !text.chars().skip(1).any(title) || text.chars().all(title);
    match lower.as_str() {
        "y" | "yes" | "on" if rest_agrees => Some(true),
        "n" | "no" | "off" if rest_agrees => Some(false),
        _ => None,
    }
}

fn number(text: &str) -> Result<Value, Doubt> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    ) {
        let detail = format!("{text} is no number that JSON has; put it in quotes if it is text");
        return Err(Doubt {
            code: Code::Number,
            detail,
        });
    }
    if let Some(value) = in_other_base(unsigned) {
        return doubt(text, &format!("{value} if it is a number"));
    }
    let digits = unsigned.replace('_', "");
    let is_grouped =
        digits.len() < unsigned.len() && unsigned.starts_with(|c: char| c.is_ascii_digit());
    if is_grouped && is_number(&digits) {
        return doubt(
            text,
            &format!("{} if it is a number", text.replace('_', "")),
        );
    }
    if is_of_base_sixty(unsigned) {
        return doubt(text, "the number itself if it is one");
    }
    if !is_number(unsigned) {
        return Ok(Value::from(text));
    }
    let begins_with_zero =
        unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit();
    if begins_with_zero {
        let plain = unsigned.trim_start_matches('0');
        let plain = if plain.starts_with(|c: char| c.is_ascii_digit()) {
            plain.to_string()
        } else {
            format!("0{plain}")
        };
        return doubt(text, &format!("{plain} if it is a number"));
    }
    let value = exact(text.strip_prefix('+').unwrap_or(text));
    value.map(Value::Number).ok_or_else(|| Doubt {
        code: Code::Number,
        detail: format!(
            "the number {} does not fit into 64 bits; put it in quotes if it is text, or write a \
             decimal point if it need not be exact",
            quote_text(text)
        ),
    })
}

/// The number as JSON has it, or nothing where it would lose its digits.
fn exact(text: &str) -> Option<Number> {
    if text
        .strip_prefix('-')
        .unwrap_or(text)
        .bytes()
        .all(|b| b.is_ascii_digit())
    {
        let positive = text.parse::<u64>().map(Number::from);
        return positive
            .or_else(|_| text.parse::<i64>().map(Number::from))
            .ok();
    }
    Number::from_f64(text.parse().ok()?)
}

/// `0x1F`, `0o17` and `0b101`.
fn in_other_base(unsigned: &str) -> Option<u64> {
    let (_, base) = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find(|(prefix, _)| unsigned.starts_with(prefix))?;
    u64::from_str_radix(&unsigned[2..], base).ok()
}

/// `1:30:00`, which YAML 1.1 reads as seconds.
fn is_of_base_sixty(unsigned: &str) -> bool {
    let mut parts = unsigned.split(':');
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let begins = parts.next().is_some_and(is_digits);
    let mut rest = parts.peekable();
    begins
        && rest.peek().is_some()
        && rest.all(|part| is_digits(part) && part.len() <= 2 && part < "60")
}

/// `[0-9]+`, or a number of YAML 1.2's core schema with a point or an exponent.
fn is_number(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && is_digits(exponent)
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    exponent_fits
        && is_digits(whole)
        && is_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
}

fn doubt(text: &str, otherwise: &str) -> Result<Value, Doubt> {
    let detail = format!(
        "readers of YAML disagree about {text} without quotes; quote it ({}) if it is text, or write \
         {otherwise}",
        quote_text(text)
    );
    Err(Doubt {
        code: Code::Ambiguous,
        detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_certain_text_has_its_value() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("True", json!(true)),
            ("hf", json!("hf")),
            ("0", json!(0)),
            ("-5", json!(-5)),
            ("+5", json!(5)),
            (
                "18446744073709551615",
                json!(18_446_744_073_709_551_615_u64),
            ),
            ("1e3", json!(1000.0)),
            ("1e-5", json!(1e-5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("0.5", json!(0.5)),
            ("2024-01-31", json!("2024-01-31")),
            ("2024-01-31T12:00:00Z", json!("2024-01-31T12:00:00Z")),
            ("1.2.3", json!("1.2.3")),
            ("10m", json!("10m")),
            ("--foo", json!("--foo")),
            ("-", json!("-")),
            (".", json!(".")),
            ("1_a", json!("1_a")),
            ("yEs", json!("yEs")),
            ("once", json!("once")),
            ("0xZ", json!("0xZ")),
            ("127.0.0.1:80", json!("127.0.0.1:80")),
            ("1:99", json!("1:99")),
        ] {
            assert_eq!(resolve(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn a_text_that_readers_disagree_about_is_in_doubt() {
        for (text, write) in [
            ("NO", "false if"),
            ("yes", "true if"),
            ("On", "true if"),
            ("n", "false if"),
            ("0755", "755 if"),
            ("001", "1 if"),
            ("00", "0 if"),
            ("00.5", "0.5 if"),
            ("-01", "1 if"),
            ("0o17", "15 if"),
            ("0x1F", "31 if"),
            ("0b101", "5 if"),
            ("1_000", "1000 if"),
            ("1_0.5", "10.5 if"),
            ("1:30:00", "the number itself"),
        ] {
            let Doubt { code, detail } = resolve(text).unwrap_err();
            assert_eq!(code, Code::Ambiguous, "{text}");
            assert!(
                detail.contains(&format!("quote it (\"{text}\")")),
                "{detail}"
            );
            assert!(detail.contains(&format!("or write {write}")), "{detail}");
        }
    }

    #[test]
    fn a_number_that_would_lose_digits_is_refused() {
        for text in [
            "18446744073709551616",
            "-9223372036854775809",
            "1e999",
            ".inf",
            "-.INF",
            ".nan",
        ] {
            assert_eq!(resolve(text).unwrap_err().code, Code::Number, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_json_is_the_same_value(number in prop_oneof![
            any::<i64>().prop_map(|n| json!(n)),
            any::<u64>().prop_map(|n| json!(n)),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| json!(n)),
        ]) {
            let text = number.to_string();
            prop_assert_eq!(resolve(&text).unwrap(), number);
        }

        #[test]
        fn nothing_panics(text in r"[0-9+._:eExob-]{0,10}|\PC{0,10}") {
            let _ = resolve(&text);
        }
    }
}
