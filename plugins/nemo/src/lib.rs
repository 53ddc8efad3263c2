//! NVIDIA NeMo: its arguments, rules and environment.

mod arguments;
mod environment;
mod memory;
mod rules;

use trainer_plugin::Framework;
use trainer_plugin::rules::SHARED;

/// What `train.py --framework nemo` takes.
pub const FRAMEWORK: Framework = Framework {
    name: "nemo",
    version: env!("CARGO_PKG_VERSION"),
    summary: "NVIDIA NeMo: Megatron-style pretraining and fine-tuning of large language models",
    arguments: &arguments::ARGUMENTS,
    rules: &[SHARED, rules::RULES],
    parallelism: rules::parallelism,
    training: memory::training,
    imply: |_| {},
    environment: environment::add,
};

trainer_plugin::export_framework!(FRAMEWORK);

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_has_no_mistakes() {
        assert_eq!(super::FRAMEWORK.validate(), Vec::<String>::new());
    }
}
