//! The commands that talk to a running service, for people at a terminal and for scripts.

pub mod arguments;
mod commands;
mod failure;
mod follow;
mod output;
mod server;
mod source;
pub mod terminal;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use arguments::ClientCommand;

/// Runs a command and tells on standard error what went wrong with it.
pub fn run(command: ClientCommand) -> ExitCode {
    match commands::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let style = match std::io::stderr().is_terminal() {
                true => output::Style::Coloured,
                false => output::Style::Plain,
            };
            // Nobody may be reading, which is no other failure.
            let _ = writeln!(std::io::stderr(), "{}", failure.report(style));
            failure.exit_code()
        }
    }
}
