//! Reads `extra_args` of a request into [`Arguments`]: each key and value checked, aliases merged.

use std::borrow::Cow;

use serde_json::Value;

use super::value::{self, Wrong, checked, fitting, forwardable, keep_shorter, same};
use super::{Arguments, GivenArgument, State, finding, pointer};
use crate::known::KnownOption;
use crate::{Argument, Delivery, Finding, json, reserved, suggestion::nearest};

/// Most keys in `extra_args`.
const MAX_KEYS: usize = 128;
/// Longest key.
const MAX_KEY_BYTES: usize = 64;
/// Most bytes of JSON in all. Linux limits one environment string to 128 KiB.
const MAX_BYTES: usize = 64 * 1024;

/// The checks of every argument: code, effect and description.
pub(crate) const CHECKS: &[(&str, &str, &str)] = &[
    (
        "E01",
        "refuse",
        "there are at most 128 keys, each a valid flag name: at most 64 letters, digits, '_', '.' and \
         '-', starting with a letter",
    ),
    (
        "E02",
        "refuse",
        "fields of the request are set at the top level, not in extra_args",
    ),
    (
        "E03",
        "refuse",
        "a key is not an option of train.py or torchrun, nor an abbreviation of one",
    ),
    (
        "E04",
        "refuse",
        "if an argument is given under several names, the values are equal",
    ),
    ("E05", "refuse", "a value has the type of the argument"),
    (
        "E06",
        "refuse",
        "a value is in the range of the argument, and a string has at most 4096 bytes",
    ),
    (
        "E07",
        "refuse",
        "a value is one of the choices of the argument",
    ),
    (
        "E08",
        "refuse",
        "a string does not start with '-', and list items contain no comma",
    ),
    ("E09", "refuse", "a string contains no control characters"),
    (
        "E10",
        "refuse",
        "a value is not nested, unless the option of the framework is an object, and lists contain \
         no null",
    ),
    (
        "E11",
        "refuse",
        "an unknown argument does not look like a typo; if the service refuses unknown arguments, \
         it is an error",
    ),
    (
        "W05",
        "warn",
        "train.py knows the argument; unknown ones are forwarded unchanged",
    ),
];

/// What the host finds by the schema alone, and the code that the plugin gives the same mistake. The
/// host looks at the schema where a request has other faults too, so that the plugin is not asked.
pub(crate) const SCHEMA_CODES: &[(&str, &str)] = &[
    ("type", "E05"),
    ("range", "E06"),
    ("length", "E06"),
    // The one keyword of ours that combines others: a value beside the range.
    ("schema", "E06"),
    ("choice", "E07"),
];

/// What an argument that is not in the table means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It is forwarded with a warning, since frameworks have more arguments than any list.
    Forward,
    /// It is refused where it is nearly a known name, else forwarded.
    Suggest,
    /// It is refused with the nearest known name.
    Refuse,
}

/// What was found wrong or odd while the arguments were read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub refusals: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

/// Reads the members of `extra_args` one by one.
pub(super) struct Reader<'a> {
    framework: &'a str,
    unknown: Unknown,
    findings: &'a mut Findings,
    arguments: Arguments,
}

impl<'a> Reader<'a> {
    /// `arguments` are those read so far.
    pub(super) fn new(
        framework: &'a str,
        unknown: Unknown,
        findings: &'a mut Findings,
        arguments: Arguments,
    ) -> Self {
        Self {
            framework,
            unknown,
            findings,
            arguments,
        }
    }

    pub(super) fn read(mut self, extra_args: &str) -> Arguments {
        self.read_object(extra_args);
        self.arguments
    }

