//! The arguments of `{{name}}`, and how it is launched.

use trainer_plugin::rules::SHARED;
use trainer_plugin::vocabulary::{BATCH_SIZE, LR, MAX_STEPS};
use trainer_plugin::{Framework, Parallelism, Rule, Table, Training, integer};

/// Each line defines an argument. Schema, checks, aliases, defaults and documentation are derived
/// from it.
pub static ARGUMENTS: Table = Table::new(&[
    BATCH_SIZE,
    LR,
    MAX_STEPS,
    integer("warmup_steps", 0, 1_000_000).about("Number of steps in which the learning rate increases"),
]);

/// Rules that relate several arguments, each with a code, its source, and a sentence.
const RULES: &[Rule] = &[];

pub const FRAMEWORK: Framework = Framework {
    name: "{{name}}",
    version: env!("CARGO_PKG_VERSION"),
    summary: "{{name}}: describe here what it launches",
    arguments: &ARGUMENTS,
    rules: &[SHARED, RULES],
    parallelism: Parallelism::data_only,
    training: Training::unknown,
    imply: |_| {},
    environment: |_, environment| environment.set("TOKENIZERS_PARALLELISM", "false"),
};

trainer_plugin::export_framework!(FRAMEWORK);

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_has_no_mistakes() {
        assert_eq!(super::FRAMEWORK.mistakes(), Vec::<String>::new());
    }
}
