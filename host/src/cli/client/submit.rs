//! The commands that submit a job.

use std::io::Write;

use http::Method;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::arguments::{CloneArguments, Output, SendingArguments, SubmitArguments};
use super::failure::Failure;
use super::follow::{self, Ending};
use super::live::{self, Display};
use super::lookup;
use super::output;
use super::server::Server;
use super::setting::put;
use super::source::Source;
use crate::job::{JobState, JobSummary};

/// Submits the request in a file.
///
/// # Errors
///
/// The file cannot be read, the service refuses the request, or the watched job does not succeed.
pub fn submit(arguments: &SubmitArguments) -> Result<(), Failure> {
    let overwrite = arguments.overwrite.then(|| "overwrite=true".to_string());
    let settings: Vec<String> = arguments.set.iter().cloned().chain(overwrite).collect();
    let (source, request) = Source::read(&arguments.file, &settings)?;
    let server = Server::of(&arguments.connection)?;
    let done = send(&server, &request, &arguments.sending);
    done.map_err(|failure| match failure {
        Failure::Refused { problem, .. } => Failure::Refused {
            problem,
            source: Some(Box::new(source)),
        },
        failure => failure,
    })
}

/// Submits the request of a job again, with another run id and further changes.
///
/// # Errors
///
/// The job does not exist, a setting is invalid, or as for [`submit`].
pub fn clone(arguments: &CloneArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let (job, namespace) = (&arguments.job, arguments.namespace.as_deref());
    let mut request: Map<String, Value> = server
        .job(job, Some("request"), namespace)
        .read()
        .map_err(|failure| lookup::suggest(&server, job, failure))?;
    // They are about the run of the original.
    for field in ["job_name", "resume_from_checkpoint", "overwrite"] {
        request.remove(field);
    }
    let run_id = match &arguments.run_id {
        Some(run_id) => run_id.clone(),
        None => next_run_id(request["run_id"].as_str().unwrap_or_default()),
    };
    request.insert("run_id".to_string(), run_id.into());
    let mut request = Value::Object(request);
    for setting in &arguments.set {
        put(&mut request, setting)?;
    }
    send(&server, &request, &arguments.sending)
}

/// A name after that of a run: `run-1` becomes `run-2`, and `demo` becomes `demo-2`.
fn next_run_id(run_id: &str) -> String {
    let stem = run_id.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &run_id[stem.len()..];
    match digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_add(1))
    {
        Some(next) => format!("{stem}{next:0width$}", width = digits.len()),
        None => format!("{run_id}-2"),
    }
}

fn send(server: &Server, request: &Value, sending: &SendingArguments) -> Result<(), Failure> {
    match sending.dry_run {
        true => dry_run(server, request, sending.output),
        false => create(server, request, sending),
    }
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

fn create(server: &Server, request: &Value, arguments: &SendingArguments) -> Result<(), Failure> {
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

/// What the end of a job means for the exit code.
pub fn succeeded(job: &str, ending: Ending) -> Result<(), Failure> {
    let (job, detail) = match ending {
        Ending::Ended(ended) if ended.summary.status == JobState::Succeeded => return Ok(()),
        Ending::Ended(ended) => (job.to_string(), ended.summary.detail),
        Ending::Deleted => (job.to_string(), "it was deleted".to_string()),
    };
    Err(Failure::JobFailed { job, detail })
}

#[cfg(test)]
mod tests {
    use super::next_run_id;

    #[test]
    fn the_next_run_id_counts_on() {
        for (run_id, next) in [
            ("run-1", "run-2"),
            ("run-09", "run-10"),
            ("run-99", "run-100"),
            ("demo", "demo-2"),
            ("7", "8"),
            ("r-4294967295", "r-4294967295-2"),
            ("r-99999999999", "r-99999999999-2"),
        ] {
            assert_eq!(next_run_id(run_id), next);
        }
    }
}
