//! Errors of calls to the API server, and their meaning for the caller.

use std::error::Error;
use std::time::Duration;

use kube::core::Status;
use kube::runtime::watcher;

use crate::cluster::ClusterError;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no response within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The API server's response.
    #[error("{} {}: {}", .0.code, .0.reason, .0.message)]
    Status(Box<Status>),
    /// The request was not sent.
    #[error("the API server cannot be reached")]
    NotSent(#[source] kube::Error),
    #[error("the response was interrupted")]
    CutOff(#[source] kube::Error),
    #[error("unexpected response")]
    Nonsense(#[source] serde_json::Error),
    #[error("cannot build the request")]
    NoRequest(#[source] Box<dyn Error + Send + Sync>),
}

impl CallError {
    /// Whether the call certainly had no effect.
    pub(super) fn was_not_processed(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::NoRequest(_) => true,
            Self::Status(status) => (400..500).contains(&status.code),
            Self::TimedOut(_) | Self::CutOff(_) | Self::Nonsense(_) => false,
        }
    }

    /// Whether a retry may succeed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::CutOff(_) => true,
            Self::Status(status) => {
                matches!(status.code, 429 | 502 | 503)
                    || (status.code == 409 && !status.is_already_exists())
            }
            Self::TimedOut(_) | Self::Nonsense(_) | Self::NoRequest(_) => false,
        }
    }

    /// The API server's response, if there was one.
    pub(super) fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    /// The error if the status has no specific meaning for the request. `action` is what was being
    /// done.
    pub(super) fn doing(self, action: &'static str) -> ClusterError {
        let code = self.status().map(|status| status.code);
        let passing = self.is_passing();
        let source = Box::new(self);
        match (code, &*source) {
            (Some(504), _) | (None, Self::TimedOut(_)) => ClusterError::TimedOut { action, source },
            (Some(401 | 403), _) => ClusterError::Forbidden { action, source },
            _ if passing => ClusterError::Unavailable { action, source },
            _ => ClusterError::Internal { action, source },
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Status(status),
            error if is_connect(&error) => Self::NotSent(error),
            error => Self::CutOff(error),
        }
    }
}

impl From<watcher::Error> for CallError {
    fn from(error: watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => error.into(),
            watcher::Error::WatchError(status) => Self::Status(status),
            error @ watcher::Error::NoResourceVersion => Self::NoRequest(error.into()),
        }
    }
}

/// Whether connecting failed, so that nothing was sent.
fn is_connect(error: &kube::Error) -> bool {
    type ClientError = hyper_util::client::legacy::Error;
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(client) = error.downcast_ref::<ClientError>() {
            return client.is_connect();
        }
        cause = error.source();
    }
    false
}
