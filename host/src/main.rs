//! The `trainer` binary.

use std::process::ExitCode;

/// A request is many small strings; the C library's allocator is slow at those on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    trainer_host::cli::run()
}
