//! The pure part of the trainer: it turns a request into the manifest of its job, and a job into
//! what users read. Nothing here has effects, and no dependency in Cargo.toml could have any.

pub mod access;
pub mod explain;
pub mod finding;
pub mod gang;
pub mod job;
pub mod job_kind;
mod json;
pub mod keys;
pub mod manifest;
pub mod metadata;
pub mod packages;
mod pattern;
pub mod plan;
pub mod preview;
pub mod profile;
pub mod pytorch_job;
pub mod request;
mod secret_key;
pub mod suggestion;
pub mod train_job;
