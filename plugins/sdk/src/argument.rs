//! One argument of a framework: a line of its table, and the checks and the schema that follow.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::Launch;

/// An argument of a framework: one line of its table.
///
/// Build it with [`integer`], [`number`], [`text`], [`boolean`], [`choice`] or [`list`] and the
/// methods below, or from an entry of [`crate::vocabulary`].
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// The canonical name, which reaches the command line as `--<name>`.
    pub name: &'static str,
    /// Other spellings, from the frameworks that people come from.
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    pub default: DefaultValue,
    /// What the framework itself calls it.
    pub native: &'static str,
    /// What it means, in one line.
    pub about: &'static str,
    /// The unit of its values, empty where there is none.
    pub unit: &'static str,
    /// A value that somebody may want, where neither default nor choices show one.
    pub example: Option<Literal>,
    /// Other spellings of values, each with the value that it stands for.
    pub value_aliases: &'static [(Spelling, &'static str)],
    /// Values that people may expect and that it does not take, with the reason.
    pub excluded: &'static [Excluded],
    pub delivery: Delivery,
}

/// A value as a request may spell it, for [`Argument::value_aliases`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    Text(&'static str),
    Boolean(bool),
}

/// A value that an argument does not take, for [`Argument::excludes`].
#[derive(Clone, Copy, Debug)]
pub struct Excluded {
    pub value: &'static str,
    /// Why, and what would be right.
    pub why: &'static str,
}

/// Whom an argument is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It goes to the command line and to `TRAINING_EXTRA_ARGS_JSON`.
    Forwarded,
    /// It only steers the plugin.
    PluginOnly,
}

/// The values that an argument takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Integer {
        minimum: i64,
        maximum: i64,
        /// One value outside the range that has a meaning of its own, such as -1.
        also: Option<i64>,
    },
    Number(Interval),
    Boolean,
    /// A string with a range of lengths in characters.
    Text {
        minimum: usize,
        maximum: usize,
        form: Option<Format>,
    },
    Choice(&'static [&'static str]),
    /// A flat list of strings.
    List(Option<Format>),
}

/// What a string has to look like beyond its length.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Completes "is not …" in the error: what a right value is.
    pub expected: &'static str,
    pub accepts: fn(&str) -> bool,
}

/// A range of numbers, each end in or out.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    pub low_open: bool,
    pub high_open: bool,
}

/// A value that stands in a table.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    Integer(i64),
    Number(f64),
    Boolean(bool),
    Text(&'static str),
    List(&'static [&'static str]),
}

/// The value that stands for an argument nobody gave.
#[derive(Clone, Copy, Debug)]
pub enum DefaultValue {
    /// None: the framework's own, or none at all.
    Framework,
    Literal(Literal),
    /// The value of another argument.
    Argument(&'static str),
    /// The request's `model_id`.
    ModelId,
    /// A value that follows from other arguments.
    Derived {
        /// The default in words.
        about: &'static str,
        /// What it mostly is.
        usual: Option<Literal>,
        value: fn(&Launch) -> Option<Value>,
    },
}

impl DefaultValue {
    /// The value that the table itself names.
    pub(crate) const fn literal(self) -> Option<Literal> {
        match self {
            Self::Literal(literal) => Some(literal),
            Self::Derived { usual, .. } => usual,
            _ => None,
        }
    }
}

impl Interval {
    /// `[low, high]`
    pub const fn closed(low: f64, high: f64) -> Self {
        Self {
            low,
            high,
            low_open: false,
            high_open: false,
        }
    }

    /// `(low, high]`
    pub const fn above(low: f64, high: f64) -> Self {
        Self {
            low_open: true,
            ..Self::closed(low, high)
        }
    }

    /// `[low, high)`
    pub const fn below(low: f64, high: f64) -> Self {
        Self {
            high_open: true,
            ..Self::closed(low, high)
        }
    }

