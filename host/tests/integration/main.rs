//! Tests of the whole host in one binary: the router without a socket, real plugins, a real local
//! cluster with a shell script in place of torchrun.

mod bad_input;
mod loading;
mod local_cluster;
mod purity;
mod sandbox;
mod service;
mod specification;
mod vectors;
