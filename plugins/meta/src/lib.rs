//! Meta: its arguments, rules and environment.

mod arguments;
mod environment;
mod rules;

use trainer_plugin::{Description, Finding, Framework, Job, LaunchPlan, Plugin};

/// What `train.py --framework meta` takes.
pub const FRAMEWORK: Framework = Framework {
    name: "meta",
    version: env!("CARGO_PKG_VERSION"),
    summary: "Meta Llama on PyTorch: a plain FSDP loop, torchtitan, torchtune or llama-cookbook",
    arguments: arguments::ARGUMENTS,
    rules: rules::RULES,
    imply: |_| {},
    environment: environment::add,
};

/// The plugin.
pub struct Meta;

impl Plugin for Meta {
    fn describe() -> Description {
        FRAMEWORK.describe()
    }

    fn plan(job: Job) -> Result<LaunchPlan, Vec<Finding>> {
        FRAMEWORK.plan(job)
    }
}

trainer_plugin::export!(Meta);
