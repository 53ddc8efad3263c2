//! The commands that talk to a running service.

pub mod arguments;
mod board;
mod changes;
mod chart;
pub mod commands;
mod completion;
mod connection_error;
mod curves;
pub mod failure;
mod follow;
mod identity;
mod live;
mod lookup;
pub mod output;
mod pages;
mod server;
mod setting;
pub mod source;
mod submit;
mod target;
pub mod terminal;

use std::io::Write;
use std::process::ExitCode;

use arguments::ClientCommand;

/// Runs a command and reports errors on standard error.
pub fn run(command: ClientCommand) -> ExitCode {
    match commands::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(report) = failure.report(output::Style::of_errors()) {
                // A closed stream is not a failure.
                let _ = writeln!(std::io::stderr(), "{report}");
            }
            failure.exit_code()
        }
    }
}
