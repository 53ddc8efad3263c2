//! Reads the progress of the jobs for as long as somebody follows the feed: one reader for all
//! clients, and one log at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{Feed, uid};
use crate::cluster::{Cluster, progress};
use crate::job::{JobState, ObservedJob};

/// The shortest time between two reads of the logs of all jobs.
const ROUND: Duration = Duration::from_secs(2);
/// The time between two reads of a log: at most 20 a second, however many jobs there are.
const READ: Duration = Duration::from_millis(50);
/// Most jobs whose logs are read after their end, the newest first.
const MAX_ENDED: usize = 200;

pub(super) async fn read(feed: Arc<Feed>, cluster: Arc<dyn Cluster>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reads = interval(READ);
    reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Jobs that have ended and were read since.
    let mut ended = BTreeSet::new();
    loop {
        rounds.tick().await;
        if !feed.wants_progress() {
            return;
        }
        // Where the jobs are not known, the next round may know them.
        let jobs = cluster.list().unwrap_or_default();
        feed.keep_progress_of(&jobs);
        for job in due(jobs, &mut ended) {
            reads.tick().await;
            if let Some(progress) = progress(cluster.as_ref(), &job).await {
                feed.progressed(&job, progress);
            }
        }
    }
}

/// The jobs to read: those that run, and once more each that has ended.
fn due(jobs: Vec<Arc<ObservedJob>>, ended: &mut BTreeSet<String>) -> Vec<Arc<ObservedJob>> {
    let (mut running, mut done) = (Vec::new(), Vec::new());
    for job in jobs {
        match JobState::of(&job) {
            JobState::Submitted => {}
            JobState::Running => running.push(job),
            JobState::Succeeded | JobState::Failed => done.push(job),
        }
    }
    done.sort_by_key(|job| std::cmp::Reverse(created(job)));
    done.truncate(MAX_ENDED);
    let there: BTreeSet<String> = done.iter().map(|job| uid(job).to_string()).collect();
    ended.retain(|uid| there.contains(uid));
    running.extend(
        done.into_iter()
            .filter(|job| ended.insert(uid(job).to_string())),
    );
    running
}

fn created(job: &ObservedJob) -> Option<jiff::Timestamp> {
    let created = job.metadata.creation_timestamp.as_ref();
    created.map(|time| time.0)
}
