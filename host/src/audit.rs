//! The audit log: a line of JSON for each change, with who wanted it and what came of it. It never
//! contains bodies or secrets.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::error;

/// A change that somebody wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was answered (RFC 3339).
    pub time: String,
    /// The caller; none on a service without an access file.
    pub who: Option<String>,
    /// The id of the operation in the OpenAPI document.
    pub operation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The job, or the framework.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub request_id: String,
    pub status: u16,
    pub outcome: Outcome,
    /// The kind of problem, if it was refused or has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The codes of the findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// The rules of the access file that refused it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Done,
    Refused,
    Failed,
}

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    Output,
    File(PathBuf),
}

impl Audit {
    /// `-` is standard output.
    pub fn to(target: &str) -> Self {
        match target {
            "-" => Self::Output,
            file => Self::File(PathBuf::from(file)),
        }
    }

    /// Checks that lines can be written.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn check(&self) -> io::Result<()> {
        self.append("")
    }

    /// Writes a line. The file is opened for each one, so that it may be rotated at any time.
    pub async fn write(self: Arc<Self>, entry: Entry) {
        let written = tokio::task::spawn_blocking(move || {
            let line = serde_json::to_string(&entry).map_err(io::Error::other)?;
            self.append(&format!("{line}\n"))
        });
        let written = written
            .await
            .unwrap_or_else(|lost| Err(io::Error::other(lost)));
        if let Err(why) = written {
            error!(%why, "cannot write to the audit log");
        }
    }

    fn append(&self, line: &str) -> io::Result<()> {
        match self {
            Self::Output => io::stdout().write_all(line.as_bytes()),
            Self::File(file) => {
                let mut options = OpenOptions::new();
                let options = options.create(true).append(true).mode(0o600);
                options.open(file)?.write_all(line.as_bytes())
            }
        }
    }
}
