//! The rules of hf across arguments, one line each.

use trainer_plugin::Rule;

pub const RULES: &[Rule] = &[];
