//! Reads the progress of jobs from the end of the log of the replica with rank 0.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Cluster;
use crate::job::{
    JobState, ListedJob, LogEnd, LogLines, LogSelection, LogStart, ObservedJob, Progress,
    Unfinished, replica_names,
};

/// The time limit. The response is sent without progress rather than late.
const LONGEST: Duration = Duration::from_millis(300);
/// The time limit for all jobs of a list.
const LONGEST_OF_LIST: Duration = Duration::from_secs(1);
/// The maximum number of logs of a list that are read at the same time.
const MOST_READS: usize = 8;
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

/// Adds their progress to the jobs of a list that run, as far as it can be read within a second.
pub async fn add_progress(cluster: &dyn Cluster, jobs: &mut [ListedJob]) {
    let running = jobs.iter_mut();
    let running = running.filter(|job| job.summary.status == JobState::Running);
    let reads = stream::iter(running).for_each_concurrent(MOST_READS, |listed| async {
        let found = cluster.get(&listed.namespace, &listed.summary.name).await;
        if let Ok(job) = found {
            listed.progress = progress(cluster, &job).await;
        }
    });
    let _late = tokio::time::timeout(LONGEST_OF_LIST, reads).await;
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
