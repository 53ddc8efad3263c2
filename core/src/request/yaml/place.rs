//! Where in a text a value of it is.

use std::ops::Range;
use std::rc::Rc;

use serde_json::Value;

use super::{Content, Node, Quotes};

/// The places of all values of a text.
#[derive(Debug)]
pub struct Places {
    root: Rc<Node>,
}

/// The place of one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The bytes of its name, where it is a member of an object.
    pub name: Option<Range<usize>>,
    /// The bytes of the value.
    pub value: Range<usize>,
    /// What the value was read as, where it is a scalar without quotes that is not text.
    pub unquoted: Option<Value>,
}

impl Places {
    pub(super) fn new(root: Rc<Node>) -> Self {
        Self { root }
    }

    /// The place that a JSON Pointer names, if there is one.
    pub fn find(&self, pointer: &str) -> Option<Place> {
        let mut here = &self.root;
        let mut name = None;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            (here, name) = match &here.content {
                Content::Mapping(members) => {
                    let member = members.iter().find(|member| member.name == token)?;
                    (&member.node, Some(member.name_at.clone()))
                }
                Content::Sequence(items) => (items.get(token.parse::<usize>().ok()?)?, None),
                Content::Scalar(..) => return None,
            };
        }
        let unquoted = match &here.content {
            Content::Scalar(value, Quotes::Plain) if !value.is_string() => Some(value.clone()),
            _ => None,
        };
        Some(Place {
            name,
            value: here.at.clone(),
            unquoted,
        })
    }
}
