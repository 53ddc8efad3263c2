//! The command line: each command in a module of its own.

mod audit;
pub mod client;
pub mod explain;
pub mod init;
pub mod plugin;
mod plugins;
pub mod preview;
pub mod runtimes;
mod secret;
mod serve;
mod token;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::cluster::local::contain::Stage;
use crate::cluster::local::shim;
use crate::config::ServeSettings;
use crate::plugin::compiler;
use crate::text::without_numbers;
use audit::AuditArguments;
use client::arguments::ClientCommand;
use client::source::Report;
use client::terminal::visible;
use explain::ExplainSettings;
use init::InitSettings;
use plugin::PluginCommand;
use preview::PreviewSettings;
use runtimes::RuntimesSettings;
use secret::SecretCommand;
use token::TokenCommand;

/// One HTTP request starts a training job.
#[derive(Debug, Parser)]
#[command(name = "trainer", version)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API.
    Serve(Box<ServeSettings>),
    /// Create a file with a request for a framework, with all its arguments as comments.
    Init(InitSettings),
    /// Print the manifest of a request, without a server or a cluster.
    Preview(PreviewSettings),
    /// Print the ClusterTrainingRuntimes of TrainJobs, to be applied with kubectl.
    Runtimes(RuntimesSettings),
    /// Show the documentation of a framework, an argument, a rule, or a code of an error.
    Explain(ExplainSettings),
    /// Create, test and publish framework plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Create tokens for the access file.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Store secrets for jobs of the local cluster.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Print the changes that an audit log has.
    Audit(AuditArguments),
    #[command(flatten)]
    Client(ClientCommand),
    /// Run one replica of a local job. Started by `serve`.
    #[command(hide = true)]
    KeepReplica,
    /// Run the command of a replica in its own namespaces. Started by `keep-replica`.
    #[command(hide = true)]
    StartReplica { stage: Stage },
    /// Compile and test one plugin. Started by `serve`.
    #[command(hide = true)]
    MakePlugin,
}

impl CommandLine {
    /// Parses the words of a command line, of which the first is the program.
    pub fn read<W: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = W>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(words).map_err(with_tip)
    }
}

/// Says what to do about a command that resembles no other one.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let has_suggestion = error.get(ContextKind::SuggestedSubcommand).is_some();
    if error.kind() == ErrorKind::InvalidSubcommand && !has_suggestion {
        let tip = ContextValue::StyledStrs(vec!["--help lists the commands".into()]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}

/// Parses the command line and runs its command.
pub fn run() -> ExitCode {
    let line = CommandLine::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = match line.command {
        Command::Serve(settings) => serve::serve_in_private(*settings),
        Command::Init(settings) => printed(init::init(&settings)),
        Command::Preview(settings) => printed(on_runtime(preview::preview(settings))),
        Command::Runtimes(settings) => printed(runtimes::runtimes(&settings)),
        Command::Explain(settings) => printed(explain::explain(&settings)),
        Command::Token(command) => printed(token::run(&command)),
        Command::Secret(command) => printed(secret::run(&command)),
        Command::Audit(arguments) => printed(audit::run(&arguments)),
        Command::Client(command) => return client::run(command),
        Command::StartReplica { stage } => return start_replica(stage),
        Command::KeepReplica => shim::run().map_err(Into::into),
        Command::Plugin(command) => printed(plugin::run(command)),
        Command::MakePlugin => compiler::run().map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Every cause on one line, and no trace: this is for the person at the terminal.
            let message = match error.downcast_ref::<Report>() {
                Some(report) => report.to_string(),
                None => {
                    let error = without_numbers(format_args!("{error:#}"));
                    format!("error: {}", visible(&error))
                }
            };
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

/// A closed output is not a failure: `trainer explain hf | head -1`.
fn printed(done: anyhow::Result<()>) -> anyhow::Result<()> {
    let is_unread = |error: &anyhow::Error| {
        let mut causes = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        causes.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    };
    match done {
        Err(error) if is_unread(&error) => Ok(()),
        done => done,
    }
}

fn on_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build()?;
    let done = runtime.block_on(work);
    // Nobody waits for a plugin that is still being compiled.
    runtime.shutdown_background();
    done
}

/// The first processes of a replica end as it does.
fn start_replica(stage: Stage) -> ExitCode {
    stage.run().unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "error: {error}");
        ExitCode::FAILURE
    })
}