    fn read_object(&mut self, extra_args: &str) {
        let members = match json::members(extra_args) {
            Ok(members) => members,
            Err(error) => {
                let detail = format!("extra_args: expected object: {error}");
                return self.refuse("E05", "/extra_args".to_string(), detail);
            }
        };
        if members.len() > MAX_KEYS {
            let detail = format!(
                "extra_args: {} keys, but at most {MAX_KEYS} are allowed",
                members.len()
            );
            return self.refuse("E01", "/extra_args".to_string(), detail);
        }
        if extra_args.len() > MAX_BYTES {
            let detail = format!(
                "extra_args: {} bytes of JSON, but at most {MAX_BYTES} are allowed",
                extra_args.len()
            );
            return self.refuse("E06", "/extra_args".to_string(), detail);
        }
        self.arguments.given.reserve(members.len() + 1);
        for (key, value) in members {
            // `null` is how many clients write an argument that is not given.
            if !value.is_null() {
                self.read_member(key, value);
            }
        }
    }

    fn read_member(&mut self, key: String, value: Value) {
        if !is_flag_name(&key) {
            let quoted = value::shortened(&key);
            let detail = format!("extra_args: key '{quoted}' is not a valid flag name");
            let pointer = match quoted.len() < key.len() {
                true => "/extra_args".to_string(),
                false => pointer(&key),
            };
            return self.refuse("E01", pointer, detail);
        }
        let name = match key.contains('-') {
            true => Cow::Owned(key.replace('-', "_")),
            false => Cow::Borrowed(key.as_str()),
        };
        let table = self.arguments.table;
        match table.find(&name) {
            Some(number) => {
                let Some(argument) = table.arguments().get(number) else {
                    return;
                };
                self.read_known(number, argument, key, value);
            }
            // A table has no reserved names: `Framework::mistakes` reports them.
            None if reserved::is_request_field(&name) => {
                let detail = format!("extra_args.{key}: set the top-level field {name} instead");
                self.refuse("E02", pointer(&key), detail);
            }
            None if reserved::is_train_option(&name) => {
                let option = name.replace('_', "-");
                let detail = format!(
                    "extra_args.{key}: reserved by train.py \
                     (argparse would read --{option} as another option)"
                );
                self.refuse("E03", pointer(&key), detail);
            }
            None => self.read_unlisted(name.into_owned(), key, value),
        }
    }

    /// An argument that the table does not have.
    fn read_unlisted(&mut self, name: String, key: String, value: Value) {
        let option = self.arguments.table.options().find(&name);
        if let Some(theirs) = reserved::torchrun_option(&name)
            && (option.is_none() || theirs != name)
        {
            let detail = format!(
                "extra_args.{key}: reserved by torchrun (it would read --{name} as its own option \
                 --{theirs}); remove it"
            );
            return self.refuse("E03", pointer(&key), detail);
        }
        if option.is_none() && self.is_refused_as_unknown(&name, &key) {
            return;
        }
        let value = match option {
            Some(option) => of_its_type(option, value),
            None => forwardable(value),
        };
        match value {
            Ok(value) => self.forward(name, key, value, option),
            Err(wrong) => self.refuse_value(&key, wrong),
        }
    }

    /// Refuses an argument that nobody knows, where it is a slip or the service forwards none.
    fn is_refused_as_unknown(&mut self, name: &str, key: &str) -> bool {
        if self.unknown == Unknown::Forward {
            return false;
        }
        let meant = self.meant(name);
        if meant.is_none() && self.unknown == Unknown::Suggest {
            return false;
        }
        let hint = meant.unwrap_or_default();
        let detail = format!("extra_args.{key}: unknown argument{hint}");
        self.refuse("E11", pointer(key), detail);
        true
    }

    /// What a person may have meant by a name that nobody knows.
    fn meant(&self, name: &str) -> Option<String> {
        let table = self.arguments.table;
        let listed = table.arguments().iter().flat_map(Argument::names);
        if let Some(known) = nearest(listed, name) {
            return Some(format!(", did you mean \"{known}\"?"));
        }
        if let Some(field) = nearest(reserved::REQUEST_FIELDS.iter().copied(), name) {
            return Some(format!(", did you mean the top-level field \"{field}\"?"));
        }
        let options = table.options().iter().map(|option| option.name);
        let known = nearest(options.filter(|name| name.len() > 2), name)?;
        Some(format!(", did you mean \"{known}\"?"))
    }

