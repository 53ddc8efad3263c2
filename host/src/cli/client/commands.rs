//! The implementations of the commands.

use std::io::{IsTerminal, Write};

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::arguments::{
    ClientCommand, EventsArguments, FrameworksArguments, JobArguments, ListArguments,
    LogsArguments, Output, WatchArguments,
};
use super::board::{self, Shown};
use super::changes;
use super::completion;
use super::curves;
use super::failure::Failure;
use super::follow::{self, Ending};
use super::identity;
use super::live::{self, Display};
use super::lookup;
use super::output;
use super::pages;
use super::server::Server;
use super::submit;
use super::terminal::Terminal;
use crate::job::ListedJob;

/// Runs a command.
///
/// # Errors
///
/// Why the command failed.
pub fn run(command: ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::Submit(arguments) => submit::submit(&arguments),
        ClientCommand::Clone(arguments) => submit::clone(&arguments),
        ClientCommand::Get(arguments) => get(&arguments),
        ClientCommand::Manifest(arguments) => manifest(&arguments),
        ClientCommand::List(arguments) => list(&arguments),
        ClientCommand::Logs(arguments) => logs(&arguments),
        ClientCommand::Events(arguments) => events(&arguments),
        ClientCommand::Watch(arguments) => watch(&arguments),
        ClientCommand::Metrics(arguments) => curves::metrics(&arguments),
        ClientCommand::Compare(arguments) => curves::compare(&arguments),
        ClientCommand::Suspend(arguments) => changes::suspend(&arguments),
        ClientCommand::Resume(arguments) => changes::resume(&arguments),
        ClientCommand::Delete(arguments) => changes::delete(&arguments),
        ClientCommand::Frameworks(arguments) => frameworks(&arguments),
        ClientCommand::Whoami(arguments) => identity::whoami(&arguments),
        ClientCommand::Completion { shell } => {
            Ok(std::io::stdout().write_all(completion::script(shell).as_bytes())?)
        }
    }
}

/// Shows a job on standard output until it finishes.
fn watch(arguments: &WatchArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let (job, namespace) = (&arguments.job, arguments.namespace.as_deref());
    let mut output = std::io::stdout();
    let display = Display::of(&output);
    let ending = live::watch(&server, job, namespace, display, &mut output)
        .map_err(|failure| lookup::suggest(&server, job, failure))?;
    submit::succeeded(job, ending)
}

fn get(arguments: &JobArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let job: Value = server
        .job(&arguments.job, None, arguments.namespace.as_deref())
        .query("view", Some("full"))
        .read()
        .map_err(|failure| lookup::suggest(&server, &arguments.job, failure))?;
    let name = job["name"].as_str().unwrap_or_default();
    match arguments.output {
        Some(output) => output::print(&job, &[name], output),
        None => output::print_text(&output::details(&job)),
    }
}

fn manifest(arguments: &JobArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let manifest: Value = server
        .job(
            &arguments.job,
            Some("manifest"),
            arguments.namespace.as_deref(),
        )
        .read()
        .map_err(|failure| lookup::suggest(&server, &arguments.job, failure))?;
    let output = arguments.output.unwrap_or(Output::Yaml);
    output::print(&manifest, &[&arguments.job], output)
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let owner = match arguments.mine {
        true => Some(identity::own_name(&server)?),
        false => arguments.owner.clone(),
    };
    if arguments.watch {
        let mut output = std::io::stdout();
        let shown = Shown { arguments, owner };
        return board::watch(&server, shown, Display::of(&output), &mut output);
    }
    let limit = arguments.limit.unwrap_or(usize::MAX);
    let jobs = pages::jobs(limit, || {
        server
            .call(Method::GET, &["train"])
            .query("framework", arguments.framework.as_ref())
            .query("status", arguments.status.as_ref())
            .query("namespace", arguments.namespace.as_ref())
            .query("owner", owner.as_ref())
            .query("label_selector", arguments.selector.as_ref())
            .query("progress", Some("true"))
    })?;
    let names: Vec<&str> = jobs.iter().map(|job| job.summary.name.as_str()).collect();
    match arguments.output {
        Some(output) => output::print(&jobs, &names, output),
        None if jobs.is_empty() => Ok(writeln!(std::io::stderr(), "no jobs")?),
        None => {
            let jobs: Vec<&ListedJob> = jobs.iter().collect();
            let now = Timestamp::now();
            output::print_text(&match Display::of(&std::io::stdout()).columns() {
                Some(columns) => output::board(&jobs, now, columns),
                None => output::jobs(&jobs, now),
            })
        }
    }
}

fn logs(arguments: &LogsArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let output = std::io::stdout();
    let done = match output.is_terminal() {
        true => follow::logs(&server, arguments, &mut Terminal::new(output.lock())),
        false => follow::logs(&server, arguments, &mut output.lock()),
    };
    done.map_err(|failure| lookup::suggest(&server, &arguments.job, failure))
}

fn events(arguments: &EventsArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let namespace = arguments.namespace.as_deref();
    let ending = follow::events(&server, &arguments.job, namespace, |job| {
        match arguments.output {
            None => output::print_text(&follow::status_line(job)),
            Some(Output::Name) => output::line(&job.summary.name),
            Some(Output::Json) => output::line(&follow::json(job)),
            // One document per change, so that the output is valid YAML.
            Some(Output::Yaml) => {
                output::line("---")?;
                output::print(job, &[], Output::Yaml)
            }
        }
    })
    .map_err(|failure| lookup::suggest(&server, &arguments.job, failure))?;
    match ending {
        Ending::Ended(_) => Ok(()),
        Ending::Deleted => Ok(writeln!(
            std::io::stderr(),
            "{} was deleted",
            arguments.job
        )?),
    }
}

/// The response of `GET /frameworks`.
#[derive(Deserialize)]
struct Frameworks {
    frameworks: Vec<Value>,
}

fn frameworks(arguments: &FrameworksArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let Frameworks { frameworks } = server.call(Method::GET, &["frameworks"]).read()?;
    let names = frameworks
        .iter()
        .map(|framework| framework["name"].as_str());
    let names: Vec<&str> = names.map(Option::unwrap_or_default).collect();
    match arguments.output {
        Some(output) => output::print(&frameworks, &names, output),
        None => output::print_text(&output::frameworks(&frameworks)),
    }
}
