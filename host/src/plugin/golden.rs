//! Golden tests of plugins: a request and the expected result. Authors keep them as files. A plugin
//! can include them in a custom section; the host then runs them before it serves the plugin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{LoadError, PlanError, Plugin, UnknownArguments};
use crate::plan::{Plan, Text};
use crate::request::{self, RequestPolicy};

/// Whether a plugin must pass its self-tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelfTests {
    Run,
    /// For the author, who is about to accept the current results.
    Ignored,
}

/// A request and its expected result.
#[derive(Debug, Serialize, Deserialize)]
pub struct SelfTest {
    pub name: String,
    pub request: Value,
    pub expected: Value,
}

/// A plugin's result for a request, as JSON: `plan` with the plugin's response, or `refused` with
/// the findings. It excludes what the host adds, so it is the same on every host.
///
/// # Errors
///
/// If the call fails.
pub fn outcome(plugin: &Plugin, request: &Value) -> Result<Value, PlanError> {
    let name = plugin.identity.name.clone();
    let schemas = BTreeMap::from([(name, plugin.schema())]);
    let refused = |findings| json!({ "refused": findings });
    let checked = match request::check(request.clone(), &schemas, &RequestPolicy::default()) {
        Ok(checked) => checked,
        Err(findings) => return Ok(refused(findings)),
    };
    let context = UnknownArguments::Forward.context(None, None);
    match plugin.plan(&checked.request, &context) {
        Ok(plan) => Ok(json!({ "plan": document(&plan) })),
        Err(PlanError::Refused(findings)) => Ok(refused(findings)),
        Err(error) => Err(error),
    }
}

fn document(plan: &Plan) -> Value {
    let resolved: Value = serde_json::from_str(plan.resolved_args.get()).unwrap_or_default();
    let environment = plan
        .environment
        .iter()
        .map(|setting| json!({ "name": setting.name, "value": setting.value.as_str() }));
    json!({
        "command": plan.command.iter().map(Text::as_str).collect::<Vec<_>>(),
        "environment": environment.collect::<Vec<_>>(),
        "checkpoint": plan.layout,
        "resolved_args": resolved,
        "parallel": plan.parallel,
        "warnings": plan.warnings,
    })
}

/// Runs the self-tests of a plugin.
///
/// # Errors
///
/// The first test that fails.
pub(super) fn self_test(tests: Option<&str>, plugin: &Plugin) -> Result<(), LoadError> {
    let Some(tests) = tests else {
        return Ok(());
    };
    let tests: Vec<SelfTest> = serde_json::from_str(tests)
        .map_err(|error| LoadError::Description(format!("cannot read its self-tests: {error}")))?;
    for SelfTest {
        name,
        request,
        expected,
    } in tests
    {
        let difference = match outcome(plugin, &request) {
            Ok(found) => difference(&expected, &found),
            Err(error) => Some(super::compiler::error_chain(&error)),
        };
        if let Some(difference) = difference {
            return Err(LoadError::SelfTest { name, difference });
        }
    }
    Ok(())
}

/// Describes the first difference between two values.
pub fn difference(expected: &Value, found: &Value) -> Option<String> {
    differs("", expected, found)
}

fn differs(at: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let names: std::collections::BTreeSet<&String> =
                expected.keys().chain(found.keys()).collect();
            names.into_iter().find_map(|name| {
                let missing = &Value::Null;
                let (expected, found) = (expected.get(name), found.get(name));
                differs(
                    &format!("{at}/{name}"),
                    expected.unwrap_or(missing),
                    found.unwrap_or(missing),
                )
            })
        }
        (Value::Array(expected), Value::Array(found)) => {
            let length = expected.len().max(found.len());
            (0..length).find_map(|index| {
                let missing = &Value::Null;
                differs(
                    &format!("{at}/{index}"),
                    expected.get(index).unwrap_or(missing),
                    found.get(index).unwrap_or(missing),
                )
            })
        }
        _ if expected == found => None,
        _ => Some(format!("{at}: expected {expected}, got {found}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_its_place() {
        let expected = json!({"plan": {"command": ["a", "b"]}});
        let found = json!({"plan": {"command": ["a"]}});
        let message = difference(&expected, &found);
        assert_eq!(
            message.as_deref(),
            Some("/plan/command/1: expected \"b\", got null")
        );
        assert_eq!(difference(&expected, &expected), None);
    }
}
