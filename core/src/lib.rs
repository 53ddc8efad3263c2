//! The pure part of the trainer: from a request to the manifest of its job, and from a job to what
//! its users read. Nothing here has effects; Cargo.toml has no crate that could.

pub mod explain;
pub mod finding;
pub mod job;
mod json;
pub mod keys;
pub mod manifest;
pub mod plan;
pub mod preview;
pub mod profile;
pub mod pytorch_job;
pub mod request;
pub mod suggestion;
