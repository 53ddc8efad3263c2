//! The rules of nemo across arguments, one line each.

use trainer_plugin::Rule;

pub const RULES: &[Rule] = &[];
