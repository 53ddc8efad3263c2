//! Formats output: tables for people; JSON, YAML and names for scripts.

use std::io::{IsTerminal, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::arguments::Output;
use super::failure::Failure;
use super::terminal::visible;
use crate::job::{ListedJob, Progress};

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Coloured,
}

impl Style {
    /// The style of errors: plain in a pipe, on a terminal without colours, or if NO_COLOR
    /// (no-color.org) is set.
    pub fn of_errors() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        match std::io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb {
            true => Self::Coloured,
            false => Self::Plain,
        }
    }
}

/// Replaces HTTP requests in a message of the service by commands of this client.
pub fn as_commands(text: &str) -> String {
    let mut words = text.split(' ').peekable();
    let mut said: Vec<String> = Vec::new();
    while let Some(word) = words.next() {
        let command = match words.peek() {
            Some(path) if ["GET", "POST", "DELETE"].contains(&word) => command(word, path),
            _ => None,
        };
        match command {
            Some(command) => {
                words.next();
                said.push(command);
            }
            None => said.push(word.replace("?namespace=", "--namespace")),
        }
    }
    said.join(" ")
}

/// The command for a request.
fn command(method: &str, path: &str) -> Option<String> {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    let end = path.find(|c| !is_of_path(c)).unwrap_or(path.len());
    // A full stop ends the sentence.
    let (path, end) = path.split_at(path[..end].trim_end_matches('.').len());
    let mut segments = path.trim_start_matches('/').split('/');
    let command = match (method, segments.next()?, segments.next(), segments.next()) {
        ("POST", "train", None, _) => "trainer submit".to_string(),
        ("POST", "train", Some("preview"), None) => "trainer submit --dry-run".to_string(),
        ("GET", "train", None, _) => "trainer list".to_string(),
        ("GET", "train", Some(job), None) => format!("trainer get {job}"),
        ("DELETE", "train", Some(job), None) => format!("trainer delete {job}"),
        ("GET", "train", Some(job), Some(what @ ("logs" | "events" | "metrics" | "manifest"))) => {
            format!("trainer {what} {job}")
        }
        ("POST", "train", Some(job), Some(what @ ("suspend" | "resume"))) => {
            format!("trainer {what} {job}")
        }
        ("GET", "frameworks", None, _) => "trainer frameworks".to_string(),
        _ => return None,
    };
    Some(format!("{command}{end}"))
}

/// Prints a response in a format for scripts.
///
/// # Errors
///
/// If the output is closed.
pub fn print(answer: &impl Serialize, names: &[&str], output: Output) -> Result<(), Failure> {
    let written = |error: anyhow::Error| Failure::Answer(error);
    match output {
        Output::Name => names.iter().try_for_each(|name| line(name)),
        Output::Json => line(&serde_json::to_string_pretty(answer).map_err(|e| written(e.into()))?),
        Output::Yaml => {
            let yaml = serde_saphyr::to_string(answer).map_err(|e| written(e.into()))?;
            line(yaml.trim_end())
        }
    }
}

/// Prints a line for scripts on standard output, without escaping.
///
/// # Errors
///
/// If the output is closed.
pub fn line(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints lines for people on standard output.
///
/// # Errors
///
/// If the output is closed.
pub fn print_text(text: &str) -> Result<(), Failure> {
    line(&visible(text))
}

/// Prints to standard error. A closed stream is not a failure.
pub fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(text));
}

/// A table of jobs with everything that a list has.
pub fn jobs(jobs: &[&ListedJob], now: Timestamp) -> String {
    let mut table = table(&[
        "NAME",
        "STATUS",
        "FRAMEWORK",
        "RUN",
        "NAMESPACE",
        "AGE",
        "STEP",
        "LOSS",
    ]);
    for job in jobs {
        table.add_row([
            job.summary.name.clone(),
            state(job),
            job.summary.framework.clone(),
            job.summary.run_id.clone(),
            job.namespace.clone(),
            age_of(job, now),
            of_progress(job, steps),
            of_progress(job, known_loss),
        ]);
    }
    lines(&table)
}

/// A table of jobs for a terminal of some columns. Long names are cut.
pub fn board(jobs: &[&ListedJob], now: Timestamp, columns: usize) -> String {
    let mut table = table(&["NAME", "STATUS", "STEP", "LOSS", "LEFT", "NAMESPACE", "AGE"]);
    for job in jobs {
        table.add_row([
            job.summary.name.clone(),
            state(job),
            of_progress(job, steps),
            of_progress(job, known_loss),
            of_progress(job, left),
            job.namespace.clone(),
            age_of(job, now),
        ]);
    }
    fit(&mut table, columns, &[0, 5]);
    lines(&table)
}

/// What the progress of a job shows, if it is known.
fn of_progress(job: &ListedJob, text: impl Fn(&Progress) -> String) -> String {
    job.progress.as_ref().map_or_else(String::new, text)
}

fn steps(progress: &Progress) -> String {
    format!("{}/{}", progress.step, progress.total_steps)
}

fn known_loss(progress: &Progress) -> String {
    loss(progress).unwrap_or("nan".to_string())
}

/// Cuts the longest values of some columns, so that the table fits a terminal.
fn fit(table: &mut Table, columns: usize, flexible: &[usize]) {
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(columns).unwrap_or(u16::MAX));
    for (index, column) in table.column_iter_mut().enumerate() {
        if !flexible.contains(&index) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    for row in table.row_iter_mut() {
        row.max_height(1);
    }
}

fn age_of(job: &ListedJob, now: Timestamp) -> String {
    let created = job.created_at.as_ref();
    let age = created.map(|created| age(now.duration_since(created.0)));
    age.unwrap_or_default()
}

