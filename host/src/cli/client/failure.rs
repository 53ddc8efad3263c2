//! Failures of commands and their exit codes.

use std::process::ExitCode;

use serde::Deserialize;

use super::connection_error::why;
use super::output::{self, Style};
use super::source::{Report, Source};
use super::terminal::visible;
use crate::finding::Finding;
use crate::text::without_numbers;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// A file, an argument or the configuration is invalid.
    Input(anyhow::Error),
    /// The service refused the request.
    Refused {
        problem: Box<Problem>,
        /// The request file, if there is one.
        source: Option<Box<Source>>,
    },
    /// There was no response.
    Unreachable {
        url: String,
        error: Box<ureq::Error>,
    },
    /// The response was interrupted or is invalid.
    Answer(anyhow::Error),
    /// The output was closed, as by `trainer list | head -1`.
    Unread,
    /// The watched job did not succeed.
    JobFailed { job: String, detail: String },
}

/// A problem document (RFC 9457).
#[derive(Debug, Deserialize)]
pub struct Problem {
    pub status: u16,
    pub detail: String,
    #[serde(default)]
    pub errors: Vec<Finding>,
}

impl Failure {
    /// The exit code, as listed in docs/cli.md. clap uses 2 for an invalid command line.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Input(_) | Self::Answer(_) => 1,
            Self::Refused { problem, .. } => match problem.status {
                401 | 403 => 5,
                404 => 4,
                429 | 500.. => 6,
                _ => 3,
            },
            Self::Unreachable { .. } => 6,
            Self::Unread => 0,
            Self::JobFailed { .. } => 7,
        })
    }

    /// Whether retrying may help.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Answer(_))
    }

    /// The message, if there is one.
    pub fn report(&self, style: Style) -> Option<String> {
        Some(match self {
            Self::Unread => return None,
            Self::Input(error) | Self::Answer(error) => match error.downcast_ref::<Report>() {
                Some(report) => report.to_string(),
                None => format!("error: {}", without_numbers(format_args!("{error:#}"))),
            },
            Self::Refused {
                problem,
                source: Some(source),
            } if !problem.errors.is_empty() => source.report(&problem.errors, style),
            Self::Refused { problem, .. } => {
                let detail = output::as_commands(&problem.detail);
                format!("error: {}", visible(&detail))
            }
            Self::Unreachable { url, error } => format!(
                "error: cannot reach {url}: {}\nIs the service running there? Use TRAINER_URL or \
                 --url to set another address.",
                why(error)
            ),
            Self::JobFailed { job, detail } => {
                format!("error: job {job} failed: {}", visible(detail))
            }
        })
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Input(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Answer(error.into()),
        }
    }
}
