//! The lines of a stream of the API server, each with its time.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::AsyncBufReadExt;

use super::super::calls::LogReader;
use super::super::resume::time_of;

/// The maximum length of a line. Longer ones are split, or truncated if only the last lines are
/// requested. Kubelets split them earlier.
const LONGEST_LINE: usize = 256 * 1024;
/// How long a partial line is held back from a follower.
const PATIENCE: Duration = Duration::from_millis(500);

/// The lines of a stream.
pub(super) struct Lines {
    stream: LogReader,
    /// Unprocessed bytes, starting at the beginning of a line.
    pending: BytesMut,
    /// How much of that line was returned.
    begun: usize,
    /// Since when the line is incomplete.
    waiting_since: Option<Instant>,
    /// The number of lines to truncate rather than split if they are too long.
    cut: u64,
    /// Whether the rest of the line is being skipped.
    is_skipping: bool,
    /// Whether the end of the stream is the end of the log.
    is_whole: bool,
}

/// Lines, and how many bytes of the first one were already returned.
pub(super) struct Piece {
    pub lines: Bytes,
    pub begun: usize,
}

/// The result of reading once.
pub(super) enum Read {
    Lines(Piece),
    /// No complete line.
    Unfinished,
    End,
}

impl Lines {
    pub(super) fn of(stream: LogReader, cut: u64, is_whole: bool) -> Self {
        Self {
            stream,
            pending: BytesMut::new(),
            begun: 0,
            waiting_since: None,
            cut,
            is_skipping: false,
            is_whole,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether the last line was returned partially.
    pub(super) fn is_begun(&self) -> bool {
        self.begun > 0
    }

    /// How long to wait for the rest of an incomplete line, if there is one.
    pub(super) fn waits_for(&self) -> Option<Duration> {
        let since = self.waiting_since?;
        Some(PATIENCE.saturating_sub(since.elapsed()))
    }

    /// Reads once. Cancellation-safe.
    pub(super) async fn read(&mut self) -> io::Result<Read> {
        if let Some(piece) = self.whole_lines() {
            return Ok(Read::Lines(piece));
        }
        let read = self.stream.fill_buf().await?;
        let length = read.len();
        if length == 0 {
            return Ok(Read::End);
        }
        self.pending.extend_from_slice(read);
        self.stream.consume_unpin(length);
        if let Some(piece) = self.whole_lines() {
            return Ok(Read::Lines(piece));
        }
        if self.pending.len() > self.begun {
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        Ok(Read::Unfinished)
    }

    fn whole_lines(&mut self) -> Option<Piece> {
        if self.is_skipping {
            self.skip();
        }
        let end = memchr::memchr(b'\n', &self.pending);
        let lines = match end.filter(|end| *end <= LONGEST_LINE) {
            // A short chunk has no line that is too long.
            Some(_) if self.pending.len() <= LONGEST_LINE => {
                let last = memchr::memrchr(b'\n', &self.pending)?;
                self.pending.split_to(last + 1)
            }
            Some(end) => self.pending.split_to(end + 1),
            None if self.pending.len() > LONGEST_LINE => {
                let mut line = self.pending.split_to(LONGEST_LINE);
                line.extend_from_slice(b"\n");
                self.is_skipping = self.cut > 0;
                line
            }
            None => return None,
        };
        let count = memchr::memchr_iter(b'\n', &lines).count();
        self.cut = self.cut.saturating_sub(count as u64);
        self.waiting_since = None;
        Some(Piece {
            lines: lines.freeze(),
            begun: std::mem::take(&mut self.begun),
        })
    }

    /// Skips the rest of a line.
    fn skip(&mut self) {
        match memchr::memchr(b'\n', &self.pending) {
            Some(end) => {
                self.pending.advance(end + 1);
                self.is_skipping = false;
            }
            None => self.pending.clear(),
        }
    }

    /// The incomplete line after the wait, unless it may not be returned or has no time yet. In
    /// that case it waits again.
    pub(super) fn late(&mut self, may_be_given: bool) -> Option<Piece> {
        self.waiting_since = None;
        if !may_be_given || time_of(&self.pending).is_none() {
            return None;
        }
        let begun = std::mem::replace(&mut self.begun, self.pending.len());
        Some(Piece {
            lines: self.pending.clone().freeze(),
            begun,
        })
    }

    /// The last line, if it has no newline.
    pub(super) fn rest(mut self) -> Piece {
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(b"\n");
        }
        Piece {
            lines: self.pending.freeze(),
            begun: self.begun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::io::Cursor;

    fn lines(log: String, cut: u64) -> Lines {
        Lines::of(Box::pin(Cursor::new(log.into_bytes())), cut, true)
    }

    async fn all(mut lines: Lines) -> Vec<usize> {
        let mut text = Vec::new();
        loop {
            match lines.read().await.unwrap() {
                Read::Lines(piece) => text.extend_from_slice(&piece.lines),
                Read::Unfinished => {}
                Read::End => break,
            }
        }
        text.extend_from_slice(&lines.rest().lines);
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| line.len() - 1).collect()
    }

    #[tokio::test]
    async fn a_long_line_is_cut_among_the_last_and_broken_else() {
        const CUT: usize = LONGEST_LINE;
        let long = "x".repeat(2 * CUT + 5);
        let log = format!("a\n{long}\nb\n{long}\n");
        assert_eq!(all(lines(log.clone(), 4)).await, [1, CUT, 1, CUT]);
        assert_eq!(all(lines(log.clone(), 3)).await, [1, CUT, 1, CUT, CUT, 5]);
        let broken = [1, CUT, CUT, 5, 1, CUT, CUT, 5];
        assert_eq!(all(lines(log, 0)).await, broken);
        let exact = "x".repeat(CUT);
        assert_eq!(all(lines(format!("{exact}\nb"), 0)).await, [CUT, 1]);
    }

    #[tokio::test]
    async fn an_unfinished_line_is_given_in_parts_and_known_as_a_whole() {
        let mut lines = lines("2026-01-01T00:00:00Z 10%\r20%\rdone\n".to_string(), 0);
        lines
            .pending
            .extend_from_slice(b"2026-01-01T00:00:00Z 5%\r");
        let part = lines.late(true).unwrap();
        assert_eq!((part.lines.len(), part.begun), (24, 0));
        assert!(lines.is_begun());
        let Read::Lines(whole) = lines.read().await.unwrap() else {
            panic!("no line");
        };
        assert_eq!(whole.begun, 24);
        assert!(whole.lines.ends_with(b"done\n") && !lines.is_begun());
        assert!(lines.late(true).is_none());
    }
}
