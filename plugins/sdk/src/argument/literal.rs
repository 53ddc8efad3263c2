//! Values in a table of arguments: literals, and spellings of values in requests.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// A value in a table.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    Integer(i64),
    Number(f64),
    Boolean(bool),
    Text(&'static str),
    List(&'static [&'static str]),
}

/// A value as a request may spell it, for [`Argument::value_aliases`](super::Argument::value_aliases).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    Text(&'static str),
    Boolean(bool),
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
