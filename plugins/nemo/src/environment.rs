//! The variables of nemo.

use trainer_plugin::{Environment, Launch};

pub fn add(launch: &Launch, environment: &mut Environment) {
    let blackwell = launch.text("gpu_arch").as_deref() == Some("blackwell");
    if blackwell {
        // NeMo's scripts/performance/executors.py leaves it out there.
        environment.remove("PYTORCH_CUDA_ALLOC_CONF");
    }
    if let Some(connections) = connections(launch, blackwell) {
        environment.set("CUDA_DEVICE_MAX_CONNECTIONS", connections);
    }
    if launch.world_size() > 1 {
        // NeMo's PerfEnvPlugin (nemo/lightning/run/plugins.py).
        environment.set("TORCH_NCCL_HIGH_PRIORITY", "1");
        environment.set("NVTE_FWD_LAYERNORM_SM_MARGIN", "16");
        environment.set("NVTE_BWD_LAYERNORM_SM_MARGIN", "16");
    }
    // NeMo's scripts/performance/executors.py.
    environment.set("NVTE_FLASH_ATTN", "1");
    environment.set("NVTE_FUSED_ATTN", "1");
    if launch.world_size() > 1 {
        environment.set("NCCL_NVLS_ENABLE", "0");
    }
    environment.set("HYDRA_FULL_ERROR", "1");
    environment.set("NEMO_HOME", "/tmp/trainer/nemo");
}

/// Megatron asserts 1 with tensor or context parallelism before Blackwell, and asserts that it is
/// not 1 with FSDP (megatron/training/arguments.py); PerfEnvPlugin sets 32 on Blackwell.
fn connections(launch: &Launch, blackwell: bool) -> Option<&'static str> {
    if launch.is_on("fsdp") {
        return None;
    }
    if blackwell {
        return Some("32");
    }
    let split = |name| launch.integer(name).is_some_and(|size| size > 1);
    (split("tensor_parallel") || split("context_parallel")).then_some("1")
}