    fn read_known(
        &mut self,
        number: usize,
        argument: &'static Argument,
        key: String,
        value: Value,
    ) {
        let value = match checked(argument, value) {
            Ok(value) => value,
            Err(wrong) => {
                self.forget(number);
                return self.refuse_value(&key, wrong);
            }
        };
        let given = &mut self.arguments.given;
        let first = match self.arguments.states.get(number).copied() {
            Some(State::Absent) => {
                let given = GivenArgument {
                    name: argument.name.into(),
                    key: key.into(),
                    value,
                    delivery: argument.delivery,
                };
                return self.arguments.add(Some(number), given);
            }
            Some(State::GivenArgument(at)) => given.get_mut(usize::from(at)),
            _ => given.iter_mut().find(|given| given.name == argument.name),
        };
        match first {
            Some(first) if same(&first.value, &value) => keep_shorter(&mut first.value, value),
            Some(first) => {
                let detail = different(&first.key, &key, argument.name);
                self.forget(number);
                self.refuse("E04", pointer(&key), detail);
            }
            None => {}
        }
    }

    /// Forwards an argument that the table does not have. `option` is the framework's own.
    fn forward(&mut self, name: String, key: String, value: Value, option: Option<KnownOption>) {
        let mut given = self.arguments.given.iter_mut();
        match given.find(|given| given.is_unknown(&name)) {
            Some(first) if same(&first.value, &value) => {
                return keep_shorter(&mut first.value, value);
            }
            Some(first) => {
                let detail = different(&first.key, &key, &name);
                return self.refuse("E04", pointer(&key), detail);
            }
            None => {}
        }
        let framework = self.framework;
        let unread = match option {
            Some(option) if option.is_read => None,
            Some(_) => Some(format!(
                "an option of framework {framework} that train.py does not use"
            )),
            None => Some(format!("unknown to framework {framework}")),
        };
        if let Some(unread) = unread {
            let detail = format!("extra_args.{key}: {unread}, forwarded as --{name}");
            let warning = finding("W05", pointer(&key), detail);
            self.findings.warnings.push(warning);
        }
        let given = GivenArgument {
            name: name.into(),
            key: key.into(),
            value,
            delivery: Delivery::Forwarded,
        };
        self.arguments.add(None, given);
    }

    /// Notes that an argument was refused, so that no rule looks at it. What was given before under
    /// another name keeps its place, which others are counted by; the job is refused anyway.
    fn forget(&mut self, number: usize) {
        if let Some(state) = self.arguments.states.get_mut(number) {
            *state = State::Refused;
        }
    }

    fn refuse_value(&mut self, key: &str, Wrong { code, what }: Wrong) {
        self.refuse(code, pointer(key), format!("extra_args.{key}: {what}"));
    }

    fn refuse(&mut self, code: &str, pointer: String, detail: String) {
        let finding = finding(code, pointer, detail);
        self.findings.refusals.push(finding);
    }
}

/// The value of a framework's own option, unless it has another type.
fn of_its_type(option: KnownOption, value: Value) -> Result<Value, Wrong> {
    if !option.accepts(&value) {
        let got = value::quote(&value);
        let what = format!("expected {}, got {got}", option.expected());
        return Err(Wrong::new("E05", what));
    }
    match value.is_object() {
        true => fitting(value),
        false => forwardable(value),
    }
}

fn different(first: &str, second: &str, name: &str) -> String {
    format!(
        "extra_args.{first} and extra_args.{second} are the same argument ({name}) with different \
         values"
    )
}

/// `^[A-Za-z][A-Za-z0-9_.-]{0,63}$`
fn is_flag_name(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES
        && key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}
