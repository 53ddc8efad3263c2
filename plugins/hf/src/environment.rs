//! The variables of hf.

use trainer_plugin::{Environment, Launch};

pub fn add(launch: &Launch, environment: &mut Environment) {
    // It replaces HF_HUB_ENABLE_HF_TRANSFER, which huggingface_hub has deprecated.
    environment.set("HF_XET_HIGH_PERFORMANCE", "1");
    let mut reporters = launch.items("report_to");
    if reporters.any(|name| matches!(name, "tensorboard" | "all")) {
        // transformers 5 has removed logging_dir.
        let folder = format!("/tmp/trainer/{}/logs", launch.job.run_id);
        environment.set("TENSORBOARD_LOGGING_DIR", folder);
    }
}
