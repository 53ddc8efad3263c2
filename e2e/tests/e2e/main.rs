//! End-to-end tests: the real binary over HTTP, real torchrun, real files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod command_line;
mod crash;
mod documents;
mod training;
