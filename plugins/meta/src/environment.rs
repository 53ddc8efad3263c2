//! The variables of meta.

use trainer_plugin::{Environment, Launch};

pub fn add(_: &Launch, _: &mut Environment) {}
