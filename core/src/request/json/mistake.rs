//! Why a text is not JSON, in words for the person who wrote it.
//!
//! The reader of JSON says where a text stops being JSON, in words of its own. This looks at the text
//! instead, and says what to write.

use std::fmt;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 127;
/// Longest word that is repeated.
const MAX_WORD: usize = 20;

/// What stands where JSON takes something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    Empty,
    Unfinished,
    After,
    Comma,
    NoComma,
    NoColon,
    NoName,
    SingleQuote,
    Comment,
    /// A word that is neither `true`, `false` nor `null`.
    Word(String),
    LeadingZero,
    BadNumber,
    LargeNumber,
    Control,
    Escape,
    Deep,
    Closing,
    Other(char),
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "the text is empty; a request is an object such as {\"framework\": \"hf\"}",
            Self::Unfinished => {
                "the text ends before the last value, bracket or quotation mark is closed; close it"
            }
            Self::After => "something follows the end of the request; send one object and nothing else",
            Self::Comma => "a comma stands before a closing bracket; remove it",
            Self::NoComma => "a comma is missing between two members or items",
            Self::NoColon => "a colon is missing between a name and its value",
            Self::NoName => "a name in double quotes is missing",
            Self::SingleQuote => "a single quote begins no text in JSON; use double quotes",
            Self::Comment => "JSON has no comments; remove it, or write the request as YAML for `trainer submit`",
            Self::Word(word) => {
                return write!(
                    formatter,
                    "{word} has no quotes and is neither true, false nor null; put text in double quotes"
                );
            }
            Self::LeadingZero => "a number begins with 0; remove the zeros, or put it in quotes if it is text",
            Self::BadNumber => "a number is not complete; write it as in 0.5 or 1e-4",
            Self::LargeNumber => "a number is larger than 64 bits hold; put it in quotes if it is text",
            Self::Control => {
                "a line break, a tab or another control character stands within a text; write \\n or \\t for it"
            }
            Self::Escape => {
                "a backslash begins an escape that does not exist; write \\\\ for a backslash"
            }
            Self::Deep => "nested more than 127 deep; flatten it",
            Self::Closing => "a closing bracket has no opening one of its kind; remove or replace it",
            Self::Other(character) => {
                return write!(
                    formatter,
                    "{character:?} begins no value; put text in double quotes"
                );
            }
        })
    }
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
}

/// The first mistake of a text and the byte where it is; nothing where the text is JSON.
pub(super) fn first(text: &str) -> Option<(usize, Mistake)> {
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        text,
        at: 0,
        open: Vec::new(),
    };
    let found = scanner.scan().err()?;
    Some((scanner.at.min(text.len()), found))
}

struct Scanner<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
    /// The closing brackets that are still to come.
    open: Vec<u8>,
}

