//! Reads the progress of a job from the end of the log of the replica with rank 0.

use std::time::Duration;

use futures_util::StreamExt;

use super::Cluster;
use crate::job::{
    JobState, LogEnd, LogLines, LogSelection, LogStart, ObservedJob, Progress, Unfinished,
    replica_names,
};

/// The time limit. The response is sent without progress rather than late.
const LONGEST: Duration = Duration::from_millis(300);
/// How many lines to search. Log lines of all processes of a node can be between two progress
/// lines.
const LINES: u64 = 200;
/// The maximum number of bytes to read.
const MOST_BYTES: usize = 1024 * 1024;

/// The newest progress of a job; None if there is none, or it cannot be read in time.
pub async fn progress(cluster: &dyn Cluster, job: &ObservedJob) -> Option<Progress> {
    if JobState::of(job) == JobState::Submitted {
        return None;
    }
    let read = tokio::time::timeout(LONGEST, newest(cluster, job)).await;
    read.ok().flatten()
}

async fn newest(cluster: &dyn Cluster, job: &ObservedJob) -> Option<Progress> {
    let end = LogSelection {
        start: LogStart::Latest,
        end: LogEnd::Now,
        lines: LogLines::Plain,
        tail: Some(LINES),
        since: None,
        unfinished: Unfinished::Continued,
    };
    let replicas = replica_names(job);
    let mut log = cluster.log(job, replicas.first()?, &end).await.ok()?;
    let mut newest = None;
    let mut bytes = 0;
    while let Some(lines) = log.next().await {
        let lines = lines.ok()?;
        bytes += lines.len();
        if bytes > MOST_BYTES {
            return None;
        }
        newest = Progress::newest_in(&lines).or(newest);
    }
    newest
}
