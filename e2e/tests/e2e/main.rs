//! End-to-end tests: the real binary over HTTP, real torchrun, real files.

mod command_line;
mod crash;
mod documents;
mod training;
