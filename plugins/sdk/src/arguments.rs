//! Checks `extra_args` of a job against a framework's table, merges aliases, and prepares the values
//! for the command line. Reports the codes E01 to E11 and W05.

mod reader;
mod value;

use std::borrow::Cow;

use serde_json::Value;

use crate::{Delivery, Finding, Table, Text, json};
use reader::Reader;
pub(crate) use reader::{CHECKS, Findings, SCHEMA_CODES, Unknown};
pub(crate) use value::checked;
use value::word;

/// The arguments that a job gives.
#[derive(Debug)]
pub struct Arguments {
    table: &'static Table,
    /// By the number of the argument in the table.
    states: Vec<State>,
    given: Vec<GivenArgument>,
}

/// What is known of an argument of the table.
#[derive(Clone, Copy, Debug)]
enum State {
    Absent,
    /// Its place among the given ones.
    GivenArgument(u8),
    Refused,
}

/// An argument that the job gives, or that follows from one that it gives.
#[derive(Debug)]
struct GivenArgument {
    name: Cow<'static, str>,
    /// As the request spells it.
    key: Cow<'static, str>,
    value: Value,
    delivery: Delivery,
}

impl GivenArgument {
    /// Whether this is the argument of a name that is in no table.
    fn is_unknown(&self, name: &str) -> bool {
        matches!(self.name, Cow::Owned(_)) && self.name == name
    }
}

impl Arguments {
    /// Reads `extra_args` against a table. Reports and skips invalid arguments, and reads the rest.
    pub(crate) fn read(
        framework: &str,
        table: &'static Table,
        extra_args: &str,
        unknown: Unknown,
        findings: &mut Findings,
    ) -> Self {
        let nothing = Self {
            table,
            states: vec![State::Absent; table.arguments().len()],
            given: Vec::new(),
        };
        let mut arguments = Reader::new(framework, unknown, findings, nothing).read(extra_args);
        arguments.sort();
        arguments
    }

    /// Whether the job gives the argument, or it follows from one that the job gives.
    pub fn is_given(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// The given value of an argument, unless it was refused.
    pub fn given(&self, name: &str) -> Option<&Value> {
        match self.table.find(name) {
            Some(number) => self.given_at(number),
            None => self.given_unknown(name).map(|given| &given.value),
        }
    }

    /// Whether the argument was given with a value that was refused.
    pub fn is_refused(&self, name: &str) -> bool {
        let number = self.table.find(name);
        number.is_some_and(|number| self.is_refused_at(number))
    }

    /// Adds an argument of the table that follows from another one, unless the job gives it itself.
    pub fn imply(&mut self, name: &'static str, value: impl Into<Value>) {
        let Some(number) = self.table.find(name) else {
            return;
        };
        if !matches!(self.states.get(number), Some(State::Absent)) {
            return;
        }
        self.add(
            Some(number),
            GivenArgument {
                name: name.into(),
                key: name.into(),
                value: value.into(),
                delivery: Delivery::Forwarded,
            },
        );
        self.sort();
    }

    pub(crate) fn given_at(&self, number: usize) -> Option<&Value> {
        match self.states.get(number)? {
            State::GivenArgument(at) => Some(&self.given.get(usize::from(*at))?.value),
            _ => None,
        }
    }

    pub(crate) fn is_refused_at(&self, number: usize) -> bool {
        matches!(self.states.get(number), Some(State::Refused))
    }

    /// JSON Pointer to the first of the arguments that the request gives, as it spells it. A
    /// pointer among them stands for itself.
    pub(crate) fn pointer_to_first(&self, names: &[&str]) -> String {
        if let Some(pointer) = names.iter().find(|name| name.starts_with('/')) {
            return pointer.to_string();
        }
        let mut given = names
            .iter()
            .filter_map(|name| self.given.iter().find(|given| given.name == *name));
        let first = names.first().copied().unwrap_or_default();
        pointer(given.next().map_or(first, |given| &given.key))
    }

    pub(crate) fn table(&self) -> &'static Table {
        self.table
    }

    /// What `TRAINING_EXTRA_ARGS_JSON` carries: the given arguments with their types, `false` kept.
    pub(crate) fn typed(&self) -> String {
        json::object(self.forwarded())
    }

    /// The arguments that the table does not have, sorted by name.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = (&str, &Value)> {
        let unknown = |given: &&GivenArgument| matches!(given.name, Cow::Owned(_));
        let unknown = self.given.iter().filter(unknown);
        unknown.map(|given| (given.name.as_ref(), &given.value))
    }

    /// The command line: `--<name> <value>`, sorted by name, so that the order in which a request
    /// gives its arguments never changes the command.
    pub(crate) fn command_line(&self, words: &mut Vec<Text>) {
        for (name, value) in self.forwarded() {
            match value {
                Value::Bool(false) | Value::Null => continue,
                Value::Array(items) if items.is_empty() => continue,
                _ => words.push(Text::Literal(["--", name].concat())),
            }
            if !value.is_boolean() {
                words.push(Text::Literal(word(value)));
            }
        }
    }

    fn forwarded(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.given
            .iter()
            .filter(|given| given.delivery == Delivery::Forwarded)
            .map(|given| (given.name.as_ref(), &given.value))
    }

    /// An argument that is not in the table: its name is the request's own.
    fn given_unknown(&self, name: &str) -> Option<&GivenArgument> {
        let mut given = self.given.iter();
        given.find(|given| given.is_unknown(name))
    }

    fn add(&mut self, number: Option<usize>, given: GivenArgument) {
        if let Some(state) = number.and_then(|number| self.states.get_mut(number)) {
            // There are at most MAX_KEYS.
            *state = State::GivenArgument(u8::try_from(self.given.len()).unwrap_or(u8::MAX));
        }
        self.given.push(given);
    }

    /// Brings the given arguments into the order of their names.
    fn sort(&mut self) {
        if self.given.is_sorted_by(|a, b| a.name <= b.name) {
            return;
        }
        self.given.sort_by(|a, b| a.name.cmp(&b.name));
        for (at, given) in self.given.iter().enumerate() {
            let Cow::Borrowed(name) = given.name else {
                continue;
            };
            let number = self.table.find(name);
            if let Some(state @ State::GivenArgument(_)) =
                number.and_then(|n| self.states.get_mut(n))
            {
                *state = State::GivenArgument(u8::try_from(at).unwrap_or(u8::MAX));
            }
        }
    }
}

/// JSON Pointer to a member of `extra_args` (RFC 6901).
fn pointer(key: &str) -> String {
    format!("/extra_args/{}", key.replace('~', "~0").replace('/', "~1"))
}

pub(crate) fn finding(code: &str, pointer: String, detail: String) -> Finding {
    Finding {
        code: code.to_string(),
        pointer,
        detail,
    }
}
