//! The trainer host: one HTTP request starts a training job.
//!
//! Data flows in one direction. [`request`] checks the JSON, [`plugin`] gets a [`plan`] from the
//! framework, [`manifest`] creates a job from both, [`cluster`] runs it, and only [`http`]
//! uses all of them.

pub use trainer_core::{
    access as access_rules, explain, finding, gang, job, job_kind, keys, manifest, metadata,
    packages, plan, preview, profile, pytorch_job, request, suggestion, train_job,
};

pub mod access;
pub mod audit;
pub mod bundle;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod document;
mod hidden;
pub mod http;
pub mod listen;
pub mod measure;
mod memory;
mod parser;
pub mod plugin;
pub mod preflight;
mod scheduling;
pub mod secrets;
pub mod telemetry;
pub mod text;
pub mod token;
