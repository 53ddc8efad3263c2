//! Which kinds of jobs the cluster has, and which one this service creates.
//!
//! The service reads all kinds that the API server serves and that it may list, so that jobs remain
//! usable after an operator has moved from one kind to the other.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::{info, warn};

use super::cache::Scope;
use super::calls::Calls;
use super::error::CallError;
use crate::job_kind::JobKind;

/// The delay before the next request to the API server.
const AGAIN: Duration = Duration::from_secs(1);

/// The kinds of a cluster. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Kinds {
    setting: Option<JobKind>,
    known: Arc<OnceLock<KnownKinds>>,
}

#[derive(Clone, Debug)]
struct KnownKinds {
    created: JobKind,
    /// The kinds that are read, the created one first.
    read: Vec<JobKind>,
}

/// Why it is not known yet which kind to create.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecided {
    #[error("cannot read which kinds of jobs the cluster has")]
    Unread(#[from] CallError),
    #[error(
        "the cluster has neither PyTorchJobs nor TrainJobs; install the Kubeflow training operator \
         or Kubeflow Trainer"
    )]
    Neither,
}

impl Kinds {
    /// `setting` is the kind to create. Without one, it depends on what the API server serves.
    pub(super) fn new(setting: Option<JobKind>) -> Self {
        Self {
            setting,
            known: Arc::default(),
        }
    }

    /// The kind that this service creates, unless it is not known yet.
    pub(super) fn created(&self) -> Option<JobKind> {
        self.setting
            .or_else(|| self.known.get().map(|known| known.created))
    }

    /// The kinds in which a job may exist, the most probable one first.
    pub(super) fn read(&self) -> Vec<JobKind> {
        match self.known.get() {
            Some(known) => known.read.clone(),
            None => self
                .setting
                .map_or(vec![JobKind::default()], |kind| vec![kind]),
        }
    }

    /// Waits until the kinds are known. `waits` gets why they are not yet.
    pub(super) async fn find(&self, calls: &Calls, scopes: &[Scope], waits: impl Fn(&Undecided)) {
        let mut was_told = false;
        loop {
            match self.found(calls, scopes).await {
                Ok(known) => {
                    let created = known.created.name();
                    let read: Vec<&str> = known.read.iter().map(|kind| kind.name()).collect();
                    info!(created, read = read.join(", "), "kinds of jobs");
                    let _ = self.known.set(known);
                    return;
                }
                Err(undecided) => {
                    if !std::mem::replace(&mut was_told, true) {
                        let cause = &undecided as &dyn std::error::Error;
                        warn!(cause, "the kinds of jobs are not known yet");
                    }
                    waits(&undecided);
                    drop(undecided);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn found(&self, calls: &Calls, scopes: &[Scope]) -> Result<KnownKinds, Undecided> {
        let mut served = Vec::new();
        for kind in JobKind::ALL {
            if calls.serves(kind).await? {
                served.push(kind);
            }
        }
        let preferred = served.first().copied();
        let created = self.setting.or(preferred).ok_or(Undecided::Neither)?;
        let mut read = vec![created];
        for kind in served.into_iter().filter(|kind| *kind != created) {
            if may_list(calls, kind, scopes).await? {
                read.push(kind);
            } else {
                let kind = kind.name();
                info!(
                    kind,
                    "no permission to list this kind, so its jobs are not visible"
                );
            }
        }
        Ok(KnownKinds { created, read })
    }
}

async fn may_list(calls: &Calls, kind: JobKind, scopes: &[Scope]) -> Result<bool, CallError> {
    for scope in scopes {
        if !calls.may("list", kind, scope.as_deref()).await? {
            return Ok(false);
        }
    }
    Ok(true)
}
