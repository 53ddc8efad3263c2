//! Failures that follow from a replaced `PATH`: programs of the image are not found.

use k8s_openapi::api::core::v1::{EnvVar, PodTemplateSpec};

use crate::keys::CONTAINER;
use crate::metadata;

/// Exit codes of a container whose program, or a library of it, was not found or cannot be executed:
/// those of a shell, and that of a runtime which could not start it.
const NOT_FOUND: [i32; 3] = [126, 127, 128];

/// Why the programs of a pod may not be found, if the pod has replaced what they are found by.
pub fn replaced_search_path(template: &PodTemplateSpec, code: i32) -> Option<String> {
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    let mut containers = containers.filter(|container| container.name == CONTAINER);
    replaced_in(containers.next()?.env.as_deref()?, code)
}

/// The same, of the variables of a container.
pub fn replaced_in(env: &[EnvVar], code: i32) -> Option<String> {
    if !NOT_FOUND.contains(&code) {
        return None;
    }
    let mut replaced = env.iter().map(|variable| variable.name.as_str());
    let name = replaced.find(|name| metadata::is_search_path(name))?;
    Some(format!(
        "env.{name} replaces the image's own value; remove it or give it whole"
    ))
}

/// A cause with the hint behind it.
pub fn with_hint(cause: Option<String>, hint: Option<String>) -> Option<String> {
    match (cause, hint) {
        (Some(cause), Some(hint)) => Some(format!("{cause}; {hint}")),
        (cause, hint) => cause.or(hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(names: &[&str]) -> Vec<EnvVar> {
        let variable = |name: &&str| EnvVar {
            name: name.to_string(),
            ..EnvVar::default()
        };
        names.iter().map(variable).collect()
    }

    #[test]
    fn only_what_was_not_found_follows_from_a_replaced_path() {
        for code in NOT_FOUND {
            let hint = replaced_in(&env(&["A", "PATH"]), code).unwrap();
            assert!(
                hint.starts_with("env.PATH replaces the image's own value"),
                "{hint}"
            );
            assert_eq!(replaced_in(&env(&["A"]), code), None);
        }
        let libraries = replaced_in(&env(&["LD_LIBRARY_PATH"]), 127).unwrap();
        assert!(libraries.starts_with("env.LD_LIBRARY_PATH "));
        assert_eq!(replaced_in(&env(&["PATH"]), 1), None);
    }

    #[test]
    fn a_hint_stands_behind_the_cause() {
        let some = |text: &str| Some(text.to_string());
        assert_eq!(with_hint(some("a"), some("b")), some("a; b"));
        assert_eq!(with_hint(None, some("b")), some("b"));
        assert_eq!(with_hint(some("a"), None), some("a"));
    }
}
