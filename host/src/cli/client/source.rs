//! The file of a request: read, changed by `--set`, and shown again where something in it is wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use anyhow::{Context, anyhow, bail};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::output::Style;
use crate::finding::Finding;
use crate::request;

/// A file with a request.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
    /// Pointers to what `--set` has put in place of what the file says.
    set: BTreeSet<String>,
}

impl Source {
    /// Reads a request, and sets fields of it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a setting is none.
    pub fn read(file: &Path, settings: &[String]) -> Result<(Self, Value), anyhow::Error> {
        let name = file.display().to_string();
        let mut text = String::new();
        let read = match name.as_str() {
            "-" => std::io::stdin().read_to_string(&mut text),
            _ => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
        };
        read.with_context(|| format!("cannot read {name}"))?;
        let mut request = parse(&name, &text)?;
        let mut set = BTreeSet::new();
        for setting in settings {
            set.insert(put(&mut request, setting)?);
        }
        Ok((Self { name, text, set }, request))
    }

    /// Shows each finding beneath the line that it is about.
    pub fn report(&self, findings: &[Finding], style: Style) -> String {
        let renderer = match style {
            Style::Coloured => Renderer::styled(),
            Style::Plain => Renderer::plain(),
        };
        let root = serde_saphyr::from_str::<Spanned<Node>>(&self.text).ok();
        let told = findings.iter().map(|finding| {
            let at = root
                .as_ref()
                .and_then(|root| self.find(root, &finding.pointer));
            let title = Level::ERROR
                .primary_title(&finding.detail)
                .id(&finding.code);
            let group = match at {
                Some(at) => {
                    let mark = AnnotationKind::Primary.span(at);
                    let snippet = Snippet::source(&self.text)
                        .path(&self.name)
                        .annotation(mark);
                    title.element(snippet)
                }
                None => annotate_snippets::Group::with_title(title),
            };
            match self.set_elsewhere(&finding.pointer) {
                Some(hint) => renderer.render(&[group.element(Level::HELP.message(hint))]),
                None => renderer.render(&[group]),
            }
        });
        told.collect::<Vec<_>>().join("\n")
    }

    /// Where `--set` was to set what it has put beside the fields of a request: an argument of the
    /// framework.
    fn set_elsewhere(&self, pointer: &str) -> Option<String> {
        let name = pointer
            .strip_prefix('/')
            .filter(|name| !name.contains('/'))?;
        let fields = request::json_schema()["properties"].as_object()?;
        let is_argument = self.set.contains(pointer) && !fields.contains_key(name);
        is_argument
            .then(|| format!("use --set extra_args.{name}=... for an argument of the framework"))
    }

    /// Where in the text a pointer points, unless that was set elsewhere.
    fn find(&self, root: &Spanned<Node>, pointer: &str) -> Option<Range<usize>> {
        if pointer.is_empty() || self.set.contains(pointer) {
            return None;
        }
        let mut here = root;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            here = match &here.value {
                Node::Mapping(members) => &members.iter().find(|(name, _)| *name == token)?.1,
                Node::Sequence(items) => items.get(token.parse::<usize>().ok()?)?,
                Node::Scalar => return None,
            };
        }
        let span = here.referenced.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let length = usize::try_from(span.byte_len()?).ok()?;
        let end = start.checked_add(length.max(1))?.min(self.text.len());
        self.text.get(start..end).map(|_| start..end)
    }
}

/// JSON is YAML too, but only JSON's own reader sees a name given twice.
fn parse(name: &str, text: &str) -> Result<Value, anyhow::Error> {
    if text.trim_start().starts_with('{') {
        return request::json::parse(text.as_bytes()).map_err(|findings| {
            let details: Vec<String> = findings.into_iter().map(|finding| finding.detail).collect();
            anyhow!("{name}: {}", details.join("; "))
        });
    }
    serde_saphyr::from_str(text).with_context(|| format!("{name} is not valid YAML"))
}

/// Sets a field such as `extra_args.lr=0.001`, and gives the pointer to it.
fn put(request: &mut Value, setting: &str) -> Result<String, anyhow::Error> {
    let Setting { path, value } = Setting::read(setting)?;
    let mut here = &mut *request;
    let mut pointer = String::new();
    for name in path {
        pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        let Value::Object(members) = here else {
            bail!("--set {setting}: the parent of {pointer} is not an object");
        };
        here = members.entry(name).or_insert(Value::Null);
    }
    *here = value;
    Ok(pointer)
}

/// Fields whose members are text by any name.
const TEXT_FIELDS: [&str; 3] = ["env", "labels", "annotations"];

/// What `--set` sets.
struct Setting {
    path: Vec<String>,
    value: Value,
}

impl Setting {
    fn read(setting: &str) -> Result<Self, anyhow::Error> {
        let (path, value) = path(setting).with_context(|| {
            format!("--set {setting}: expected FIELD=VALUE, for example extra_args.lr=0.001")
        })?;
        let json: Option<Value> = serde_json::from_str(value).ok();
        let text = || Value::String(value.to_string());
        let is_text = TEXT_FIELDS.contains(&path[0].as_str());
        if let (true, [field, first, second, ..]) = (is_text, path.as_slice()) {
            bail!(
                "--set {setting}: {field} has no nested fields; quote names that contain dots, for \
                 example {field}.\"{first}.{second}\"=VALUE"
            );
        }
        let value = match json {
            Some(json) if !is_text || path.len() == 1 || json.is_string() => json,
            _ => text(),
        };
        Ok(Self { path, value })
    }
}

