//! The variables of hf.

use trainer_plugin::{Environment, Launch};

pub fn add(_: &Launch, environment: &mut Environment) {
    // It replaces HF_HUB_ENABLE_HF_TRANSFER, which huggingface_hub has deprecated.
    environment.set("HF_XET_HIGH_PERFORMANCE", "1");
}
