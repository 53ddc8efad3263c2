//! One log file, read from somewhere on in pieces of bounded size.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use rustix::fs::OFlags;

use super::super::times::{MarkReader, Marks};
use super::search::{Client, Search};
use crate::job::{LogEnd, LogLines, LogSelection, Unfinished};

/// How much is read at once. Pieces go from thread to thread, and an allocator keeps many of large
/// ones.
const PIECE: usize = 16 * 1024;
/// A longer line is broken into several, or cut if only the last lines are asked for.
pub const LONGEST_LINE: usize = 256 * 1024;
/// How long a follower waits for the end of a line before it gives what is there.
const PATIENCE: Duration = Duration::from_millis(500);

/// Opens a log. What is in its place is not a file if the job has put something else there.
///
/// # Errors
///
/// When there is none.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = options.open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("the log is not a regular file")),
    }
}

/// One log, read from somewhere on.
pub struct OpenLog {
    file: File,
    /// Only where the times of lines are asked for.
    marks: Option<MarkReader>,
    /// What was read and not given yet.
    pending: BytesMut,
    /// Where in the file that begins.
    offset: u64,
    /// How much of the line at `offset` was given before its end was there.
    begun: usize,
    /// Long lines that begin before this offset are cut, those behind it broken.
    cut_before: u64,
    /// How to return a line without an end, or `None` while it must be held back.
    unfinished: Option<Unfinished>,
    /// Since when a line waits for its end.
    waiting_since: Option<Instant>,
    /// The time of the previous line and its text. Many lines have the same.
    time: (Timestamp, String),
}

/// How the next line ends.
enum LineEnd {
    /// The line is complete. Contains the number of bytes before the newline.
    Newline(usize),
    /// The line is too long. Contains the number of bytes to return next.
    TooLong(usize),
    NotYet,
}

impl OpenLog {
    /// # Errors
    ///
    /// When the log cannot be read, or the client has gone.
    pub fn open(path: &Path, selection: &LogSelection, client: &Client) -> io::Result<Self> {
        let file = open(path)?;
        let length = file.metadata()?.len();
        let mut search = Search::new(&file, client);
        let since = match selection.since {
            Some(since) => search.line_start(Marks::of(path).end_before(since).min(length))?,
            None => 0,
        };
        let tail = match selection.tail {
            Some(lines) => search.start_of_last(lines, length)?,
            None => 0,
        };
        let offset = match since.max(tail) {
            0 => search.first_line(length)?,
            offset => offset,
        };
        let timed = selection.lines == LogLines::WithTime;
        Ok(Self {
            file,
            marks: timed.then(|| Marks::of(path).from(offset)),
            pending: BytesMut::new(),
            offset,
            begun: 0,
            cut_before: selection.tail.map_or(0, |_| length),
            unfinished: match selection.end {
                LogEnd::Now => None,
                LogEnd::WithJob => Some(selection.unfinished),
            },
            waiting_since: None,
            time: (Timestamp::UNIX_EPOCH, prefix(Timestamp::UNIX_EPOCH)),
        })
    }

    /// The next lines that are there.
    ///
    /// # Errors
    ///
    /// When the log cannot be read, or the client has gone.
    pub fn read(&mut self, client: &Client) -> io::Result<Bytes> {
        loop {
            let given = self.whole_lines(client)?;
            if !given.is_empty() {
                self.waiting_since = None;
                return Ok(given);
            }
            let held = self.pending.len();
            if held > LONGEST_LINE + PIECE {
                return Ok(Bytes::new());
            }
            let at = self.offset + held as u64;
            self.pending.resize(held + PIECE, 0);
            let read = self.file.read_at(&mut self.pending[held..], at)?;
            self.pending.truncate(held + read);
            if read == 0 {
                return Ok(self.late());
            }
        }
    }

    /// What is left at the end of a log: a last line without its end, and lines that were not
    /// marked because their shim was killed.
    ///
    /// # Errors
    ///
    /// When the log cannot be looked at.
    pub fn rest(&mut self) -> io::Result<Bytes> {
        let rest = self.pending.split();
        self.offset += rest.len() as u64;
        let is_open = std::mem::take(&mut self.begun) > 0;
        if self.marks.is_none() || is_open || rest.is_empty() {
            return Ok(ended(rest, is_open));
        }
        let written = Timestamp::try_from(self.file.metadata()?.modified()?).unwrap_or_default();
        let written = prefix(written);
        let mut timed = BytesMut::new();
        for line in rest.split_inclusive(|byte| *byte == b'\n') {
            timed.extend_from_slice(written.as_bytes());
            timed.extend_from_slice(line);
        }
        Ok(ended(timed, is_open))
    }

