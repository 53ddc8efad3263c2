//! Request files: reads them, applies `--set`, and shows errors with their lines.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::Value;

use super::output::Style;
use super::setting::put;
use super::terminal::visible;
use crate::finding::{Code, Finding};
use crate::request;
use crate::request::yaml::{self, Misread, Place, Places};
use crate::text;

/// Codes of the plugin SDK that are about the name of an argument and not about its value.
const CODES_ABOUT_NAMES: [&str; 5] = ["E01", "E02", "E03", "E11", "W05"];

/// A request file.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
    places: Option<Places>,
    /// Pointers to values that `--set` has replaced.
    set: BTreeSet<String>,
}

/// What is wrong with a request, shown in its file.
#[derive(Debug)]
pub struct Report(String);

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Report {}

impl Source {
    /// Reads a request and applies settings.
    ///
    /// # Errors
    ///
    /// The file cannot be read, a setting is invalid, or its text is invalid (a [`Report`]).
    pub fn read(file: &Path, settings: &[String]) -> Result<(Self, Value), anyhow::Error> {
        let name = file.display().to_string();
        let text = text::read(file)?;
        let (mut source, mut request) = Self::parse(&name, text)?;
        for setting in settings {
            source.set.insert(put(&mut request, setting)?);
        }
        Ok((source, request))
    }

    /// Reads a request from a text.
    ///
    /// # Errors
    ///
    /// A [`Report`] of everything that is wrong with the text.
    pub fn parse(name: &str, text: String) -> Result<(Self, Value), Report> {
        let mut source = Self {
            name: name.to_string(),
            text,
            places: None,
            set: BTreeSet::new(),
        };
        if is_json(&source.text) {
            let read = request::json::parse(source.text.as_bytes());
            source.places = yaml::places(&source.text);
            return match read {
                Ok(request) => Ok((source, request)),
                Err(findings) => Err(Report(source.report(&findings, Style::of_errors()))),
            };
        }
        match yaml::parse(&source.text) {
            Ok((request, places)) => {
                source.places = Some(places);
                Ok((source, request))
            }
            Err(found) => Err(Report(source.misread(&found, Style::of_errors()))),
        }
    }

    /// Shows each finding with the line that it is about.
    pub fn report(&self, findings: &[Finding], style: Style) -> String {
        let reported = findings.iter().map(|finding| {
            let place = self.find(&finding.pointer);
            let at = place.as_ref().map(|place| marked(finding, place));
            let hint = self
                .set_elsewhere(&finding.pointer)
                .or_else(|| self.quoted(finding, place.as_ref()?));
            self.show(finding, at, hint, style)
        });
        reported.collect::<Vec<_>>().join("\n")
    }

    /// What is wrong with the request, as an error.
    pub fn refusal(&self, findings: &[Finding]) -> anyhow::Error {
        Report(self.report(findings, Style::of_errors())).into()
    }

    fn misread(&self, found: &[Misread], style: Style) -> String {
        let reported = found
            .iter()
            .map(|Misread { finding, at }| self.show(finding, Some(at.clone()), None, style));
        reported.collect::<Vec<_>>().join("\n")
    }

    fn show(
        &self,
        finding: &Finding,
        at: Option<Range<usize>>,
        hint: Option<String>,
        style: Style,
    ) -> String {
        let renderer = match style {
            Style::Coloured => Renderer::styled(),
            Style::Plain => Renderer::plain(),
        };
        let detail = visible(&finding.detail);
        let title = Level::ERROR
            .primary_title(detail.as_ref())
            .id(&finding.code);
        let at = at.filter(|at| self.text.get(at.clone()).is_some());
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
        match hint {
            Some(hint) => renderer.render(&[group.element(Level::HELP.message(hint))]),
            None => renderer.render(&[group]),
        }
    }

