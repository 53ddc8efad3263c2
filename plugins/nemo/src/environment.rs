//! The variables of nemo.

use trainer_plugin::{Environment, Launch};

pub fn add(launch: &Launch, environment: &mut Environment) {
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