    fn contains(&self, value: f64) -> bool {
        let low = if self.low_open {
            value > self.low
        } else {
            value >= self.low
        };
        let high = if self.high_open {
            value < self.high
        } else {
            value <= self.high
        };
        low && high
    }
}

const fn argument(name: &'static str, kind: Kind) -> Argument {
    Argument {
        name,
        aliases: &[],
        kind,
        default: DefaultValue::Framework,
        native: "",
        about: "",
        unit: "",
        example: None,
        value_aliases: &[],
        excluded: &[],
        delivery: Delivery::Forwarded,
    }
}

/// A whole number from `minimum` to `maximum`.
pub const fn integer(name: &'static str, minimum: i64, maximum: i64) -> Argument {
    argument(
        name,
        Kind::Integer {
            minimum,
            maximum,
            also: None,
        },
    )
}

/// A number in an interval.
pub const fn number(name: &'static str, interval: Interval) -> Argument {
    argument(name, Kind::Number(interval))
}

/// A string of `minimum` to `maximum` characters.
pub const fn text(name: &'static str, minimum: usize, maximum: usize) -> Argument {
    argument(
        name,
        Kind::Text {
            minimum,
            maximum,
            form: None,
        },
    )
}

/// A switch. It is off unless given: `false` vanishes on the command line, so a behaviour that is
/// on by default needs a [`choice`] or an inverse name.
pub const fn boolean(name: &'static str) -> Argument {
    let mut boolean = argument(name, Kind::Boolean);
    boolean.default = DefaultValue::Literal(Literal::Boolean(false));
    boolean
}

/// One of a few words.
pub const fn choice(name: &'static str, choices: &'static [&'static str]) -> Argument {
    argument(name, Kind::Choice(choices))
}

/// A list of strings, which reaches the command line as one value with commas.
pub const fn list(name: &'static str) -> Argument {
    argument(name, Kind::List(None))
}

impl Argument {
    /// Other spellings of the name.
    pub const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The value that stands for it when it is not given.
    pub const fn default(mut self, default: Literal) -> Self {
        self.default = DefaultValue::Literal(default);
        self
    }

    /// Has the value of another argument when it is not given.
    pub const fn same_as(mut self, other: &'static str) -> Self {
        self.default = DefaultValue::Argument(other);
        self
    }

    /// Has the request's `model_id` when it is not given.
    pub const fn same_as_model_id(mut self) -> Self {
        self.default = DefaultValue::ModelId;
        self
    }

    /// Has a value that follows from other arguments when it is not given. The default that it has
    /// so far is what a form may show.
    pub const fn derived(
        mut self,
        about: &'static str,
        value: fn(&Launch) -> Option<Value>,
    ) -> Self {
        let usual = self.default.literal();
        self.default = DefaultValue::Derived {
            about,
            usual,
            value,
        };
        self
    }

    /// A value that somebody may want.
    pub const fn example(mut self, example: Literal) -> Self {
        self.example = Some(example);
        self
    }

    /// What the framework itself calls it.
    pub const fn native(mut self, native: &'static str) -> Self {
        self.native = native;
        self
    }

    /// What it means, in one line.
    pub const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// The unit of its values.
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// Takes other values than the vocabulary's entry does.
    pub const fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// One of other words than the vocabulary's entry has.
    pub const fn choices(self, choices: &'static [&'static str]) -> Self {
        self.kind(Kind::Choice(choices))
    }

    /// A whole number outside the range that is valid too.
    pub const fn also(mut self, value: i64) -> Self {
        if let Kind::Integer { also, .. } = &mut self.kind {
            *also = Some(value);
        }
        self
    }

    /// What its string, or each item of its list, has to look like.
    pub const fn form(mut self, expected: &'static str, accepts: fn(&str) -> bool) -> Self {
        match &mut self.kind {
            Kind::Text { form, .. } | Kind::List(form) => {
                *form = Some(Format { expected, accepts });
            }
            _ => {}
        }
        self
    }

    /// Other spellings of its values.
    pub const fn value_alias(mut self, value_aliases: &'static [(Spelling, &'static str)]) -> Self {
        self.value_aliases = value_aliases;
        self
    }

    /// Says why it does not take values that people may expect.
    pub const fn excludes(mut self, excluded: &'static [Excluded]) -> Self {
        self.excluded = excluded;
        self
    }

    /// Keeps it from the command line.
    pub const fn plugin_only(mut self) -> Self {
        self.delivery = Delivery::PluginOnly;
        self
    }

    /// Whether a key of `extra_args`, with `-` already made `_`, means this argument.
    pub fn is_called(&self, key: &str) -> bool {
        self.name == key || self.aliases.contains(&key)
    }

    /// Its name and the other spellings of it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// The JSON Schema of its values. It contains every spelling of a value that the plugin accepts, so
    /// that a validator of requests refuses nothing that the plugin accepts.
    pub fn schema(&self) -> Value {
        let mut schema = self.kind.schema(self.value_aliases);
        let mut put = |name: &str, value: Value| schema.insert(name.to_string(), value);
        put("title", json!(self.name.replace('_', " ")));
        put("description", json!(self.about));
        if let Some(literal) = self.default.literal() {
            put("default", literal.value());
        }
        match self.default {
            DefaultValue::Framework | DefaultValue::Literal(_) => None,
            DefaultValue::Argument(name) => put("x-default", json!(format!("= {name}"))),
            DefaultValue::ModelId => put("x-default", json!("= model_id")),
            DefaultValue::Derived { about, .. } => put("x-default", json!(about)),
        };
        put("examples", json!([self.an_example()]));
        if !self.aliases.is_empty() {
            put("x-aliases", json!(self.aliases));
        }
        if !self.value_aliases.is_empty() {
            let aliases = self.value_aliases.iter();
            let pairs: Vec<Value> = aliases
                .map(|(s, value)| json!([s.value(), value]))
                .collect();
            put("x-value-aliases", json!(pairs));
        }
        if !self.native.is_empty() {
            put("x-native", json!(self.native));
        }
        if !self.unit.is_empty() {
            put("x-unit", json!(self.unit));
        }
        Value::Object(schema)
    }
}