    /// A hint if `--set` created an unknown top-level field that is an argument of the framework.
    fn set_elsewhere(&self, pointer: &str) -> Option<String> {
        let name = pointer
            .strip_prefix('/')
            .filter(|name| !name.contains('/'))?;
        let fields = request::json_schema()["properties"].as_object()?;
        let is_argument = self.set.contains(pointer) && !fields.contains_key(name);
        is_argument
            .then(|| format!("use --set extra_args.{name}=... for an argument of the framework"))
    }

    /// How to write as text what stands in the file without quotes and was read as something else.
    fn quoted(&self, finding: &Finding, place: &Place) -> Option<String> {
        let is = match place.unquoted.as_ref()? {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            _ => "a number",
        };
        // The sentence is ours, or that of a plugin of our SDK.
        if !finding.detail.contains("expected string") {
            return None;
        }
        let written = self.text.get(place.value.clone())?;
        Some(match written {
            "" => "a name without a value is null; write \"\" for an empty text".to_string(),
            _ => {
                format!("{written} without quotes is {is}; quote it (\"{written}\") if it is text")
            }
        })
    }

    /// Where in the text a pointer points, unless that was set elsewhere.
    fn find(&self, pointer: &str) -> Option<Place> {
        if pointer.is_empty() || self.set.contains(pointer) {
            return None;
        }
        self.places.as_ref()?.find(pointer)
    }
}

/// The part of a member that a finding is about: its name, its value, or both where either may be wrong.
fn marked(finding: &Finding, place: &Place) -> Range<usize> {
    let Some(name) = &place.name else {
        return place.value.clone();
    };
    let is = |code: Code| finding.code == code.as_str();
    let is_about_name = CODES_ABOUT_NAMES.contains(&finding.code.as_str())
        || is(Code::UnknownField)
        || is(Code::DuplicateName)
        || is(Code::Environment)
        || is(Code::ReplacedEnv);
    let is_label =
        finding.pointer.starts_with("/labels/") || finding.pointer.starts_with("/annotations/");
    match is_about_name {
        true => name.clone(),
        false if is(Code::Name) && is_label && name.end <= place.value.end => {
            name.start..place.value.end
        }
        false => place.value.clone(),
    }
}

