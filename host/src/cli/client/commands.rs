//! The implementations of the commands.

use std::io::{IsTerminal, Write};

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::arguments::{
    ClientCommand, EventsArguments, FrameworksArguments, JobArguments, ListArguments,
    LogsArguments, Output, SubmitArguments, WatchArguments,
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
use super::source::Source;
use super::terminal::Terminal;
use crate::job::{JobState, JobSummary, ListedJob};

/// Runs a command.
///
/// # Errors
///
/// Why the command failed.
pub fn run(command: ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::Submit(arguments) => submit(&arguments),
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

fn submit(arguments: &SubmitArguments) -> Result<(), Failure> {
    let overwrite = arguments.overwrite.then(|| "overwrite=true".to_string());
    let settings: Vec<String> = arguments.set.iter().cloned().chain(overwrite).collect();
    let (source, request) = Source::read(&arguments.file, &settings)?;
    let server = Server::of(&arguments.connection)?;
    let done = match arguments.dry_run {
        true => dry_run(&server, &request, arguments.output),
        false => create(&server, &request, arguments),
    };
    done.map_err(|failure| match failure {
        Failure::Refused { problem, .. } => Failure::Refused {
            problem,
            source: Some(Box::new(source)),
        },
        failure => failure,
    })
}

fn dry_run(server: &Server, request: &Value, output: Option<Output>) -> Result<(), Failure> {
    let call = server.call(Method::POST, &["train", "preview"]);
    let preview: Value = call.query("dry_run", Some("server")).body(request).read()?;
    let name = preview["name"].as_str().unwrap_or_default();
    for member in ["parallel", "memory"] {
        if let Some(summary) = preview[member]["summary"].as_str() {
            output::remark(summary);
        }
    }
    for warning in preview["warnings"].as_array().into_iter().flatten() {
        let part = |key: &str| warning[key].as_str().unwrap_or_default();
        output::remark(&format!("warning: {} {}", part("code"), part("detail")));
    }
    match output {
        None => output::print(&preview["manifest"], &[], Output::Yaml),
        Some(output) => output::print(&preview, &[name], output),
    }
}

fn create(server: &Server, request: &Value, arguments: &SubmitArguments) -> Result<(), Failure> {
    // A request whose response was lost may have created the job. Repeating it with the same key
    // does not create a second one.
    let call = server
        .call(Method::POST, &["train"])
        .header("idempotency-key", Uuid::new_v4())
        .body(request);
    let mut response = match call.send() {
        Err(Failure::Unreachable { .. }) => call.send()?,
        sent => sent?,
    };
    for warning in response.headers().get_all("warning") {
        let warning = warning.to_str().unwrap_or_default();
        let warning = warning.trim_start_matches("299 - ").trim_matches('"');
        writeln!(std::io::stderr(), "warning: {warning}")?;
    }
    let read = response.body_mut().read_json::<JobSummary>();
    let job = read.map_err(|error| Failure::Answer(error.into()))?;
    // For a watched job, -o json and -o yaml print the final state.
    let is_last = !arguments.watch || matches!(arguments.output, None | Some(Output::Name));
    let printed = match arguments.output {
        Some(output) if is_last => output::print(&job, &[&job.name], output),
        Some(_) => Ok(()),
        None => output::line(&format!("{} was submitted", job.name)),
    };
    match (printed, arguments.watch) {
        (Ok(()) | Err(Failure::Unread), true) => {}
        (printed, _) => return printed,
    }
    let ending = wait(server, &job.name, request["namespace"].as_str())?;
    if let (Some(output), false, Ending::Ended(ended)) = (arguments.output, is_last, &ending) {
        output::print(&ended.summary, &[&job.name], output)?;
    }
    succeeded(&job.name, ending)
}

/// Shows a job on standard output until it finishes.
fn watch(arguments: &WatchArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let (job, namespace) = (&arguments.job, arguments.namespace.as_deref());
    let mut output = std::io::stdout();
    let display = Display::of(&output);
    let ending = live::watch(&server, job, namespace, display, &mut output)
        .map_err(|failure| lookup::suggest(&server, job, failure))?;
    succeeded(job, ending)
}

/// Waits until a job finishes, and shows it on standard error: its progress on a terminal, its
/// status changes in a pipe.
fn wait(server: &Server, job: &str, namespace: Option<&str>) -> Result<Ending, Failure> {
    let mut output = std::io::stderr();
    if let terminal @ Display::Terminal { .. } = Display::of(&output) {
        return live::watch(server, job, namespace, terminal, &mut output);
    }
    follow::events(server, job, namespace, |job| {
        output::remark(&follow::status_line(job));
        Ok(())
    })
}

fn succeeded(job: &str, ending: Ending) -> Result<(), Failure> {
    let (job, detail) = match ending {
        Ending::Ended(ended) if ended.summary.status == JobState::Succeeded => return Ok(()),
        Ending::Ended(ended) => (job.to_string(), ended.summary.detail),
        Ending::Deleted => (job.to_string(), "it was deleted".to_string()),
    };
    Err(Failure::JobFailed { job, detail })
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
