//! NVIDIA NeMo: its arguments, rules and environment.

mod arguments;
mod environment;
mod rules;

use trainer_plugin::{Description, Finding, Framework, Job, LaunchPlan, Plugin};

/// What `train.py --framework nemo` takes.
pub const FRAMEWORK: Framework = Framework {
    name: "nemo",
    version: env!("CARGO_PKG_VERSION"),
    summary: "NVIDIA NeMo: Megatron-style pretraining and fine-tuning of large language models",
    arguments: arguments::ARGUMENTS,
    rules: rules::RULES,
    imply: |_| {},
    environment: environment::add,
};

/// The plugin.
pub struct Nemo;

impl Plugin for Nemo {
    fn describe() -> Description {
        FRAMEWORK.describe()
    }

    fn plan(job: Job) -> Result<LaunchPlan, Vec<Finding>> {
        FRAMEWORK.plan(job)
    }
}

trainer_plugin::export!(Nemo);