/// Whether a text is meant as JSON: an object whose first name is in quotes, or that is empty.
fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    let first = text.strip_prefix('{').map(str::trim_start);
    first.is_some_and(|first| first.starts_with(['"', '}', '\'', '/']) || first.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(text: &str) -> Source {
        Source {
            name: "job.yaml".to_string(),
            text: text.to_string(),
            places: yaml::places(text),
            set: BTreeSet::new(),
        }
    }

    /// The line and column that a finding about a request is shown at, and how it is shown.
    fn shown(text: &str, code: &str, pointer: &str, detail: &str) -> String {
        let finding = Finding::of_plugin(code, pointer, detail);
        source(text).report(&[finding], Style::Plain)
    }

    #[test]
    fn a_fault_is_shown_with_its_line() {
        let detail = "extra_args.lr: expected number";
        let reported = shown("extra_args:\n  lr: fast\n", "E05", "/extra_args/lr", detail);
        assert!(
            reported.contains("error[E05]: extra_args.lr: expected number"),
            "{reported}"
        );
        assert!(reported.contains("job.yaml:2:7"), "{reported}");
        assert!(reported.contains("2 |   lr: fast"), "{reported}");
    }

    #[test]
    fn the_caret_is_at_the_name_where_the_name_is_wrong() {
        let yaml = "modle_id: x\nextra_args:\n  max_step: 60\n  monitor: 1\nenv: {RANK: '1'}\n\
                    labels:\n  kubernetes.io/x: y\n";
        let json = "{\n  \"modle_id\": \"x\",\n  \"extra_args\": {\"max_step\": 60,\n  \"monitor\": 1},\n  \
                    \"env\": {\"RANK\": \"1\"},\n  \"labels\": {\n  \"kubernetes.io/x\": \"y\"}\n}";
        for (code, pointer, in_yaml, in_json) in [
            ("unknown-field", "/modle_id", "1:1", "2:3"),
            ("E11", "/extra_args/max_step", "3:3", "3:18"),
            ("E03", "/extra_args/monitor", "4:3", "4:3"),
            ("environment", "/env/RANK", "5:7", "5:11"),
            ("name", "/labels/kubernetes.io~1x", "7:3", "7:3"),
            ("E05", "/extra_args/max_step", "3:13", "3:30"),
            ("type", "/extra_args/monitor", "4:12", "4:14"),
        ] {
            for (text, place) in [(yaml, in_yaml), (json, in_json)] {
                let reported = shown(text, code, pointer, "wrong");
                assert!(
                    reported.contains(&format!("job.yaml:{place}\n")),
                    "{code} {place}: {reported}"
                );
            }
        }
    }

    #[test]
    fn what_yaml_reads_as_no_text_is_told_to_be_quoted() {
        let text = "run_id: 1.10\nenv: {A: true, B: ~, C: }\nnum_nodes: true\n";
        let expected_string = |pointer| shown(text, "type", pointer, "x: expected string, got y");
        for (pointer, said) in [
            (
                "/run_id",
                "1.10 without quotes is a number; quote it (\"1.10\") if it is text",
            ),
            (
                "/env/A",
                "true without quotes is a boolean; quote it (\"true\") if it is text",
            ),
            (
                "/env/B",
                "~ without quotes is null; quote it (\"~\") if it is text",
            ),
            (
                "/env/C",
                "a name without a value is null; write \"\" for an empty text",
            ),
        ] {
            let reported = expected_string(pointer);
            assert!(reported.contains(said), "{reported}");
        }
        let reported = shown(
            text,
            "type",
            "/num_nodes",
            "num_nodes: expected integer, got true",
        );
        assert!(!reported.contains("quote"), "{reported}");
    }

    #[test]
    fn a_text_that_cannot_be_read_is_shown_where_it_stops() {
        for (text, parts) in [
            (
                "a: 1\nb: NO\n",
                ["error[ambiguous]: line 2", "job.yaml:2:4"],
            ),
            ("a: 1\n\tb: 2\n", ["error[not-yaml]: line 2", "job.yaml:2:"]),
            (
                "{\"a\": 1,}\n",
                ["error[not-json]: not JSON: line 1, column 9", "remove it"],
            ),
            (
                "{\"a\": 1,\n \"a\": 2}\n",
                ["error[duplicate-name]", "job.yaml:"],
            ),
            ("{a: 1, a: 2}\n", ["error[duplicate-name]", "job.yaml:1:8"]),
        ] {
            let Report(reported) = Source::parse("job.yaml", text.to_string()).unwrap_err();
            assert!(
                parts.iter().all(|part| reported.contains(part)),
                "{reported}"
            );
        }
        assert!(Source::parse("job.yaml", "{framework: hf}".to_string()).is_ok());
    }

    #[test]
    fn an_argument_that_is_set_as_a_field_gets_a_hint() {
        let mut source = source("framework: meta\n");
        let reported = |source: &Source| {
            let finding = Finding::new(Code::UnknownField, "/lr", "unknown field \"lr\"");
            source.report(&[finding], Style::Plain)
        };
        assert!(!reported(&source).contains("--set"));
        source.set.insert("/lr".to_string());
        assert!(reported(&source).contains("--set extra_args.lr=..."));
    }

    proptest! {
        #[test]
        fn no_text_and_no_pointer_panic(text in r"[a-z:{}\[\]\n \-&*'\PC]{0,60}", pointer in "[/a-z0-9~]{0,20}") {
            let finding = Finding::of_plugin("x", pointer, "wrong");
            source(&text).report(&[finding], Style::Plain);
            let _ = Source::parse("job.yaml", text);
        }
    }
}
