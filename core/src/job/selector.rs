//! Label selectors as Kubernetes writes them: `team=aml,tier in (a, b),!legacy`.
//!
//! Source: kubernetes/apimachinery pkg/labels/selector.go, without its `>` and `<`.

use std::collections::BTreeMap;

/// A label selector. All requirements have to hold; an empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    /// Also matches if the label is absent.
    NotIn(String, Vec<String>),
}

/// Why a text is not a valid selector. The message follows the name of the parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a valid label selector at {at:?}; use key=value, key!=value, key in (a,b), key notin \
     (a,b), key or !key, separated by commas"
)]
pub struct InvalidSelector {
    /// The part that is not understood.
    at: String,
}

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    ///
    /// [`InvalidSelector`] with the part that is not understood.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let requirements = split(text).map(|part| Requirement::parse(part.trim()));
        let requirements = requirements.collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    /// Whether labels fulfil all requirements.
    pub fn selects(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = |key: &String| labels.and_then(|labels| labels.get(key));
        self.requirements
            .iter()
            .all(|requirement| match requirement {
                Requirement::Exists(key) => value(key).is_some(),
                Requirement::Absent(key) => value(key).is_none(),
                Requirement::In(key, values) => value(key).is_some_and(|v| values.contains(v)),
                Requirement::NotIn(key, values) => value(key).is_none_or(|v| !values.contains(v)),
            })
    }
}

/// Splits a text at commas outside of parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |character| {
        match character {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        character == ',' && !inside
    })
}

impl Requirement {
    fn parse(part: &str) -> Result<Self, InvalidSelector> {
        let wrong = || InvalidSelector {
            at: part.to_string(),
        };
        if let Some(key) = part.strip_prefix('!') {
            return Ok(Self::Absent(name(key).ok_or_else(wrong)?));
        }
        if let Some(values) = part.strip_suffix(')') {
            let (head, values) = values.split_once('(').ok_or_else(wrong)?;
            let values = values.split(',').map(value).collect::<Option<_>>();
            let values = values.ok_or_else(wrong)?;
            let (key, operator) = head.trim().rsplit_once(' ').ok_or_else(wrong)?;
            let key = name(key).ok_or_else(wrong)?;
            return match operator {
                "in" => Ok(Self::In(key, values)),
                "notin" => Ok(Self::NotIn(key, values)),
                _ => Err(wrong()),
            };
        }
        let operators = [("!=", true), ("==", false), ("=", false)];
        let found = operators.iter().find_map(|(operator, negated)| {
            let (key, value) = part.split_once(operator)?;
            Some((key, value, *negated))
        });
        let Some((key, given, negated)) = found else {
            return Ok(Self::Exists(name(part).ok_or_else(wrong)?));
        };
        let key = name(key).ok_or_else(wrong)?;
        let values = vec![value(given).ok_or_else(wrong)?];
        Ok(match negated {
            true => Self::NotIn(key, values),
            false => Self::In(key, values),
        })
    }
}

/// Whether a text has only characters of keys and values. Invalid keys are accepted: they match
/// nothing.
fn is_word(text: &str) -> bool {
    let mut characters = text.chars();
    characters.all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

fn name(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && is_word(text)).then(|| text.to_string())
}

fn value(text: &str) -> Option<String> {
    let text = text.trim();
    is_word(text).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_string(), (*v).to_string()));
        let labels: BTreeMap<_, _> = labels.collect();
        Selector::parse(selector).unwrap().selects(Some(&labels))
    }

    #[test]
    fn selects_what_kubernetes_selects() {
        let labels = [("example.org/team", "aml"), ("tier", "b"), ("empty", "")];
        let cases = [
            ("", true),
            ("example.org/team=aml", true),
            ("example.org/team==aml", true),
            ("example.org/team != aml", false),
            ("absent!=aml", true),
            ("absent notin (aml)", true),
            ("tier in (a, b),example.org/team", true),
            ("tier in (a),example.org/team", false),
            ("tier notin (a,c)", true),
            ("!absent", true),
            ("!tier", false),
            ("empty=", true),
            ("tier=", false),
        ];
        for (selector, expected) in cases {
            assert_eq!(selects(selector, &labels), expected, "{selector}");
        }
        assert!(!Selector::parse("tier").unwrap().selects(None));
    }

    #[test]
    fn a_text_that_is_no_selector_says_where() {
        for (selector, at) in [
            ("a=b,c d", "c d"),
            ("a in b", "a in b"),
            ("a within (b)", "a within (b)"),
            ("=b", "=b"),
            ("a=b,", ""),
            ("a in (b", "a in (b"),
        ] {
            let wrong = Selector::parse(selector).unwrap_err();
            assert_eq!(wrong.at, at, "{selector}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in r"[a-z!=(), .\PC]{0,40}") {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn a_label_is_selected_by_its_value_and_not_by_another(
            key in "[a-z]([a-z./-]{0,8}[a-z])?", value in "[a-z0-9]{0,8}", other in "[a-z0-9]{9}",
        ) {
            let labels = BTreeMap::from([(key.clone(), value.clone())]);
            let is = |text: String| Selector::parse(&text).unwrap().selects(Some(&labels));
            let selecting = [
                format!("{key}={value}"),
                format!("{key} in ({other}, {value})"),
                format!("{key} != {other}"),
            ];
            for selector in selecting {
                prop_assert!(is(selector));
            }
            let passing_over = [
                format!("{key}={other}"),
                format!("{key} notin ({value})"),
                format!("!{key}"),
            ];
            for selector in passing_over {
                prop_assert!(!is(selector));
            }
        }
    }
}
