//! The resources of a replica.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::profile::DEFAULT_GPU_RESOURCE;
use crate::pytorch_job::PyTorchJob;
use crate::request::JobRequest;

/// The GPUs of each replica. Our pods request no other extended resource, and only extended
/// resources have a domain in their name.
pub fn gpus_per_replica(job: &PyTorchJob) -> u32 {
    let pod = job.spec.pytorch_replica_specs.master.template.spec.as_ref();
    let container = pod.and_then(|pod| pod.containers.first());
    let limits = container.and_then(|container| container.resources.as_ref()?.limits.as_ref());
    let mut limits = limits.into_iter().flatten();
    let gpus = limits.find(|(name, _)| name.contains('/'));
    gpus.and_then(|(_, quantity)| quantity.0.parse().ok())
        .unwrap_or(0)
}

/// Requests equal limits: if a pod with GPUs is evicted for its memory, the whole job is lost.
pub(super) fn resources(request: &JobRequest) -> Option<ResourceRequirements> {
    let profile = request.profile.as_ref();
    let gpu = profile.and_then(|chosen| chosen.profile.gpu_resource.as_deref());
    let gpu = gpu.unwrap_or(DEFAULT_GPU_RESOURCE);
    let gpus = (request.gpus_per_node > 0).then(|| (gpu, request.gpus_per_node.to_string()));
    let cpus = request.cpus_per_node.map(|cpus| ("cpu", cpus.to_string()));
    let memory = request
        .memory_per_node_gb
        .map(|gib| ("memory", format!("{gib}Gi")));
    let quantities: BTreeMap<String, Quantity> = [gpus, cpus, memory]
        .into_iter()
        .flatten()
        .map(|(name, quantity)| (name.to_string(), Quantity(quantity)))
        .collect();
    (!quantities.is_empty()).then(|| ResourceRequirements {
        limits: Some(quantities.clone()),
        requests: Some(quantities),
        ..ResourceRequirements::default()
    })
}
