//! Opens the log of a replica from the attempt that a selection names.

use futures_util::StreamExt;

use super::{Replica, open};
use crate::cluster::kubernetes::calls::Calls;
use crate::cluster::kubernetes::owner::Controller;
use crate::cluster::{ClusterError, JobWatch, LogStream};
use crate::job::{LogSelection, LogStart, ObservedJob};

/// Opens the log of a replica. A kubelet keeps the log of one earlier attempt, with which the first
/// log starts.
///
/// # Errors
///
/// [`ClusterError::NoLog`] when there is none and it is not to be waited for.
pub(in crate::cluster::kubernetes) async fn open_from(
    calls: &Calls,
    job: &ObservedJob,
    replica: &str,
    selection: &LogSelection,
    watch: JobWatch,
) -> Result<LogStream, ClusterError> {
    let open = |start| {
        let replica = Replica {
            job: Controller::of(job),
            name: replica.to_string(),
        };
        open(
            calls.clone(),
            replica,
            selection.starting_at(start),
            watch.clone(),
        )
    };
    if selection.start != LogStart::First {
        return open(selection.start).await;
    }
    match open(LogStart::Previous).await {
        Ok(previous) => Ok(previous.chain(open(LogStart::Latest).await?).boxed()),
        Err(ClusterError::NoLog { .. }) => open(LogStart::Latest).await,
        Err(error) => Err(error),
    }
}