impl Scanner<'_> {
    fn scan(&mut self) -> Result<(), Mistake> {
        let mut expected = Expected::Value;
        loop {
            while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
                self.at += 1;
            }
            let Some(byte) = self.peek() else {
                return match expected {
                    Expected::Nothing => Ok(()),
                    _ if self.text.trim().is_empty() => Err(Mistake::Empty),
                    _ => Err(Mistake::Unfinished),
                };
            };
            expected = self.step(expected, byte)?;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn step(&mut self, expected: Expected, byte: u8) -> Result<Expected, Mistake> {
        match (expected, byte) {
            (_, b'/' | b'#') => Err(Mistake::Comment),
            (Expected::Nothing, _) => Err(Mistake::After),
            (Expected::ValueOrEnd, b']') | (Expected::NameOrEnd, b'}') => self.close(byte),
            (Expected::CommaOrEnd, b']' | b'}') => self.close(byte),
            (Expected::CommaOrEnd, b',') => {
                self.at += 1;
                Ok(match self.open.last() {
                    Some(b'}') => Expected::Name,
                    _ => Expected::Value,
                })
            }
            (Expected::CommaOrEnd, _) => Err(Mistake::NoComma),
            (Expected::Colon, b':') => {
                self.at += 1;
                Ok(Expected::Value)
            }
            (Expected::Colon, _) => Err(Mistake::NoColon),
            (Expected::Name | Expected::Value, b']' | b'}') if self.follows_comma() => {
                Err(Mistake::Comma)
            }
            (Expected::Name | Expected::NameOrEnd, b'"') => {
                self.string()?;
                Ok(Expected::Colon)
            }
            (_, b'\'') => Err(Mistake::SingleQuote),
            (Expected::Name | Expected::NameOrEnd, _) => Err(Mistake::NoName),
            (Expected::Value | Expected::ValueOrEnd, byte) => self.value(byte),
        }
    }

    fn follows_comma(&self) -> bool {
        self.text[..self.at].trim_end().ends_with(',')
    }

    fn value(&mut self, byte: u8) -> Result<Expected, Mistake> {
        match byte {
            b'{' => self.begin(b'}', Expected::NameOrEnd),
            b'[' => self.begin(b']', Expected::ValueOrEnd),
            b'"' => self.string().map(|()| self.after_value()),
            b'-' | b'0'..=b'9' => self.number().map(|()| self.after_value()),
            b']' | b'}' => Err(Mistake::Closing),
            _ => self.word().map(|()| self.after_value()),
        }
    }

    fn after_value(&self) -> Expected {
        match self.open.is_empty() {
            true => Expected::Nothing,
            false => Expected::CommaOrEnd,
        }
    }

    fn begin(&mut self, closing: u8, expected: Expected) -> Result<Expected, Mistake> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Mistake::Deep);
        }
        self.open.push(closing);
        self.at += 1;
        Ok(expected)
    }

    fn close(&mut self, byte: u8) -> Result<Expected, Mistake> {
        if self.open.last() != Some(&byte) {
            return Err(Mistake::Closing);
        }
        self.open.pop();
        self.at += 1;
        Ok(self.after_value())
    }

    fn word(&mut self) -> Result<(), Mistake> {
        let rest = &self.text[self.at..];
        let is_of_word = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        match &rest[..end] {
            "true" | "false" | "null" => {
                self.at += end;
                Ok(())
            }
            "" => Err(Mistake::Other(rest.chars().next().unwrap_or_default())),
            word => Err(Mistake::Word(word.chars().take(MAX_WORD).collect())),
        }
    }

    fn string(&mut self) -> Result<(), Mistake> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(Mistake::Unfinished),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(0..=0x1f) => return Err(Mistake::Control),
                Some(b'\\') => self.escape()?,
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Mistake> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.unit(self.at).ok_or(Mistake::Escape)?;
                let is_pair = match unit {
                    0xd800..=0xdbff => {
                        let low = self.unit(self.at + 6);
                        if !low.is_some_and(|low| (0xdc00..=0xdfff).contains(&low)) {
                            return Err(Mistake::Escape);
                        }
                        true
                    }
                    0xdc00..=0xdfff => return Err(Mistake::Escape),
                    _ => false,
                };
                self.at += if is_pair { 12 } else { 6 };
                Ok(())
            }
            _ => Err(Mistake::Escape),
        }
    }

    /// The number of `\uXXXX` at a byte.
    fn unit(&self, at: usize) -> Option<u16> {
        let digits = self.bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        let digits = std::str::from_utf8(digits).ok()?;
        digits
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then_some(())?;
        u16::from_str_radix(digits, 16).ok()
    }

    fn number(&mut self) -> Result<(), Mistake> {
        let rest = &self.text[self.at..];
        let is_of_number = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
        let number = &rest[..rest.find(|c| !is_of_number(c)).unwrap_or(rest.len())];
        let unsigned = number.strip_prefix('-').unwrap_or(number);
        let second = unsigned.as_bytes().get(1);
        if unsigned.starts_with('0') && second.is_some_and(u8::is_ascii_digit) {
            return Err(Mistake::LeadingZero);
        }
        if !is_json_number(unsigned) {
            return Err(Mistake::BadNumber);
        }
        if !number.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(Mistake::LargeNumber);
        }
        self.at += number.len();
        Ok(())
    }
}

fn is_json_number(unsigned: &str) -> bool {
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            exponent.strip_prefix(['+', '-']).unwrap_or(exponent),
        ),
        None => (unsigned, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    is_digits(whole) && is_digits(fraction) && is_digits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn each_mistake_is_found_where_it_is() {
        for (text, at, mistake) in [
            ("", 0, Mistake::Empty),
            (" \n", 2, Mistake::Empty),
            ("{", 1, Mistake::Unfinished),
            ("{\"a\": \"x", 8, Mistake::Unfinished),
            ("{}{}", 2, Mistake::After),
            ("{\"a\": 1,}", 8, Mistake::Comma),
            ("[1, ]", 4, Mistake::Comma),
            ("[1 2]", 3, Mistake::NoComma),
            ("{\"a\" 1}", 5, Mistake::NoColon),
            ("{a: 1}", 1, Mistake::NoName),
            ("{'a': 1}", 1, Mistake::SingleQuote),
            ("[// x\n1]", 1, Mistake::Comment),
            ("{\"a\": NaN}", 6, Mistake::Word("NaN".to_string())),
            ("{\"a\": True}", 6, Mistake::Word("True".to_string())),
            ("{\"a\": 01}", 6, Mistake::LeadingZero),
            ("[-]", 1, Mistake::BadNumber),
            ("[1.]", 1, Mistake::BadNumber),
            ("[1e999]", 1, Mistake::LargeNumber),
            ("[\"a\nb\"]", 3, Mistake::Control),
            ("[\"\\q\"]", 2, Mistake::Escape),
            ("[\"\\ud800\"]", 2, Mistake::Escape),
            ("[1}", 2, Mistake::Closing),
            ("[+1]", 1, Mistake::Other('+')),
            ("[\u{e4}=]", 1, Mistake::Word("\u{e4}".to_string())),
        ] {
            assert_eq!(first(text), Some((at, mistake)), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(first(&deep), Some((MAX_DEPTH, Mistake::Deep)));
    }

    proptest! {
        /// What the reader of JSON refuses has a mistake, and nothing else has one.
        #[test]
        fn a_text_has_a_mistake_where_it_cannot_be_read(
            text in r#"[\[\]{}",:0-9eE.+\-a-z\\u \n']{0,24}|(\[|\{"a":|1|"\\n"|,|\}|\]|null| |-0|0\.5e1){0,12}"#,
        ) {
            let is_json = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert_eq!(first(&text).is_none(), is_json, "{}", text);
        }
    }
}
