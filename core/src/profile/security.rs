//! Checks of the security contexts in profiles, which the API server would otherwise refuse with the
//! first job.

use k8s_openapi::api::core::v1::{Capabilities, SeccompProfile, SecurityContext};

use super::Profile;

/// The seccomp profile of the container runtime.
pub const RUNTIME_SECCOMP: &str = "RuntimeDefault";
/// A seccomp profile in a file on the node.
const LOCAL_SECCOMP: &str = "Localhost";
/// A capability that allows privilege escalation.
const ADMINISTRATION: &str = "SYS_ADMIN";

impl Profile {
    pub(super) fn check_security(&self, place: &str, wrong: &mut Vec<String>) {
        if let Some(context) = &self.pod_security_context {
            let place = format!("{place}.pod_security_context");
            wrong.extend(user(&place, context.run_as_non_root, context.run_as_user));
            wrong.extend(seccomp(&place, context.seccomp_profile.as_ref()));
        }
        if let Some(context) = &self.security_context {
            let place = format!("{place}.security_context");
            wrong.extend(user(&place, context.run_as_non_root, context.run_as_user));
            wrong.extend(seccomp(&place, context.seccomp_profile.as_ref()));
            wrong.extend(escalation(&place, context));
            wrong.extend(capabilities(&place, context.capabilities.as_ref()));
        }
    }
}

fn user(place: &str, run_as_non_root: Option<bool>, run_as_user: Option<i64>) -> Option<String> {
    let is_root = run_as_non_root == Some(true) && run_as_user == Some(0);
    is_root.then(|| {
        format!(
            "{place}.runAsUser: 0 is root, which runAsNonRoot forbids; use another user, such as 1000, \
             or remove runAsNonRoot"
        )
    })
}

fn seccomp(place: &str, profile: Option<&SeccompProfile>) -> Option<String> {
    let profile = profile?;
    let place = format!("{place}.seccompProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        (RUNTIME_SECCOMP | "Unconfined", None) | (LOCAL_SECCOMP, Some(_)) => None,
        (LOCAL_SECCOMP, None) => Some(format!(
            "{place}.localhostProfile: missing; give the file on the node that type {LOCAL_SECCOMP} \
             refers to"
        )),
        (RUNTIME_SECCOMP | "Unconfined", Some(_)) => Some(format!(
            "{place}.localhostProfile: only possible with type {LOCAL_SECCOMP}; remove it, or change \
             the type"
        )),
        (other, _) => Some(format!(
            "{place}.type: {other:?} is not a type; use {RUNTIME_SECCOMP}, {LOCAL_SECCOMP} or Unconfined"
        )),
    }
}

/// Kubernetes refuses a container that has a means of escalation and must not use it.
fn escalation(place: &str, context: &SecurityContext) -> Option<String> {
    let added = context
        .capabilities
        .as_ref()
        .and_then(|all| all.add.as_ref());
    let is_administrator = added
        .into_iter()
        .flatten()
        .any(|name| name == ADMINISTRATION);
    let cause = match (context.privileged, is_administrator) {
        (Some(true), _) => "privileged is true".to_string(),
        (_, true) => format!("capabilities.add has {ADMINISTRATION}"),
        _ => return None,
    };
    if context.allow_privilege_escalation == Some(true) {
        return None;
    }
    Some(format!(
        "{place}.allowPrivilegeEscalation: must be true because {cause}; set it, or remove its cause"
    ))
}

/// Names of capabilities that no container runtime knows.
fn capabilities(place: &str, capabilities: Option<&Capabilities>) -> Vec<String> {
    let Some(Capabilities { add, drop }) = capabilities else {
        return Vec::new();
    };
    let named = [("add", add), ("drop", drop)];
    let named = named.into_iter().flat_map(|(member, names)| {
        let names = names.iter().flatten();
        names.map(move |name| (member, name))
    });
    let wrong = named.filter(|(_, name)| !is_capability(name));
    wrong
        .map(|(member, name)| {
            format!(
                "{place}.capabilities.{member}: {name:?} is not the name of a capability; write it in \
                 capital letters without CAP_, such as IPC_LOCK"
            )
        })
        .collect()
}

fn is_capability(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
    !name.is_empty() && name.chars().all(is_part) && !name.starts_with("CAP_")
}
