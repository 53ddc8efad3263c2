//! Applies a placement profile to a pod: nodes, priority, secrets, volumes.

use k8s_openapi::api::core::v1::{Container, LocalObjectReference, PodSpec, Volume, VolumeMount};

use crate::profile::{Profile, ProfileVolume};

/// Applies a profile to a pod.
pub(super) fn place(pod: &mut PodSpec, profile: &Profile) {
    // A new member breaks the build here, so that it cannot be forgotten.
    let Profile {
        node_selector,
        tolerations,
        affinity,
        priority_class,
        queue: _,
        allow_priority_classes: _,
        scheduling_policy: _,
        image_pull_secrets,
        service_account,
        gpu_resource: _,
        labels: _,
        annotations: _,
        // Variables are those of `manifest::environment`.
        env: _,
        env_secrets: _,
        volumes,
        // `manifest::shared_memory_limit` reads it.
        shared_memory_gb: _,
        // `manifest::security` applies them.
        automount_service_account_token: _,
        pod_security_context: _,
        security_context: _,
        ttl_seconds_after_finished: _,
        active_deadline_seconds: _,
        backoff_limit: _,
        // The plugin sees it.
        gpu_memory_gb: _,
    } = profile;
    pod.node_selector = (!node_selector.is_empty()).then(|| node_selector.clone());
    pod.tolerations = (!tolerations.is_empty()).then(|| tolerations.clone());
    pod.affinity.clone_from(affinity);
    pod.priority_class_name.clone_from(priority_class);
    pod.service_account_name.clone_from(service_account);
    let secrets = image_pull_secrets
        .iter()
        .map(|name| LocalObjectReference { name: name.clone() });
    pod.image_pull_secrets = (!image_pull_secrets.is_empty()).then(|| secrets.collect());
    for ProfileVolume { volume, mount } in volumes {
        add_volume(pod, volume, mount);
    }
}

fn add_volume(pod: &mut PodSpec, volume: &Volume, mount: &VolumeMount) {
    pod.volumes.get_or_insert_default().push(volume.clone());
    let mount = VolumeMount {
        name: volume.name.clone(),
        ..mount.clone()
    };
    let add = |container: &mut Container| {
        container
            .volume_mounts
            .get_or_insert_default()
            .push(mount.clone());
    };
    pod.containers.iter_mut().for_each(add);
}
