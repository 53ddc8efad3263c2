//! Tests of the whole host in one binary: the router without a socket, real plugins, a real local
//! cluster with a shell script in place of torchrun.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod abi;
mod access;
mod access_attacks;
mod access_matrix;
mod access_speed;
mod arguments;
mod bad_arguments;
mod bad_input;
mod console;
mod contract;
mod documented;
mod explain;
mod families;
mod feed;
mod fields;
mod habits;
mod hostile;
mod isolation;
mod isolation_timing;
mod live;
mod lives;
mod loading;
mod local_cluster;
mod logs;
mod metrics;
mod names;
mod namespaces;
mod oidc;
mod operations;
mod prefixes;
mod processes;
mod profiles;
mod purity;
mod query;
mod reload;
mod revocation;
mod sandbox;
mod secrets;
mod service;
mod specification;
mod vectors;
mod words;
