//! The `trainer` binary.

use std::process::ExitCode;

/// Requests allocate many small strings, for which the C library's allocator is slow with several
/// threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    trainer_host::cli::run()
}
