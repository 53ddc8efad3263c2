//! Applies a placement profile to a pod: nodes, priority, secrets, volumes, shared memory.

use k8s_openapi::api::core::v1::{Container, LocalObjectReference, PodSpec, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::profile::{Profile, ProfileVolume, SHARED_MEMORY_VOLUME};

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
        shared_memory_gb,
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
    if let Some(gib) = shared_memory_gb {
        limit_shared_memory(pod, *gib);
    }
    for ProfileVolume { volume, mount } in volumes {
        add_volume(pod, volume, mount);
    }
}

pub(super) fn limit_shared_memory(pod: &mut PodSpec, gib: u32) {
    let volumes = pod.volumes.iter_mut().flatten();
    let memory = volumes
        .filter(|volume| volume.name == SHARED_MEMORY_VOLUME)
        .filter_map(|volume| volume.empty_dir.as_mut());
    for memory in memory {
        memory.size_limit = Some(Quantity(format!("{gib}Gi")));
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
