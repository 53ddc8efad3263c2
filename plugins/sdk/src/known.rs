//! The options that a framework itself has, beside those of its table.
//!
//! A list is text that is written from the framework's source (`make known-options`): a name and its
//! types on each line, and `unread` where `train.py` does not pass the option on.

use serde_json::Value;

/// The options of a framework that its table does not list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownOptions(pub(crate) &'static str);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownOption {
    pub name: &'static str,
    /// Separated by `|`.
    types: &'static str,
    /// Whether `train.py` passes it on to the framework.
    pub is_read: bool,
}

impl KnownOptions {
    pub(crate) fn find(self, name: &str) -> Option<KnownOption> {
        self.iter().find(|option| option.name == name)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = KnownOption> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| {
            let mut words = line.split(' ');
            Some(KnownOption {
                name: words.next()?,
                types: words.next()?,
                is_read: words.next().is_none(),
            })
        })
    }
}

impl KnownOption {
    /// Whether a value has one of the option's types.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        self.types.split('|').any(|kind| match (kind, value) {
            ("any", _) => true,
            ("integer", Value::Number(number)) => {
                number.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            ("number", value) => value.is_number(),
            ("boolean", value) => value.is_boolean(),
            ("text", value) => value.is_string(),
            ("list", value) => value.is_array(),
            ("object", value) => value.is_object(),
            _ => false,
        })
    }

    /// What a right value is, to go after "expected".
    pub(crate) fn expected(&self) -> String {
        self.types.replace('|', " or ").replace("text", "string")
    }
}
