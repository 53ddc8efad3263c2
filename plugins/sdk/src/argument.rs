//! An argument of a framework: one line of its table, and its JSON Schema.

mod kind;
mod literal;

use serde_json::{Value, json};

pub use kind::{Format, Interval, Kind};
pub use literal::{Literal, Spelling};

use crate::Launch;

/// An argument of a framework: one line of its table.
///
/// Build it with [`integer`], [`number`], [`text`], [`boolean`], [`choice`] or [`list`] and the
/// methods below, or from an entry of [`crate::vocabulary`].
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// The canonical name, which reaches the command line as `--<name>`.
    pub name: &'static str,
    /// Other spellings, from other frameworks.
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    pub default: DefaultValue,
    /// Its name in the framework.
    pub native: &'static str,
    /// A description in one line.
    pub about: &'static str,
    /// The unit of its values, or empty.
    pub unit: &'static str,
    /// An example, if neither the default nor the choices provide one.
    pub example: Option<Literal>,
    /// Other spellings of values, each with the canonical value.
    pub value_aliases: &'static [(Spelling, &'static str)],
    /// Values that users may expect but that are not supported, with the reasons.
    pub excluded: &'static [Excluded],
    pub delivery: Delivery,
}

/// A value that is not supported, for [`Argument::excludes`].
#[derive(Clone, Copy, Debug)]
pub struct Excluded {
    pub value: &'static str,
    /// The reason, and what to use instead.
    pub why: &'static str,
}

/// Who reads an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It goes to the command line and to `TRAINING_EXTRA_ARGS_JSON`.
    Forwarded,
    /// Only the plugin reads it.
    PluginOnly,
}

/// The value of an argument that a job does not set.
#[derive(Clone, Copy, Debug)]
pub enum DefaultValue {
    /// The default of the framework, if it has one.
    Framework,
    Literal(Literal),
    /// The value of another argument.
    Argument(&'static str),
    /// The request's `model_id`.
    ModelId,
    /// A value that follows from other arguments.
    Derived {
        /// A description of the default.
        about: &'static str,
        /// The usual value.
        usual: Option<Literal>,
        value: fn(&Launch) -> Option<Value>,
    },
}

impl DefaultValue {
    /// The value in the table.
    pub(crate) const fn literal(self) -> Option<Literal> {
        match self {
            Self::Literal(literal) => Some(literal),
            Self::Derived { usual, .. } => usual,
            _ => None,
        }
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

/// A boolean. Its default is `false`, because the command line cannot express `false`: a behaviour that
/// is on by default needs a [`choice`] or an inverse name.
pub const fn boolean(name: &'static str) -> Argument {
    let mut boolean = argument(name, Kind::Boolean);
    boolean.default = DefaultValue::Literal(Literal::Boolean(false));
    boolean
}

/// One of several strings.
pub const fn choice(name: &'static str, choices: &'static [&'static str]) -> Argument {
    argument(name, Kind::Choice(choices))
}

/// A list of strings. On the command line, it is one value with commas.
pub const fn list(name: &'static str) -> Argument {
    argument(name, Kind::List(None))
}

impl Argument {
    /// Other spellings of the name.
    pub const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Sets the default.
    pub const fn default(mut self, default: Literal) -> Self {
        self.default = DefaultValue::Literal(default);
        self
    }

    /// Uses the value of another argument by default.
    pub const fn same_as(mut self, other: &'static str) -> Self {
        self.default = DefaultValue::Argument(other);
        self
    }

    /// Uses the request's `model_id` by default.
    pub const fn same_as_model_id(mut self) -> Self {
        self.default = DefaultValue::ModelId;
        self
    }

    /// Derives the default from other arguments. A default that was set before remains as the usual value,
    /// which a form may show.
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

    /// Sets an example.
    pub const fn example(mut self, example: Literal) -> Self {
        self.example = Some(example);
        self
    }

    /// Sets its name in the framework.
    pub const fn native(mut self, native: &'static str) -> Self {
        self.native = native;
        self
    }

    /// Sets the description, in one line.
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

    /// Whether a key of `extra_args` (with `_` in place of `-`) is a name of this argument.
    pub fn is_called(&self, key: &str) -> bool {
        self.name == key || self.aliases.contains(&key)
    }

    /// Its name and aliases.
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
    /// A valid value.
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
