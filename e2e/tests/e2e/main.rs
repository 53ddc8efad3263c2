//! End-to-end tests: the real binary over HTTP, real torchrun, real files.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::print_stdout,
    reason = "what was measured or left out is for who runs the tests"
)]

mod alone;
mod attackers;
mod authors;
mod bad_client;
mod bad_plugins;
mod bad_registries;
mod callers;
mod client;
mod clones;
mod command_line;
mod connections;
mod containment;
mod contract;
mod crash;
mod curves;
mod documents;
mod kills;
mod leaks;
mod observed;
mod quotas;
mod race;
mod random;
mod scripts;
mod supply_chain;
mod training;
mod wait;
