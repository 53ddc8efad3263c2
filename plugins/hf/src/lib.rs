//! Hugging Face: its arguments, rules and environment.

mod arguments;
mod environment;
mod forwarded;
mod image;
mod memory;
mod rules;
mod schedule;

use trainer_plugin::rules::SHARED;
use trainer_plugin::{Arguments, Framework, Parallelism};

/// What `train.py --framework hf` takes.
pub const FRAMEWORK: Framework = Framework {
    name: "hf",
    version: env!("CARGO_PKG_VERSION"),
    summary: "Hugging Face Transformers and TRL: training with the Trainer",
    arguments: &arguments::ARGUMENTS,
    rules: &[
        SHARED,
        rules::RULES,
        schedule::RULES,
        image::RULES,
        forwarded::RULES,
    ],
    parallelism: Parallelism::data_only,
    training: memory::training,
    imply,
    environment: environment::add,
};

/// The Trainer ignores `eval_steps` without a word unless it evaluates by steps.
fn imply(arguments: &mut Arguments) {
    if arguments.is_given("eval_steps") {
        arguments.imply("eval_strategy", "steps");
    }
}

trainer_plugin::export_framework!(FRAMEWORK);

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_has_no_mistakes() {
        assert_eq!(super::FRAMEWORK.validate(), Vec::<String>::new());
    }
}