impl Argument {
    /// A valid value of it.
    pub(crate) fn an_example(&self) -> Value {
        match (self.example.or(self.default.literal()), self.kind) {
            (Some(Literal::Boolean(_)), _) | (None, Kind::Boolean) => json!(true),
            (Some(literal), _) => literal.value(),
            (None, Kind::Integer { minimum, .. }) => json!(minimum),
            (None, Kind::Number(interval)) => json!(interval.high),
            (None, Kind::Choice(choices)) => json!(choices.first()),
            (None, Kind::Text { .. }) => json!(self.name),
            (None, Kind::List(_)) => json!([]),
        }
    }
}

impl Kind {
    /// What the errors call a value of this kind.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Integer { .. } => "integer",
            Self::Number(_) => "number",
            Self::Boolean => "boolean",
            Self::Text { .. } | Self::Choice(_) => "string",
            Self::List(_) => "list of strings",
        }
    }

    /// The range in the words of an E06 error, if the kind has one and the value is outside it.
    pub(crate) fn out_of_range(&self, value: &Value) -> Option<String> {
        match *self {
            Self::Integer {
                minimum,
                maximum,
                also,
            } => {
                let given = value.as_i64();
                if given.is_some_and(|n| (minimum..=maximum).contains(&n) || also == Some(n)) {
                    return None;
                }
                let or = also.map(|n| format!("{n} or ")).unwrap_or_default();
                Some(format!("{value} is out of range {or}{minimum}..{maximum}"))
            }
            Self::Number(interval) => {
                if value.as_f64().is_some_and(|n| interval.contains(n)) {
                    return None;
                }
                let open = if interval.low_open { '(' } else { '[' };
                let close = if interval.high_open { ')' } else { ']' };
                let Interval { low, high, .. } = interval;
                Some(format!("{value} is out of range {open}{low},{high}{close}"))
            }
            Self::Text {
                minimum, maximum, ..
            } => {
                let length = value.as_str().unwrap_or_default().chars().count();
                (!(minimum..=maximum).contains(&length))
                    .then(|| format!("a length of {length} is out of range {minimum}..{maximum}"))
            }
            _ => None,
        }
    }

    fn schema(&self, value_aliases: &[(Spelling, &str)]) -> Map<String, Value> {
        let schema = match *self {
            Self::Integer {
                minimum,
                maximum,
                also: None,
            } => json!({"type": "integer", "minimum": minimum, "maximum": maximum}),
            Self::Integer {
                minimum,
                maximum,
                also: Some(also),
            } => json!({
                "type": "integer",
                "anyOf": [{"const": also}, {"minimum": minimum, "maximum": maximum}],
            }),
            Self::Number(interval) => {
                let low = if interval.low_open {
                    "exclusiveMinimum"
                } else {
                    "minimum"
                };
                let high = if interval.high_open {
                    "exclusiveMaximum"
                } else {
                    "maximum"
                };
                json!({"type": "number", low: interval.low, high: interval.high})
            }
            Self::Boolean => json!({"type": "boolean"}),
            Self::Text {
                minimum,
                maximum,
                form,
            } => {
                let mut schema =
                    json!({"type": "string", "minLength": minimum, "maxLength": maximum});
                if let Some(form) = form {
                    schema["x-form"] = json!(form.expected);
                }
                schema
            }
            Self::Choice(choices) => {
                let aliases = value_aliases.iter().map(|(spelling, _)| spelling.value());
                let choices: Vec<Value> = choices.iter().map(|c| json!(c)).chain(aliases).collect();
                json!({ "enum": choices })
            }
            Self::List(form) => {
                let mut schema = json!({"type": "array", "items": {"type": "string"}});
                if let Some(form) = form {
                    schema["x-form"] = json!(form.expected);
                }
                schema
            }
        };
        match schema {
            Value::Object(schema) => schema,
            _ => Map::new(),
        }
    }
}

impl Spelling {
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Boolean(boolean) => json!(boolean),
        }
    }
}

impl Literal {
    pub(crate) fn value(&self) -> Value {
        json!(self)
    }
}

impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Integer(integer) => integer.serialize(serializer),
            Self::Number(number) => number.serialize(serializer),
            Self::Boolean(boolean) => boolean.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
            Self::List(list) => list.serialize(serializer),
        }
    }
}
