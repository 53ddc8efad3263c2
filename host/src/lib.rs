//! The trainer host: one HTTP request starts a training job.
//!
//! Data flows one way. [`request`] checks the JSON, [`plugin`] asks the framework for a [`plan`],
//! [`job`] makes a PyTorchJob of both, [`cluster`] runs it, and [`http`] is the only module that
//! sees them all.

pub mod author;
pub mod client;
pub mod cluster;
pub mod config;
pub mod explain;
pub mod fault;
pub mod http;
pub mod job;
pub mod listen;
pub mod measure;
pub mod openapi;
pub mod plan;
pub mod plugin;
pub mod preflight;
pub mod preview;
pub mod profile;
pub mod request;
mod scheduling;
pub mod secrets;
pub mod suggestion;
pub mod telemetry;
pub mod token;
