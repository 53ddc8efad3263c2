//! Validates query parameters before a handler runs. Unknown parameters are refused, so that a
//! misspelt `dry_run` or `namespace` is not silently ignored.
//!
//! The parameters of each route are in the table from which the OpenAPI document is generated.

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::authorized;
use super::problem::Problem;
use crate::finding::{Code, Finding};
use crate::http::openapi::operations::{Operation, Parameter, Value};
use crate::job::JobState;
use crate::suggestion::{did_you_mean, nearest};

/// The maximum number of findings in a response.
const MAX_FAULTS: usize = 16;
/// The maximum length of a quoted name or value, in characters.
const MAX_QUOTE: usize = 64;

/// Accepts a request if its query has only known parameters, each once and with a valid value.
pub(super) async fn check(request: Request, next: Next) -> Result<Response, Problem> {
    let findings = match (authorized::operation(&request), request.uri().query()) {
        (Some(operation), Some(query)) => findings(operation, query),
        _ => Vec::new(),
    };
    match findings.is_empty() {
        true => Ok(next.run(request).await),
        false => Err(findings.into()),
    }
}

/// The parsed parameters of a route.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // `check` has refused invalid parameters, so this fails only if the table is wrong.
        let query = axum::extract::Query::try_from_uri(&parts.uri).map_err(Problem::internal)?;
        Ok(Self(query.0))
    }
}

/// Whether a query contains a flag, with any value except `false`.
pub(super) fn has_flag(query: Option<&str>, name: &str) -> bool {
    let query = query.unwrap_or_default().as_bytes();
    form_urlencoded::parse(query).any(|(given, value)| given == name && value != "false")
}

fn findings(operation: &Operation, query: &str) -> Vec<Finding> {
    let given: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let mut findings = Vec::new();
    for (position, (name, value)) in given.iter().enumerate() {
        let is_repeated = given[..position].iter().any(|(before, _)| before == name);
        let wrong = match operation.query(name) {
            None => Some(unknown(operation, name)),
            Some(_) if is_repeated => Some(format!("{name}: given more than once")),
            Some(parameter) => refusal(parameter, value).map(|why| format!("{name}: {why}")),
        };
        findings.extend(wrong.map(|detail| Finding::new(Code::Query, "", detail)));
        if findings.len() == MAX_FAULTS {
            break;
        }
    }
    findings
}

fn unknown(operation: &Operation, name: &str) -> String {
    let known: Vec<&str> = operation.queries().map(|known| known.name).collect();
    let Operation { path, .. } = operation;
    let method = operation.method.to_ascii_uppercase();
    let hint = did_you_mean(name, known.iter().copied());
    let takes = match known.is_empty() {
        true => "accepts no parameters".to_string(),
        false => format!("takes {}", known.join(", ")),
    };
    match hint.is_empty() {
        true => {
            let elsewhere = elsewhere(operation, name);
            let name = quoted(name);
            format!("unknown parameter {name}; {method} {path} {takes}{elsewhere}")
        }
        false => format!(
            "unknown parameter {}{hint} {method} {path} {takes}",
            quoted(name)
        ),
    }
}

/// The operation that knows a parameter: `POST /train?dry_run=server` is meant for the preview.
fn elsewhere(operation: &Operation, name: &str) -> String {
    let other = operation.sub_operations().find_map(|other| {
        let known = other.queries().map(|known| known.name);
        let meant = nearest(name, known)?;
        Some((other, meant))
    });
    match other {
        Some((Operation { path, method, .. }, meant)) => {
            format!(", {} {path} accepts {meant}", method.to_ascii_uppercase())
        }
        None => String::new(),
    }
}

