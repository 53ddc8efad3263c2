//! YAML as requests and files of settings have it, read into JSON values with their places.
//!
//! Readers of YAML disagree on what some texts without quotes mean, so those are findings: nothing
//! is guessed. Aliases are expanded as far as a text may have values.

mod mistake;
mod node;
mod place;
mod scalar;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::Value;

pub(crate) use node::Node;
use node::{Content, Member, Quotes, whole};
pub use place::{Place, Places};

use crate::finding::{Code, Finding, pointer};
use crate::request::json::MAX_VALUES;
use crate::request::schema::quote_text;

/// Deepest nesting, as in JSON.
const MAX_DEPTH: usize = 128;
/// Most findings about one text.
const MAX_FINDINGS: usize = 10;

/// Something that is wrong with a text, and the bytes that it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Misread {
    pub finding: Finding,
    pub at: Range<usize>,
}

/// Reads a text with one document.
///
/// # Errors
///
/// One finding where the text stops being YAML or has too many values; otherwise one for each value
/// whose meaning is not certain and each name given twice, of which the first ten are listed.
pub fn parse(text: &str) -> Result<(Value, Places), Vec<Misread>> {
    let mut reader = Reader::new(text);
    let root = match reader.document() {
        Ok(root) => root,
        Err(stop) => return Err(vec![stop]),
    };
    match reader.findings.is_empty() {
        true => Ok((root.value(), Places::new(root))),
        false => Err(reader.findings),
    }
}

/// The places of the values of a text, whatever the values are. JSON is YAML in this respect.
pub fn places(text: &str) -> Option<Places> {
    let root = Reader::new(text).document().ok()?;
    Some(Places::new(root))
}

type Events<'a> = Parser<'a, StrInput<'a>>;

