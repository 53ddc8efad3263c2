//! Converts errors of other modules to problems.

use super::{Problem, chain};
use crate::cluster::ClusterError;
use crate::finding::{Code, Finding, Kind, MAX_FINDINGS};
use crate::job::BadKey;
use crate::plugin::{CallError, PlanError, RollbackError};
use crate::request::NamespaceNotAllowed;
use crate::request::size::json_bytes;

/// The maximum size of the findings in a response, in bytes. `detail` repeats their messages, so
/// the document is at most twice as large.
const MAX_ERRORS_BYTES: usize = 100 * 1024;

/// How many of the findings fit into a response.
fn listed(errors: &[Finding]) -> usize {
    let mut bytes = 0;
    let fits = |error: &&Finding| {
        bytes += json_bytes(error);
        bytes <= MAX_ERRORS_BYTES
    };
    errors.iter().take(MAX_FINDINGS).take_while(fits).count()
}

/// The findings about a request, all at once.
impl From<Vec<Finding>> for Problem {
    fn from(mut errors: Vec<Finding>) -> Self {
        let found = errors.len();
        errors.truncate(listed(&errors));
        let details: Vec<&str> = errors
            .iter()
            .map(|finding| finding.detail.as_str())
            .collect();
        let mut detail = details.join("; ");
        if errors.len() < found {
            let count = errors.len();
            detail.push_str(&format!("; only the first {count} findings are listed"));
        }
        Self {
            errors,
            detail,
            ..Self::new(Kind::InvalidRequest, "")
        }
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        let cause = chain(&error);
        match error {
            PlanError::Refused(findings) => findings.into(),
            PlanError::Failed { plugin, error } => {
                let what = match error {
                    CallError::Time { .. } | CallError::Schema { .. } => "took too long",
                    CallError::Stack { .. } | CallError::Exceeded(_) => "used too much memory",
                    CallError::Trap { .. } | CallError::Raised { .. } | CallError::Lost => {
                        "crashed"
                    }
                    CallError::Answer { .. } | CallError::Nonsense(_) => {
                        "returned an invalid response"
                    }
                };
                // A limit is not secret, and the caller can ask the operator to raise it.
                let limit = match error.is_a_limit() {
                    true => format!(": {error}"),
                    false => String::new(),
                };
                let detail = format!(
                    "the plugin of framework {} {what}{limit}; the request itself appears to be \
                     valid",
                    plugin.name
                );
                Self::new(Kind::PluginFailed, detail).because(cause)
            }
            PlanError::Resting { wait, .. } => {
                let seconds = wait.as_secs() + 1;
                Self::new(Kind::PluginResting, cause)
                    .with_header("retry-after", seconds.to_string())
            }
            PlanError::Busy { .. } | PlanError::Suspect { .. } => {
                let detail = format!("too many requests at once: {cause}; try again in a second");
                Self::new(Kind::Busy, detail)
                    .with_header("retry-after", "1")
                    .because(cause)
            }
        }
    }
}

impl From<RollbackError> for Problem {
    fn from(error: RollbackError) -> Self {
        let kind = match error {
            RollbackError::NotLoaded(_) => Kind::NoSuchFramework,
            RollbackError::NoEarlierVersion(_) | RollbackError::NameTaken(_) => {
                Kind::NoEarlierVersion
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ClusterError> for Problem {
    fn from(error: ClusterError) -> Self {
        let detail = error.to_string();
        match error {
            ClusterError::AlreadyExists { .. } => Self::new(Kind::NameTaken, detail),
            ClusterError::KeyTaken { job } => Self::key_reused(&job),
            ClusterError::PrefixTaken { .. } => Self::new(Kind::PrefixTaken, detail),
            ClusterError::HasCheckpoints { .. } => Self::new(Kind::HasCheckpoints, detail),
            ClusterError::NotFound { .. } | ClusterError::Elsewhere { .. } => {
                Self::new(Kind::NoSuchJob, detail)
            }
            ClusterError::NoLog { .. } => Self::new(Kind::NoLog, detail),
            ClusterError::Ambiguous { .. } => Self::new(Kind::AmbiguousJob, detail),
            ClusterError::Ended { .. } => Self::new(Kind::JobEnded, detail),
            ClusterError::MissingInput { pointer, .. } => {
                vec![Finding::new(Code::NoSuchFile, pointer, detail)].into()
            }
            ClusterError::MissingSecret { .. } => {
                vec![Finding::new(Code::Secret, "/env", detail)].into()
            }
            ClusterError::NoSuchNamespace { .. } => {
                vec![Finding::new(Code::NoSuchNamespace, "/namespace", detail)].into()
            }
            ClusterError::NoRuntime { .. } => {
                Self::new(Kind::ClusterUnavailable, detail).with_header("retry-after", "60")
            }
            ClusterError::Refused { .. } => Self::new(Kind::NotAdmitted, detail),
            ClusterError::Forbidden { .. } => {
                let detail = "this service is missing permissions in the cluster; ask its operator \
                              to grant them (the cause is in its log)";
                Self::new(Kind::ClusterUnavailable, detail)
                    .with_header("retry-after", "60")
                    .because(chain(&error))
            }
            ClusterError::Unavailable { .. } => {
                let detail = "the cluster cannot be reached or is too busy; try again in a moment";
                Self::new(Kind::ClusterUnavailable, detail)
                    .with_header("retry-after", "5")
                    .because(chain(&error))
            }
            ClusterError::TimedOut { .. } => {
                let detail = "the cluster did not respond in time; the operation may still take \
                              effect, so check the job before trying again";
                Self::new(Kind::ClusterTimeout, detail).because(chain(&error))
            }
            ClusterError::NotStored { .. } => {
                let detail = "the service cannot write to its data folder, so nothing was changed; \
                              try again when the disk has free space";
                Self::new(Kind::ClusterUnavailable, detail)
                    .with_header("retry-after", "5")
                    .because(chain(&error))
            }
            ClusterError::Internal { .. } => Self::internal(error),
        }
    }
}

impl From<BadKey> for Problem {
    fn from(bad: BadKey) -> Self {
        vec![Finding::new(Code::IdempotencyKey, "", bad.to_string())].into()
    }
}

impl From<NamespaceNotAllowed> for Problem {
    fn from(refused: NamespaceNotAllowed) -> Self {
        Self::new(Kind::NamespaceNotAllowed, refused.to_string())
    }
}
