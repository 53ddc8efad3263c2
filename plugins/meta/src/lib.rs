//! Meta: its arguments, rules and environment.

mod arguments;
mod environment;
mod memory;
mod rules;

use trainer_plugin::Framework;
use trainer_plugin::rules::SHARED;

/// What `train.py --framework meta` takes.
pub const FRAMEWORK: Framework = Framework {
    name: "meta",
    version: env!("CARGO_PKG_VERSION"),
    summary: "Meta Llama on PyTorch: a plain FSDP loop or torchtitan",
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
