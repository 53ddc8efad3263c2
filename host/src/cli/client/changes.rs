//! `trainer suspend`, `resume` and `delete`, for one job or several.

use std::io::Write;

use http::Method;
use serde_json::json;

use super::arguments::JobsArguments;
use super::failure::Failure;
use super::lookup;
use super::output::{self, Style};
use super::pages;
use super::server::Server;
use crate::job::JobSummary;

pub fn suspend(arguments: &JobsArguments) -> Result<(), Failure> {
    each(arguments, |server, job| {
        change(server, arguments, job, "suspend")
    })
}

pub fn resume(arguments: &JobsArguments) -> Result<(), Failure> {
    each(arguments, |server, job| {
        change(server, arguments, job, "resume")
    })
}

pub fn delete(arguments: &JobsArguments) -> Result<(), Failure> {
    each(arguments, |server, job| {
        let call = server.call(Method::DELETE, &["train", &job.name]);
        call.query("namespace", job.namespace.as_ref()).send()?;
        let deleted = json!({"name": job.name, "deleted": true});
        match arguments.output {
            Some(output) => output::print(&deleted, &[&job.name], output),
            None => output::line(&format!("{} was deleted", job.name)),
        }
    })
}

/// A job that a command names or selects.
struct Chosen {
    name: String,
    namespace: Option<String>,
}

/// Changes each job. A failure does not keep the others from being changed; the last one is
/// returned, and those before it are reported.
fn each(
    arguments: &JobsArguments,
    change: impl Fn(&Server, &Chosen) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let mut failed = None;
    for job in chosen(&server, arguments)? {
        let changed = change(&server, &job);
        let Err(failure) = changed.map_err(|f| lookup::suggest(&server, &job.name, f)) else {
            continue;
        };
        if let Some(before) = failed
            .replace(failure)
            .and_then(|f| f.report(Style::of_errors()))
        {
            writeln!(std::io::stderr(), "{before}")?;
        }
    }
    failed.map_or(Ok(()), Err)
}

fn chosen(server: &Server, arguments: &JobsArguments) -> Result<Vec<Chosen>, Failure> {
    let Some(selector) = &arguments.selector else {
        let named = arguments.jobs.iter().map(|name| Chosen {
            name: name.clone(),
            namespace: arguments.namespace.clone(),
        });
        return Ok(named.collect());
    };
    let selected = pages::jobs(usize::MAX, || {
        let list = server.call(Method::GET, &["train"]);
        list.query("namespace", arguments.namespace.as_ref())
            .query("label_selector", Some(selector))
    })?;
    if selected.is_empty() {
        output::remark("no jobs");
    }
    let selected = selected.into_iter().map(|job| Chosen {
        name: job.summary.name,
        namespace: Some(job.namespace),
    });
    Ok(selected.collect())
}

fn change(
    server: &Server,
    arguments: &JobsArguments,
    job: &Chosen,
    what: &str,
) -> Result<(), Failure> {
    let changed: JobSummary = server
        .call(Method::POST, &["train", &job.name, what])
        .query("namespace", job.namespace.as_ref())
        .read()?;
    match arguments.output {
        Some(output) => output::print(&changed, &[&changed.name], output),
        None => output::line(&format!("{} was asked to {what}", changed.name)),
    }
}