struct Reader<'a> {
    text: &'a str,
    events: Events<'a>,
    anchors: BTreeMap<usize, Rc<Node>>,
    /// The way to the value that is being read.
    path: Vec<String>,
    values: usize,
    findings: Vec<Misread>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let options = granit_parser::options! {
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
            emit_comments: false,
            // Any key of a request in JSON is shorter than its body.
            simple_key_max_lookahead: usize::MAX,
        };
        Self {
            text,
            events: Parser::new_from_str_with_options(text, options),
            anchors: BTreeMap::new(),
            path: Vec::new(),
            values: 0,
            findings: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Range<usize>), Misread> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, self.range(&span))),
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or(self.text.len());
                Err(mistake::syntax(self.text, error.kind(), at))
            }
            None => Err(mistake::at(
                self.text,
                self.text.len(),
                "the text ends too early",
            )),
        }
    }

    fn range(&self, span: &Span) -> Range<usize> {
        let range = span.byte_range().unwrap_or_default();
        range.start.min(self.text.len())..range.end.min(self.text.len())
    }

    /// The one document of the text.
    fn document(&mut self) -> Result<Rc<Node>, Misread> {
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd => return Err(mistake::empty(self.text)),
                event => {
                    let root = self.node(event, at)?;
                    self.end()?;
                    return Ok(root);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Misread> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(..), at) => {
                    let what = "a second document begins here; a file has one, so remove the rest";
                    return Err(mistake::at(self.text, at.start, what));
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'a>, at: Range<usize>) -> Result<Rc<Node>, Misread> {
        self.values += 1;
        self.check_values(at.start)?;
        if self.path.len() > MAX_DEPTH {
            return Err(mistake::too_deep(self.text, at.start));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(text, style, tag.as_deref(), at)?, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], at.start)?;
                (self.sequence(at.start)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], at.start)?;
                (self.mapping(at.start)?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, at),
            _ => return Err(mistake::at(self.text, at.start, "a value is missing here")),
        };
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn check_values(&self, at: usize) -> Result<(), Misread> {
        match self.values > MAX_VALUES {
            true => Err(mistake::too_many_values(self.text, at)),
            false => Ok(()),
        }
    }

    fn alias(&mut self, anchor: usize, at: Range<usize>) -> Result<Rc<Node>, Misread> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let what =
                "an alias (*NAME) stands within the value that it repeats; write the value out";
            return Err(mistake::at(self.text, at.start, what));
        };
        self.values = self.values.saturating_add(node.values);
        self.check_values(at.start)?;
        match self.path.len() + node.depth > MAX_DEPTH {
            true => Err(mistake::too_deep(self.text, at.start)),
            false => Ok(node),
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'a, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: Range<usize>,
    ) -> Result<Node, Misread> {
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
        let (value, quotes) = match style {
            ScalarStyle::Plain if !is_text => {
                self.check_tag(tag, &["null", "bool", "int", "float"], at.start)?;
                match scalar::resolve(&text) {
                    Ok(value) => (value, Quotes::Plain),
                    Err(scalar::Doubt { code, detail }) => {
                        self.found(code, &at, detail);
                        (Value::from(text.as_ref()), Quotes::Plain)
                    }
                }
            }
            _ => {
                self.check_tag(tag, &["str"], at.start)?;
                (Value::from(text.as_ref()), Quotes::Quoted)
            }
        };
        Ok(Node {
            content: Content::Scalar(value, quotes),
            at,
            values: 1,
            depth: 0,
        })
    }

    fn sequence(&mut self, start: usize) -> Result<Node, Misread> {
        let mut items: Vec<Rc<Node>> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(whole(Content::Sequence(items), start..at.end));
            }
            self.path.push(items.len().to_string());
            items.push(self.node(event, at)?);
            self.path.pop();
        }
    }

    fn mapping(&mut self, start: usize) -> Result<Node, Misread> {
        let mut members: Vec<Member> = Vec::new();
        let mut merged: Vec<Rc<Node>> = Vec::new();
        loop {
            let (event, name_at) = self.next()?;
            let (name, style) = match event {
                Event::MappingEnd => break,
                Event::Scalar(name, style, ..) => {
                    if name_at.is_empty() && style == ScalarStyle::Plain {
                        let what = "a name is missing before the colon";
                        return Err(mistake::at(self.text, name_at.start, what));
                    }
                    (name, style)
                }
                _ => {
                    let what = "a name must be text, not a list, an object or an alias";
                    return Err(mistake::at(self.text, name_at.start, what));
                }
            };
            self.path.push(name.to_string());
            let (event, at) = self.next()?;
            let node = self.node(event, at)?;
            if name == "<<" && style == ScalarStyle::Plain {
                merged.push(self.mergeable(node, name_at.start)?);
            } else if members.iter().any(|member| member.name == name) {
                let detail = format!("the name {} is given twice; remove one", quote_text(&name));
                self.found(Code::DuplicateName, &name_at, detail);
            } else {
                let name = name.into_owned();
                members.push(Member {
                    name,
                    name_at,
                    node,
                });
            }
            self.path.pop();
        }
        for source in &merged {
            merge(source, &mut members);
        }
        let end = members.iter().map(|member| member.node.at.end);
        let end = end.max().unwrap_or(start).max(start);
        Ok(whole(Content::Mapping(members), start..end))
    }

    /// What `<<` adds to an object: an object, or a list of them.
    fn mergeable(&self, node: Rc<Node>, at: usize) -> Result<Rc<Node>, Misread> {
        let is_mapping = |node: &Node| matches!(node.content, Content::Mapping(_));
        let fits = match &node.content {
            Content::Sequence(items) => items.iter().all(|item| is_mapping(item)),
            _ => is_mapping(&node),
        };
        match fits {
            true => Ok(node),
            false => {
                let what = "<< takes an object, as in <<: *NAME";
                Err(mistake::at(self.text, at, what))
            }
        }
    }

    fn check_tag(&self, tag: Option<&Tag>, known: &[&str], at: usize) -> Result<(), Misread> {
        let Some(tag) = tag else {
            return Ok(());
        };
        match known.iter().any(|name| tag.is_yaml_core_schema_tag(name)) {
            true => Ok(()),
            false => {
                let tag = quote_text(&tag.original());
                let what = format!("the tag {tag} has no meaning here; remove it");
                Err(mistake::at(self.text, at, &what))
            }
        }
    }

    fn found(&mut self, code: Code, at: &Range<usize>, detail: String) {
        if self.findings.len() < MAX_FINDINGS {
            let pointer = pointer(self.path.iter().map(String::as_str));
            let line = mistake::line(self.text, at.start);
            let finding = Finding::new(code, pointer, format!("line {line}: {detail}"));
            let at = at.clone();
            self.findings.push(Misread { finding, at });
        }
    }
}

/// Adds the members that an object does not have itself.
fn merge(source: &Node, members: &mut Vec<Member>) {
    match &source.content {
        Content::Mapping(more) => {
            for Member {
                name,
                name_at,
                node,
            } in more
            {
                if !members.iter().any(|member| member.name == *name) {
                    members.push(Member {
                        name: name.clone(),
                        name_at: name_at.clone(),
                        node: node.clone(),
                    });
                }
            }
        }
        Content::Sequence(items) => items.iter().for_each(|item| merge(item, members)),
        Content::Scalar(..) => {}
    }
}

#[cfg(test)]
mod tests;
