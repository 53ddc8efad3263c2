//! The tree of values that is read from a text.

use std::ops::Range;
use std::rc::Rc;

use serde_json::{Map, Value};

/// A value with its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(super) content: Content,
    pub(super) at: Range<usize>,
    /// Values in it, itself among them, with aliases expanded.
    pub(super) values: usize,
    pub(super) depth: usize,
}

#[derive(Debug)]
pub(super) enum Content {
    /// The value, and whether it stands without quotes.
    Scalar(Value, Quotes),
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Member>),
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quotes {
    Quoted,
    Plain,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) name_at: Range<usize>,
    pub(super) node: Rc<Node>,
}

impl Node {
    pub(super) fn value(&self) -> Value {
        match &self.content {
            Content::Scalar(value, _) => value.clone(),
            Content::Sequence(items) => items.iter().map(|item| item.value()).collect(),
            Content::Mapping(members) => {
                let members = members.iter();
                let members = members.map(|member| (member.name.clone(), member.node.value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}

/// A list or an object with what is known of its parts.
pub(super) fn whole(content: Content, at: Range<usize>) -> Node {
    let parts: Vec<&Rc<Node>> = match &content {
        Content::Scalar(..) => Vec::new(),
        Content::Sequence(items) => items.iter().collect(),
        Content::Mapping(members) => members.iter().map(|member| &member.node).collect(),
    };
    let values = parts.iter().map(|node| node.values);
    let values = values.fold(1, usize::saturating_add);
    let depth = parts.iter().map(|node| node.depth + 1).max().unwrap_or(0);
    Node {
        content,
        at,
        values,
        depth,
    }
}
