//! The rules of meta across arguments, one line each.

use trainer_plugin::Rule;

pub const RULES: &[Rule] = &[];
