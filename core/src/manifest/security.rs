//! What the pods of jobs may do on their nodes and in the cluster: nothing that training does not need,
//! unless the profile says otherwise.
//!
//! The defaults meet the Pod Security Standard `baseline`, and `restricted` except for the user, which
//! is the image's. Images that run as root still work.

use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};

use crate::profile::{Profile, RUNTIME_SECCOMP};

/// Restricts a pod. What the profile sets replaces the default of the same member.
pub(super) fn restrict(pod: &mut PodSpec, profile: &Profile) {
    pod.automount_service_account_token = Some(profile.automount_service_account_token);
    pod.security_context = Some(of_pod(profile.pod_security_context.as_ref()));
    let of_container = of_container(profile.security_context.as_ref());
    for container in &mut pod.containers {
        container.security_context = Some(of_container.clone());
    }
}

/// For all containers, also those that others add, such as the training operator's init container.
fn of_pod(of_profile: Option<&PodSecurityContext>) -> PodSecurityContext {
    let mut context = of_profile.cloned().unwrap_or_default();
    context
        .seccomp_profile
        .get_or_insert_with(|| SeccompProfile {
            type_: RUNTIME_SECCOMP.to_string(),
            ..SeccompProfile::default()
        });
    context
}

fn of_container(of_profile: Option<&SecurityContext>) -> SecurityContext {
    let mut context = of_profile.cloned().unwrap_or_default();
    context.allow_privilege_escalation.get_or_insert(false);
    let capabilities = context.capabilities.get_or_insert_default();
    let all = || vec!["ALL".to_string()];
    capabilities.drop.get_or_insert_with(all);
    context
}