/// The names of a path such as `annotations."example.org/team"`, and what comes after its `=`.
/// Nothing where a name or the `=` is missing.
fn path(setting: &str) -> Option<(Vec<String>, &str)> {
    let mut path = Vec::new();
    let mut rest = setting;
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find(['.', '='])?),
        };
        path.push(Some(name.to_string()).filter(|name| !name.is_empty())?);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None => return Some((path, after.strip_prefix('=')?)),
        }
    }
}

/// A YAML value of which only the places matter.
#[derive(Debug)]
enum Node {
    Scalar,
    Sequence(Vec<Spanned<Node>>),
    Mapping(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Node::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = mapping.next_entry()? {
            members.push(member);
        }
        Ok(Node::Mapping(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn source(text: &str) -> Source {
        Source {
            name: "job.yaml".to_string(),
            text: text.to_string(),
            set: BTreeSet::new(),
        }
    }

    fn marked(text: &str, pointer: &str) -> Option<String> {
        let source = source(text);
        let root = serde_saphyr::from_str(text).unwrap();
        source.find(&root, pointer).map(|at| text[at].to_string())
    }

    #[test]
    fn a_pointer_is_found_in_yaml_and_in_json() {
        let yaml = "framework: meta\nextra_args:\n  lr: fast\n  list: [1, 2]\n";
        assert_eq!(marked(yaml, "/framework").unwrap(), "meta");
        assert_eq!(marked(yaml, "/extra_args/lr").unwrap(), "fast");
        assert_eq!(marked(yaml, "/extra_args/list/1").unwrap(), "2");
        assert_eq!(marked(yaml, "/missing"), None);
        let json = "{\n  \"extra_args\": {\"lr\": \"fast\"}\n}";
        assert!(marked(json, "/extra_args/lr").unwrap().contains("fast"));
    }

    #[test]
    fn a_fault_is_shown_beneath_its_line() {
        let finding = Finding::new("E05", "/extra_args/lr", "extra_args.lr: expected number");
        let told = source("extra_args:\n  lr: fast\n").report(&[finding], Style::Plain);
        assert!(
            told.contains("error[E05]: extra_args.lr: expected number"),
            "{told}"
        );
        assert!(told.contains("job.yaml:2:7"), "{told}");
        assert!(told.contains("2 |   lr: fast"), "{told}");
    }

    #[test]
    fn fields_are_set_by_their_path() {
        let mut request = json!({"num_nodes": 1});
        assert_eq!(put(&mut request, "num_nodes=2").unwrap(), "/num_nodes");
        put(&mut request, "extra_args.lr=1e-3").unwrap();
        put(&mut request, "run_id=a=b").unwrap();
        let expected = json!({"num_nodes": 2, "extra_args": {"lr": 1e-3}, "run_id": "a=b"});
        assert_eq!(request, expected);
        for wrong in ["num_nodes", "", "=", "a.=1", ".a=1", "\"a=1", "a\"b\".c"] {
            assert!(put(&mut request, wrong).is_err(), "{wrong}");
        }
        assert!(put(&mut request, "num_nodes.x=1").is_err());
    }

    #[test]
    fn a_name_with_dots_goes_in_quotes() {
        let mut request = json!({});
        put(
            &mut request,
            "annotations.\"trainer.deepfinery/profile\"=a100",
        )
        .unwrap();
        put(&mut request, "labels.\"a.b\"=\"1\"").unwrap();
        put(&mut request, "env.DEBUG=1").unwrap();
        put(&mut request, "env.ON=true").unwrap();
        put(&mut request, "extra_args.\"a.b\".c=1").unwrap();
        let expected = json!({
            "annotations": {"trainer.deepfinery/profile": "a100"},
            "labels": {"a.b": "1"},
            "env": {"DEBUG": "1", "ON": "true"},
            "extra_args": {"a.b": {"c": 1}},
        });
        assert_eq!(request, expected);
        let unquoted = put(&mut request, "annotations.trainer.deepfinery/profile=a100");
        let told = unquoted.unwrap_err().to_string();
        assert!(
            told.contains("annotations.\"trainer.deepfinery/profile\"=VALUE"),
            "{told}"
        );
    }

    #[test]
    fn an_argument_that_is_set_as_a_field_gets_a_hint() {
        let mut source = source("framework: meta\n");
        let told = |source: &Source| {
            let finding = Finding::new("unknown-field", "/lr", "unknown field \"lr\"");
            source.report(&[finding], Style::Plain)
        };
        assert!(!told(&source).contains("--set"));
        source.set.insert("/lr".to_string());
        assert!(told(&source).contains("--set extra_args.lr=... sets an argument"));
    }

    proptest! {
        #[test]
        fn every_name_can_be_quoted(name in r#"[^"]{1,20}"#, value in r"\PC{0,10}") {
            let setting = format!("labels.\"{name}\"={value}");
            let (path, given) = path(&setting).unwrap();
            prop_assert_eq!(path, ["labels".to_string(), name]);
            prop_assert_eq!(given, value);
        }

        #[test]
        fn no_setting_panics(setting in r#"[a-z."=\PC]{0,30}"#) {
            let _ = put(&mut json!({}), &setting);
        }

        #[test]
        fn no_text_and_no_pointer_panic(text in r"[a-z:{}\[\]\n \-&*'\PC]{0,60}", pointer in "[/a-z0-9~]{0,20}") {
            let finding = Finding::new("x", pointer, "wrong");
            source(&text).report(&[finding], Style::Plain);
        }
    }
}