    fn whole_lines(&mut self, client: &Client) -> io::Result<Bytes> {
        match self.marks {
            None => self.plain_lines(client),
            Some(_) => self.timed_lines(client),
        }
    }

    fn line_end(&self) -> LineEnd {
        let room = LONGEST_LINE.saturating_sub(self.begun);
        let within = &self.pending[..self.pending.len().min(room + 1)];
        match memchr::memchr(b'\n', within) {
            Some(end) => LineEnd::Newline(end + 1),
            None if within.len() > room => LineEnd::TooLong(room),
            None => LineEnd::NotYet,
        }
    }

    fn plain_lines(&mut self, client: &Client) -> io::Result<Bytes> {
        match self.line_end() {
            LineEnd::NotYet => Ok(Bytes::new()),
            LineEnd::TooLong(room) => Ok(self.long_line(room, client)?.freeze()),
            LineEnd::Newline(first) => {
                let last = memchr::memrchr(b'\n', &self.pending).map_or(first, |last| last + 1);
                self.begun = 0;
                Ok(self.take(last).freeze())
            }
        }
    }

    /// The lines whose times are known by now.
    fn timed_lines(&mut self, client: &Client) -> io::Result<Bytes> {
        let mut timed = BytesMut::with_capacity(2 * PIECE);
        while timed.len() < PIECE {
            let end = self.line_end();
            if matches!(end, LineEnd::NotYet) || !self.begin_line(&mut timed) {
                break;
            }
            let line = match end {
                LineEnd::TooLong(room) => self.long_line(room, client)?,
                LineEnd::Newline(length) => self.take(length),
                LineEnd::NotYet => break,
            };
            self.begun = 0;
            timed.extend_from_slice(&line);
        }
        Ok(timed.freeze())
    }

    /// Writes the time at which the next line was begun, unless its beginning was given already.
    fn begin_line(&mut self, timed: &mut BytesMut) -> bool {
        let Some(marks) = self.marks.as_mut().filter(|_| self.begun == 0) else {
            return true;
        };
        let Some(time) = marks.time_of(self.offset + 1) else {
            return false;
        };
        if self.time.0 != time {
            self.time = (time, prefix(time));
        }
        timed.extend_from_slice(self.time.1.as_bytes());
        true
    }

    /// The part of a line that is given, with an end of its own; the rest is a further line or,
    /// where only the last lines are asked for, left out.
    fn long_line(&mut self, room: usize, client: &Client) -> io::Result<BytesMut> {
        let mut line = self.take(room);
        line.extend_from_slice(b"\n");
        self.begun = 0;
        if self.offset < self.cut_before {
            let mut search = Search::new(&self.file, client);
            self.offset = search.next_line(self.offset, self.cut_before)?;
            self.pending.clear();
        }
        Ok(line)
    }

    /// What is there of a line whose end does not come: progress bars are rewritten for minutes.
    fn late(&mut self) -> Bytes {
        let Some(unfinished) = self.unfinished.filter(|_| !self.pending.is_empty()) else {
            return Bytes::new();
        };
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let room = LONGEST_LINE.saturating_sub(self.begun + 1);
        let length = self.pending.len().min(room);
        let mut given = BytesMut::new();
        if since.elapsed() < PATIENCE || length == 0 || !self.begin_line(&mut given) {
            return Bytes::new();
        }
        self.waiting_since = None;
        given.extend_from_slice(&self.take(length));
        match unfinished {
            Unfinished::Continued => self.begun += length,
            Unfinished::Split => given.extend_from_slice(b"\n"),
        }
        given.freeze()
    }

    fn take(&mut self, length: usize) -> BytesMut {
        self.offset += length as u64;
        self.pending.split_to(length)
    }
}

/// What a line with its time starts with.
fn prefix(time: Timestamp) -> String {
    format!("{time:.6} ")
}

/// Lines of which the last may lack its end.
fn ended(mut lines: BytesMut, is_open: bool) -> Bytes {
    let lacks_end = match lines.last() {
        Some(last) => *last != b'\n',
        None => is_open,
    };
    if lacks_end {
        lines.extend_from_slice(b"\n");
    }
    lines.freeze()
}
