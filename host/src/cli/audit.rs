//! `trainer audit`: filters the lines of an audit log.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;

use super::client::terminal::visible;
use crate::audit::{Entry, Outcome};
use crate::job::since;

#[derive(Debug, Args)]
pub struct AuditArguments {
    /// The audit log, or - for standard input.
    #[arg(env = "TRAINER_AUDIT")]
    file: PathBuf,
    /// Only changes by this caller.
    #[arg(long)]
    who: Option<String>,
    /// Only changes of this job or framework.
    #[arg(long)]
    name: Option<String>,
    /// Only changes in this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only this operation, such as createJob.
    #[arg(long)]
    operation: Option<String>,
    /// Only changes with this outcome.
    #[arg(long, value_enum)]
    outcome: Option<Outcome>,
    /// Only changes since a time (RFC 3339) or a duration such as 10m.
    #[arg(long, value_parser = start)]
    since: Option<Timestamp>,
    /// Print the selected lines of the log unchanged.
    #[arg(long)]
    json: bool,
}

fn start(text: &str) -> Result<Timestamp, String> {
    let wrong = || "it takes a time such as 2026-01-31T12:00:00Z, or a duration such as 10m";
    since(text, Timestamp::now()).ok_or_else(|| wrong().to_string())
}

impl AuditArguments {
    fn selects(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, given: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == given
        };
        let is_recent = |since: Timestamp| {
            let time = entry.time.parse::<Timestamp>();
            time.is_ok_and(|time| time >= since)
        };
        is(&self.who, entry.who.as_deref())
            && is(&self.name, entry.name.as_deref())
            && is(&self.namespace, entry.namespace.as_deref())
            && is(&self.operation, Some(&entry.operation))
            && self.outcome.is_none_or(|outcome| outcome == entry.outcome)
            && self.since.is_none_or(is_recent)
    }
}

/// Prints the selected lines.
///
/// # Errors
///
/// If the log cannot be read, or a line is not one of an audit log.
pub fn run(arguments: &AuditArguments) -> anyhow::Result<()> {
    let name = arguments.file.display();
    let log: Box<dyn BufRead> = match arguments.file.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => {
            let file = File::open(&arguments.file);
            let file = file.with_context(|| format!("cannot read the audit log {name}"))?;
            Box::new(BufReader::new(file))
        }
    };
    let mut output = std::io::stdout().lock();
    for (number, line) in (1..).zip(log.lines()) {
        let line = line.with_context(|| format!("cannot read the audit log {name}"))?;
        // Standard output of a service has its log as well.
        if line.trim().is_empty() {
            continue;
        }
        let entry: Entry = serde_json::from_str(&line)
            .with_context(|| format!("{name}: line {number} is not one of an audit log"))?;
        if !arguments.selects(&entry) {
            continue;
        }
        match arguments.json {
            true => writeln!(output, "{line}")?,
            false => writeln!(output, "{}", visible(&described(&entry)))?,
        }
    }
    Ok(())
}

fn described(entry: &Entry) -> String {
    let who = entry.who.as_deref().unwrap_or("-");
    let place = [entry.namespace.as_deref(), entry.name.as_deref()];
    let place: Vec<&str> = place.into_iter().flatten().collect();
    let outcome = match entry.outcome {
        Outcome::Done => "done",
        Outcome::Refused => "refused",
        Outcome::Failed => "failed",
    };
    let why = entry.problem.iter().chain(&entry.rules);
    let why: Vec<&str> = why.map(String::as_str).collect();
    let why = match why.is_empty() {
        true => String::new(),
        false => format!(" ({})", why.join(", ")),
    };
    format!(
        "{} {who} {} {} {outcome}{why}",
        entry.time,
        entry.operation,
        place.join("/")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            time: "2026-11-28T14:00:00Z".to_string(),
            who: Some("alice".to_string()),
            operation: "createJob".to_string(),
            namespace: Some("team-a".to_string()),
            name: Some("meta-run".to_string()),
            request_id: "1".to_string(),
            status: 400,
            outcome: Outcome::Refused,
            problem: Some("invalid-request".to_string()),
            codes: vec!["policy-image".to_string()],
            rules: vec!["namespaces.team-a.images".to_string()],
        }
    }

    fn arguments() -> AuditArguments {
        AuditArguments {
            file: PathBuf::from("-"),
            who: None,
            name: None,
            namespace: None,
            operation: None,
            outcome: None,
            since: None,
            json: false,
        }
    }

    #[test]
    fn filters_select_lines_that_have_all_of_them() {
        let all = arguments();
        assert!(all.selects(&entry()));
        let of = AuditArguments {
            who: Some("alice".to_string()),
            outcome: Some(Outcome::Refused),
            since: Some("2026-11-28T13:00:00Z".parse().unwrap()),
            ..arguments()
        };
        assert!(of.selects(&entry()));
        for other in [
            AuditArguments {
                who: Some("bob".to_string()),
                ..arguments()
            },
            AuditArguments {
                outcome: Some(Outcome::Done),
                ..arguments()
            },
            AuditArguments {
                since: Some("2026-11-28T15:00:00Z".parse().unwrap()),
                ..arguments()
            },
        ] {
            assert!(!other.selects(&entry()));
        }
    }

    #[test]
    fn a_line_says_who_did_what_and_which_rule_refused_it() {
        let expected = "2026-11-28T14:00:00Z alice createJob team-a/meta-run refused \
                        (invalid-request, namespaces.team-a.images)";
        assert_eq!(described(&entry()), expected);
    }
}
