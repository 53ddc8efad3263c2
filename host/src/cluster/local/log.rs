//! The logs of a local replica: `0.log`, `1.log`, ..., one for each start of it, read piece by
//! piece, so that a log of any length takes no memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::times::{MarkReader, Marks};
use crate::cluster::{ClusterError, LogStream, Sight};
use crate::job::{LogEnd, LogLines, LogSelection, LogStart};

/// How much is read and given at once. Pieces go from thread to thread, and of large ones an
/// allocator keeps many.
const PIECE: usize = 16 * 1024;
/// A line that is longer is broken into several.
const LONGEST_LINE: usize = 256 * 1024;
/// How soon a follower sees a new line.
const AGAIN: Duration = Duration::from_millis(100);

/// Opens the log of the replica whose folder this is.
///
/// # Errors
///
/// [`ClusterError::NoLog`] when there is none and it is not to be waited for.
pub async fn open(
    folder: PathBuf,
    replica: &str,
    selection: &LogSelection,
    sight: Sight,
) -> Result<LogStream, ClusterError> {
    let selection = selection.clone();
    let no_log = ClusterError::NoLog {
        replica: replica.to_string(),
        start: selection.start,
    };
    let opened = tokio::task::spawn_blocking(move || Follower::open(folder, selection, sight));
    let internal = |error| ClusterError::internal("opening a log", error);
    let opened = opened.await.map_err(|error| internal(error.into()))?;
    let follower = opened.map_err(internal)?;
    if follower.log.is_none() && follower.selection.end == LogEnd::Now {
        return Err(no_log);
    }
    Ok(stream::try_unfold(follower, Follower::next).boxed())
}

/// Reads the logs of a replica.
struct Follower {
    folder: PathBuf,
    /// The start of the replica whose log is read.
    number: u32,
    /// None as long as the replica has not been started.
    log: Option<OpenLog>,
    selection: LogSelection,
    sight: Sight,
    /// That nothing can come into this log any more, seen before its end was last read.
    over: Option<Over>,
}

/// Why nothing more can come into a log.
#[derive(Clone, Copy)]
enum Over {
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
    fn open(folder: PathBuf, selection: LogSelection, sight: Sight) -> std::io::Result<Self> {
        let starts = (0..).take_while(|number| path(&folder, *number).exists());
        let starts = u32::try_from(starts.count()).unwrap_or(u32::MAX);
        let number = match selection.start {
            LogStart::Latest => starts.checked_sub(1),
            LogStart::Previous => starts.checked_sub(2),
        };
        let log = number.map(|number| OpenLog::open(&path(&folder, number), &selection));
        Ok(Self {
            folder,
            number: number.unwrap_or(0),
            log: log.transpose()?,
            selection,
            sight,
            over: None,
        })
    }

    /// The next lines, as soon as there are some; nothing at the end.
    async fn next(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        loop {
            let stepped = tokio::task::spawn_blocking(move || {
                let step = self.step();
                (step, self)
            });
            let step;
            (step, self) = stepped.await?;
            match step? {
                Step::Lines(lines) => return Ok(Some((lines, self))),
                Step::NotYet => tokio::time::sleep(AGAIN).await,
                Step::End => return Ok(None),
            }
        }
    }

    fn step(&mut self) -> std::io::Result<Step> {
        if let Some(log) = &mut self.log {
            let lines = log.read(self.selection.lines)?;
            if !lines.is_empty() {
                return Ok(Step::Lines(lines));
            }
        }
        let over = match self.selection.end {
            LogEnd::Now => Some(Over::Ended),
            LogEnd::WithJob => self.over,
        };
        let Some(over) = over else {
            // What is written before this is seen is read once more.
            self.over = self.is_over();
            return match self.over {
                Some(_) => self.step(),
                None => Ok(Step::NotYet),
            };
        };
        self.go_on(over)
    }

    /// Gives what is left of a log that is over, then turns to the next one.
    fn go_on(&mut self, over: Over) -> std::io::Result<Step> {
        if let Some(log) = &mut self.log {
            let rest = log.rest(self.selection.lines)?;
            if !rest.is_empty() {
                return Ok(Step::Lines(rest));
            }
        }
        let next = match (over, &self.log) {
            (Over::Ended, _) => return Ok(Step::End),
            (Over::Restarted, None) => self.number,
            (Over::Restarted, Some(_)) => self.number + 1,
        };
        let whole = LogSelection {
            tail: None,
            ..self.selection.clone()
        };
        self.log = Some(OpenLog::open(&path(&self.folder, next), &whole)?);
        self.number = next;
        self.over = None;
        self.step()
    }

    fn is_over(&self) -> Option<Over> {
        let next = self.number + u32::from(self.log.is_some());
        if path(&self.folder, next).exists() {
            return Some(Over::Restarted);
        }
        let job = self.sight.borrow().clone();
        let job_is_over = job.is_none_or(|job| job.status.has_ended());
        (job_is_over && !self.is_kept()).then_some(Over::Ended)
    }

    /// Whether a keeper stands by the replica, which may write for as long as it is given to end.
    fn is_kept(&self) -> bool {
        let lock = File::open(self.folder.join("lock"));
        lock.is_ok_and(|lock| lock.try_lock_shared().is_err())
    }
}

fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.log"))
}

/// One log, read from somewhere on.
struct OpenLog {
    file: File,
    marks: MarkReader,
    /// What was read and not given yet.
    pending: BytesMut,
    /// Where in the file that begins.
    offset: u64,
}