/// The state of a job, and whether it is suspended or waits in a queue.
pub fn state(job: &ListedJob) -> String {
    let state = word(&job.summary.status);
    match (&job.queued_in, job.suspended) {
        (Some(queue), _) => format!("{state}, queued in {queue}"),
        (None, true) => format!("{state}, suspended"),
        (None, false) => state,
    }
}

/// The loss with four digits, if it is a number.
pub fn loss(progress: &Progress) -> Option<String> {
    progress.loss.map(|loss| format!("{loss:.4}"))
}

/// The time that a job needs until its end.
pub fn left(progress: &Progress) -> String {
    age(SignedDuration::try_from_secs_f64(progress.seconds_left).unwrap_or_default())
}

/// A value that is a string in JSON.
pub fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_string()
}

/// The frameworks of a service.
pub fn frameworks(frameworks: &[Value]) -> String {
    let mut table = table(&["NAME", "VERSION", "SUMMARY"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    for framework in frameworks {
        table.add_row(["name", "version", "summary"].map(|key| text(&framework[key])));
    }
    lines(&table)
}

/// The full view of a job.
pub fn details(job: &Value) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let known = [
        ("Name", "name"),
        ("Namespace", "namespace"),
        ("Status", "status"),
        ("Detail", "detail"),
        ("Framework", "framework"),
        ("Run", "run_id"),
        ("Model", "model_id"),
        ("Dataset", "dataset_uri"),
        ("Created", "created_at"),
        ("Started", "started_at"),
        ("Completed", "completed_at"),
    ];
    for (title, key) in known {
        if let Some(value) = job[key].as_str() {
            table.add_row([format!("{title}:"), value.to_string()]);
        }
    }
    if let Some(prefix) = job["checkpoint"]["prefix"].as_str() {
        table.add_row(["Checkpoints:", prefix]);
    }
    if let Ok(progress) = Progress::deserialize(&job["progress"]) {
        table.add_row(["Progress:", &progress_text(&progress)]);
    }
    let warnings = job["warnings"].as_array().into_iter().flatten();
    for warning in warnings.filter_map(|warning| warning["detail"].as_str()) {
        table.add_row(["Warning:", warning]);
    }
    let mut details = lines(&table);
    for sentence in job["explanation"].as_array().into_iter().flatten() {
        let sentence = as_commands(sentence.as_str().unwrap_or_default());
        details.push_str(&format!("\n\n{sentence}"));
    }
    let pods = job["pods"].as_array().map_or(&[][..], Vec::as_slice);
    if !pods.is_empty() {
        details.push_str(&format!("\n\n{}", replicas(pods)));
    }
    details
}

/// The progress of a job, such as `step 10 of 60, loss 3.2172, 5646 tokens/s, 12s left`.
fn progress_text(progress: &Progress) -> String {
    format!(
        "step {} of {}, loss {}, {:.0} tokens/s, {} left",
        progress.step,
        progress.total_steps,
        loss(progress).as_deref().unwrap_or("not a number"),
        progress.tokens_per_second,
        left(progress)
    )
}

fn replicas(pods: &[Value]) -> String {
    let mut table = table(&["REPLICA", "PHASE", "RESTARTS", "EXIT CODE", "NODE"]);
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    for pod in pods {
        let columns = ["replica", "phase", "restarts", "exit_code", "node"];
        table.add_row(columns.map(|key| text(&pod[key])));
    }
    lines(&table)
}

/// A table like that of kubectl: lines are never wrapped, so scripts can split them.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

pub fn lines(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_string()).collect();
    lines.join("\n")
}

/// A duration in its largest unit, like kubectl.
fn age(age: SignedDuration) -> String {
    let seconds = age.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_of_the_service_is_a_command_here() {
        for (message, said) in [
            (
                "The job is suspended. Resume it with POST /train/a-b/resume.",
                "The job is suspended. Resume it with trainer resume a-b.",
            ),
            (
                "there are jobs called a in x, y: ?namespace= says which",
                "there are jobs called a in x, y: --namespace says which",
            ),
            ("see GET /train/a.", "see trainer get a."),
            (
                "DELETE /train/a, then POST /train",
                "trainer delete a, then trainer submit",
            ),
            (
                "GET /frameworks lists them",
                "trainer frameworks lists them",
            ),
            ("POST /train/a/other stays", "POST /train/a/other stays"),
            ("POST it, and GET  on", "POST it, and GET  on"),
        ] {
            assert_eq!(as_commands(message), said);
        }
    }

    #[test]
    fn on_a_terminal_long_names_are_cut_and_everything_else_is_not() {
        let job: ListedJob = serde_json::from_value(serde_json::json!({
            "name": "meta-".to_string() + &"a".repeat(100),
            "framework": "meta",
            "run_id": "a".repeat(100),
            "status": "submitted",
            "detail": "",
            "namespace": "research",
            "suspended": true,
        }))
        .unwrap();
        let wide = jobs(&[&job], Timestamp::UNIX_EPOCH);
        assert!(wide.lines().last().unwrap().len() > 200, "{wide}");
        let fitted = board(&[&job], Timestamp::UNIX_EPOCH, 80);
        for line in fitted.lines() {
            assert!(line.len() <= 80, "{line}");
        }
        assert_eq!(fitted.lines().count(), 2, "{fitted}");
        assert!(fitted.contains("submitted, suspended"), "{fitted}");
        assert!(fitted.contains("research"), "{fitted}");
    }

    #[test]
    fn an_age_has_one_unit() {
        for (seconds, message) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7200, "2h"),
            (200_000, "2d"),
        ] {
            assert_eq!(age(SignedDuration::from_secs(seconds)), message);
        }
    }
}