/// Why a value is invalid for a parameter; None if it is valid.
fn refusal(parameter: &Parameter, value: &str) -> Option<String> {
    let not = |takes: String, hint: String| match value {
        "" => Some(format!("{takes}, but is empty")),
        value => Some(format!("{takes}, not {}{hint}", quoted(value))),
    };
    let one_of = |words: &[&str]| match words.contains(&value) {
        true => None,
        false => not(
            format!("takes {}", words.join(" or ")),
            did_you_mean(value, words.iter().copied()),
        ),
    };
    match parameter.value {
        Value::Text | Value::Key => None,
        Value::Name if value.is_empty() => Some("is empty; set it or omit it".to_string()),
        Value::Name => None,
        Value::Flag => one_of(&["true", "false"]),
        Value::OneOf(words) => one_of(words),
        Value::State => one_of(&JobState::ALL.map(JobState::as_str)),
        Value::Whole { least, most, .. } => match value.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => None,
            _ => not(
                format!("must be an integer from {least} to {most}"),
                String::new(),
            ),
        },
    }
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi::operations;
    use proptest::prelude::*;

    fn reported(method: &str, path: &str, query: &str) -> String {
        let findings = findings(operations::of(method, path).unwrap(), query);
        let details: Vec<String> = findings.into_iter().map(|finding| finding.detail).collect();
        details.join("; ")
    }

    #[test]
    fn an_unknown_parameter_is_told_with_the_nearest_and_with_those_that_there_are() {
        assert_eq!(
            reported("GET", "/train/{job_name}", "veiw=full"),
            "unknown parameter \"veiw\", did you mean \"view\"? GET /train/{job_name} takes \
             namespace, view"
        );
        assert_eq!(
            reported("POST", "/train", "dry_run=server"),
            "unknown parameter \"dry_run\"; POST /train accepts no parameters, POST /train/preview \
             accepts dry_run"
        );
        for (method, path, query, said) in [
            (
                "DELETE",
                "/train/{job_name}",
                "namesapce=a",
                "\"namespace\"?",
            ),
            (
                "DELETE",
                "/train/{job_name}",
                "NAMESPACE=a",
                "\"namespace\"?",
            ),
            ("GET", "/train/{job_name}/logs", "folow=true", "\"follow\"?"),
            ("POST", "/train/preview", "dryRun=All", "\"dry_run\"?"),
            (
                "POST",
                "/frameworks/{name}/rollback",
                "to=1",
                "accepts no parameters",
            ),
            ("GET", "/openapi.json", "=", "unknown parameter \"\""),
        ] {
            let reported = reported(method, path, query);
            assert!(reported.contains(said), "{query}: {reported}");
        }
    }

    #[test]
    fn a_value_that_is_not_taken_is_told_with_those_that_are() {
        let status = |query| reported("GET", "/train/{job_name}", query);
        assert_eq!(
            status("view=ful"),
            "view: takes basic or full, not \"ful\", did you mean \"full\"?"
        );
        assert_eq!(status("view="), "view: takes basic or full, but is empty");
        assert_eq!(
            status("namespace="),
            "namespace: is empty; set it or omit it"
        );
        assert_eq!(status("view=full&view=full"), "view: given more than once");
        let logs = |query| reported("GET", "/train/{job_name}/logs", query);
        assert_eq!(
            logs("follow=maybe"),
            "follow: takes true or false, not \"maybe\""
        );
        for tail in ["-1", "1.5", "x", "9007199254740992", ""] {
            let reported = reported("GET", "/train/{job_name}/logs", &format!("tail={tail}"));
            assert!(reported.contains("0 to 9007199254740991"), "{reported}");
        }
        assert_eq!(logs("tail=3&follow=true&replica=&since=10m"), "");
    }

    #[test]
    fn a_query_of_thousands_gets_a_short_answer() {
        let query = "x&".repeat(10_000) + &"y".repeat(10_000);
        assert!(reported("GET", "/train", &query).len() < 4096);
    }

    proptest! {
        #[test]
        fn no_query_panics_and_no_unknown_name_passes(name in r"\PC{1,20}", value in r"\PC{0,20}") {
            let query: String = form_urlencoded::Serializer::new(String::new())
                .append_pair(&name, &value)
                .finish();
            for operation in operations::OPERATIONS {
                let is_known = operation.query(&name).is_some();
                prop_assert!(is_known || !findings(operation, &query).is_empty());
            }
        }
    }
}