impl OpenLog {
    fn open(path: &Path, selection: &LogSelection) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let mut marks = Marks::of(path);
        let since = match selection.since {
            Some(since) => line_start(&file, marks.end_before(since))?,
            None => 0,
        };
        let tail = match selection.tail {
            Some(lines) => start_of_last(&file, lines)?,
            None => 0,
        };
        let offset = since.max(tail);
        Ok(Self {
            file,
            marks: marks.from(offset),
            pending: BytesMut::new(),
            offset,
        })
    }

    /// The next whole lines that are there.
    fn read(&mut self, lines: LogLines) -> std::io::Result<Bytes> {
        loop {
            let given = self.whole_lines(lines);
            if !given.is_empty() {
                return Ok(given);
            }
            let at = self.offset + self.pending.len() as u64;
            let held = self.pending.len();
            if held > LONGEST_LINE + PIECE {
                return Ok(Bytes::new());
            }
            self.pending.resize(held + PIECE, 0);
            let read = self.file.read_at(&mut self.pending[held..], at)?;
            self.pending.truncate(held + read);
            if read == 0 {
                return Ok(Bytes::new());
            }
        }
    }

    fn whole_lines(&mut self, lines: LogLines) -> Bytes {
        match lines {
            LogLines::Plain => self.plain_lines(),
            LogLines::WithTime => self.timed_lines(),
        }
    }

    fn plain_lines(&mut self) -> Bytes {
        match memchr::memrchr(b'\n', &self.pending) {
            Some(last) => self.take(last + 1).freeze(),
            None if self.pending.len() >= LONGEST_LINE => broken(self.take(LONGEST_LINE)),
            None => Bytes::new(),
        }
    }

    /// The lines whose times are known by now.
    fn timed_lines(&mut self) -> Bytes {
        let mut timed = BytesMut::with_capacity(2 * PIECE);
        while timed.len() < PIECE {
            let length = match memchr::memchr(b'\n', &self.pending) {
                Some(end) => end + 1,
                None if self.pending.len() >= LONGEST_LINE => LONGEST_LINE,
                None => return timed.freeze(),
            };
            let Some(time) = self.marks.time_of(self.offset + length as u64) else {
                return timed.freeze();
            };
            let line = self.take(length);
            write_timed(&mut timed, time, &line);
        }
        timed.freeze()
    }

    /// What is left at the end of a log: a last line without its end, and lines that were not
    /// marked because their keeper was killed.
    fn rest(&mut self, lines: LogLines) -> std::io::Result<Bytes> {
        let rest = self.pending.split();
        self.offset += rest.len() as u64;
        if lines == LogLines::Plain || rest.is_empty() {
            return Ok(broken(rest));
        }
        let written = Timestamp::try_from(self.file.metadata()?.modified()?).unwrap_or_default();
        let mut timed = BytesMut::new();
        for line in rest.split_inclusive(|byte| *byte == b'\n') {
            write_timed(&mut timed, written, line);
        }
        Ok(timed.freeze())
    }

    fn take(&mut self, length: usize) -> BytesMut {
        self.offset += length as u64;
        self.pending.split_to(length)
    }
}

fn write_timed(lines: &mut BytesMut, time: Timestamp, line: &[u8]) {
    lines.extend_from_slice(format!("{time:.6} ").as_bytes());
    lines.extend_from_slice(line);
    if !line.ends_with(b"\n") {
        lines.extend_from_slice(b"\n");
    }
}

/// A line that has no end of its own.
fn broken(mut line: BytesMut) -> Bytes {
    if !line.is_empty() && !line.ends_with(b"\n") {
        line.extend_from_slice(b"\n");
    }
    line.freeze()
}

/// The start of the line that an offset is in.
fn line_start(file: &File, offset: u64) -> std::io::Result<u64> {
    let mut start = offset;
    backwards(file, offset, |at| {
        start = at + 1;
        Search::Found
    })
    .map(|search| match search {
        Search::Found => start,
        Search::GoOn => 0,
    })
}

/// Where the last so many lines begin.
fn start_of_last(file: &File, lines: u64) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    let mut last = [0];
    let ends_with_line =
        length > 0 && file.read_at(&mut last, length - 1)? == 1 && last[0] == b'\n';
    // The end of the last line begins none.
    let mut left = lines + u64::from(ends_with_line);
    if left == 0 {
        return Ok(length);
    }
    let mut start = 0;
    backwards(file, length, |at| {
        left -= 1;
        start = at + 1;
        match left {
            0 => Search::Found,
            _ => Search::GoOn,
        }
    })
    .map(|search| match search {
        Search::Found => start,
        Search::GoOn => 0,
    })
}

/// Whether a search goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    Found,
    GoOn,
}

/// Tells the ends of lines before an offset, the last one first.
fn backwards(
    file: &File,
    offset: u64,
    mut look: impl FnMut(u64) -> Search,
) -> std::io::Result<Search> {
    let mut piece = vec![0; PIECE];
    let mut end = offset;
    while end > 0 {
        let length = end.min(PIECE as u64);
        end -= length;
        let length = usize::try_from(length).unwrap_or(PIECE);
        file.read_exact_at(&mut piece[..length], end)?;
        for at in memchr::memrchr_iter(b'\n', &piece[..length]) {
            if look(end + at as u64) == Search::Found {
                return Ok(Search::Found);
            }
        }
    }
    Ok(Search::GoOn)
}
