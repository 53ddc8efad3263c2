//! The variables of meta.

use trainer_plugin::{Environment, Launch};

pub fn add(launch: &Launch, environment: &mut Environment) {
    if launch.text("backend").as_deref() != Some("torchtitan") {
        return;
    }
    if launch.world_size() > 1 {
        // torchtitan overwrites it with this (torchtitan/distributed/utils.py).
        environment.set("TORCH_NCCL_ASYNC_ERROR_HANDLING", "3");
    }
    // Metrics from rank 0 alone, as torchtitan's run_train.sh has it.
    environment.set("LOG_RANK", "0");
}
