//! The logs of a local replica: `0.log`, `1.log`, ..., one for each start of it, read piece by
//! piece, so that a log of any length takes no memory.

mod file;
mod search;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;

use crate::cluster::{ClusterError, JobWatch, LogStream};
use crate::job::{LogEnd, LogSelection, LogStart, Mask};
use file::OpenLog;
pub use file::open as open_file;
use search::Client;

/// How soon a follower sees a new line.
const AGAIN: Duration = Duration::from_millis(100);
/// How many logs are read at the same moment. Threads that wait for a disk are shared with the
/// store of jobs, which must not wait for logs.
const CONCURRENT_READS: usize = 8;

/// Opens logs.
#[derive(Debug)]
pub struct Logs {
    reads: Arc<Semaphore>,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            reads: Arc::new(Semaphore::new(CONCURRENT_READS)),
        }
    }
}

impl Logs {
    /// Opens the log of the replica whose folder this is.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoLog`] when there is none and it is not to be waited for.
    pub async fn open(
        &self,
        folder: PathBuf,
        replica: &str,
        selection: &LogSelection,
        watch: JobWatch,
    ) -> Result<LogStream, ClusterError> {
        let selection = selection.clone();
        let no_log = ClusterError::NoLog {
            replica: replica.to_string(),
            start: selection.start,
        };
        let reads = self.reads.clone();
        let opened = read(self.reads.clone(), move |client| {
            Follower::open(folder, selection, watch, reads, client)
        });
        let follower = opened
            .await
            .map_err(|error| ClusterError::internal("opening a log", error))?;
        if follower.log.is_none() && follower.selection.end == LogEnd::Now {
            return Err(no_log);
        }
        Ok(stream::try_unfold(follower, Follower::next).boxed())
    }
}

/// A log without the values of secrets.
pub fn masked(log: LogStream, mask: Mask) -> LogStream {
    if mask.is_empty() {
        return log;
    }
    let pieces = stream::unfold((log, Some(mask)), |(mut log, mut mask)| async move {
        loop {
            match log.next().await {
                Some(Ok(piece)) => {
                    let piece = mask.as_mut()?.push(&piece);
                    // What can be the beginning of a value waits for the rest.
                    if !piece.is_empty() {
                        return Some((Ok(Bytes::from(piece)), (log, mask)));
                    }
                }
                Some(Err(error)) => return Some((Err(error), (log, mask))),
                None => {
                    let rest = mask.take()?.finish();
                    return (!rest.is_empty()).then(|| (Ok(Bytes::from(rest)), (log, None)));
                }
            }
        }
    });
    pieces.boxed()
}

/// Does a piece of blocking work when it is its turn, for as long as the client waits.
async fn read<T: Send + 'static>(
    reads: Arc<Semaphore>,
    work: impl FnOnce(&Client) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let turn = reads.acquire_owned().await.map_err(io::Error::other)?;
    let (client, _waiting) = Client::new();
    let work = move || {
        // Not when the future is dropped: the work may take a moment longer.
        let _turn = turn;
        client.check()?;
        work(&client)
    };
    tokio::task::spawn_blocking(work).await?
}

/// Reads the logs of a replica.
struct Follower {
    folder: PathBuf,
    /// The start of the replica whose log is read.
    number: u32,
    /// None as long as the replica has not been started.
    log: Option<OpenLog>,
    selection: LogSelection,
    watch: JobWatch,
    reads: Arc<Semaphore>,
    /// Set once the log has ended. It is checked before each read of the end of the log.
    over: Option<LogEnded>,
}

/// Why nothing more can come into a log.
#[derive(Clone, Copy)]
enum LogEnded {
    /// The replica was started again.
    Restarted,
    Ended,
}

/// What reading on has given.
enum Step {
    Lines(Bytes),
    NotYet,
    End,
}

impl Follower {
    fn open(
        folder: PathBuf,
        selection: LogSelection,
        watch: JobWatch,
        reads: Arc<Semaphore>,
        client: &Client,
    ) -> io::Result<Self> {
        let starts = (0..).take_while(|number| path(&folder, *number).exists());
        let starts = u32::try_from(starts.count()).unwrap_or(u32::MAX);
        let number = match selection.start {
            LogStart::First => starts.checked_sub(1).map(|_| 0),
            LogStart::Latest => starts.checked_sub(1),
            LogStart::Previous => starts.checked_sub(2),
        };
        let log = number.map(|number| OpenLog::open(&path(&folder, number), &selection, client));
        Ok(Self {
            folder,
            number: number.unwrap_or(0),
            log: log.transpose()?,
            selection,
            watch,
            reads,
            over: None,
        })
    }

    /// The next lines, as soon as there are some; nothing at the end.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        loop {
            let step;
            (step, self) = read(self.reads.clone(), move |client| {
                let step = self.step(client)?;
                Ok((step, self))
            })
            .await?;
            match step {
                Step::Lines(lines) => return Ok(Some((lines, self))),
                Step::NotYet => tokio::time::sleep(AGAIN).await,
                Step::End => return Ok(None),
            }
        }
    }

    fn step(&mut self, client: &Client) -> io::Result<Step> {
        if let Some(log) = &mut self.log {
            let lines = log.read(client)?;
            if !lines.is_empty() {
                return Ok(Step::Lines(lines));
            }
        }
        let over = match self.selection.end {
            LogEnd::Now if self.has_later_log() => Some(LogEnded::Restarted),
            LogEnd::Now => Some(LogEnded::Ended),
            LogEnd::WithJob => self.over,
        };
        let Some(over) = over else {
            // What is written before this is seen is read once more.
            self.over = self.is_over();
            return match self.over {
                Some(_) => self.step(client),
                None => Ok(Step::NotYet),
            };
        };
        self.go_on(over, client)
    }

    /// Gives what is left of a log that is over, then turns to the next one.
    fn go_on(&mut self, over: LogEnded, client: &Client) -> io::Result<Step> {
        if let Some(log) = &mut self.log {
            let rest = log.rest()?;
            if !rest.is_empty() {
                return Ok(Step::Lines(rest));
            }
        }
        let next = match (over, &self.log) {
            (LogEnded::Ended, _) => return Ok(Step::End),
            (LogEnded::Restarted, None) => self.number,
            (LogEnded::Restarted, Some(_)) => self.number + 1,
        };
        let whole = LogSelection {
            tail: None,
            ..self.selection.clone()
        };
        self.log = Some(OpenLog::open(&path(&self.folder, next), &whole, client)?);
        self.number = next;
        self.over = None;
        self.step(client)
    }

    /// Whether the log of a later start is to be read after this one.
    fn has_later_log(&self) -> bool {
        self.selection.start == LogStart::First && path(&self.folder, self.number + 1).exists()
    }

    fn is_over(&self) -> Option<LogEnded> {
        let next = self.number + u32::from(self.log.is_some());
        if path(&self.folder, next).exists() {
            return Some(LogEnded::Restarted);
        }
        let job = self.watch.borrow().clone();
        let job_is_over = job.is_none_or(|job| job.status.has_ended());
        (job_is_over && !self.is_kept()).then_some(LogEnded::Ended)
    }

    /// Whether a shim stands by the replica, which may write for as long as it is given to end.
    fn is_kept(&self) -> bool {
        let lock = File::open(self.folder.join("lock"));
        lock.is_ok_and(|lock| lock.try_lock_shared().is_err())
    }
}

fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.log"))
}
