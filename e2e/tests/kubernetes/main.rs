//! End-to-end tests on Kubernetes: a real API server, the real training operator, unmodified `deploy/`.
//!
//! `make e2e-kubernetes` builds what they need. They share one control plane; those that break it
//! start one of their own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::print_stdout,
    reason = "what was measured is for who runs the tests"
)]

#[macro_use]
mod kinds;

mod access;
mod chart;
mod container;
mod control_plane;
mod creation;
mod curves;
mod deployment;
mod faults;
mod logs;
mod manifests;
mod old_plugins;
mod operator;
mod pod_security;
mod queue_rights;
mod queues;
mod reads;
mod restarts;
mod rights;
mod service;
mod speed;
mod train_jobs;
