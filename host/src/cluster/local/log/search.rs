//! Finds the ends of lines in a log. A job writes its log itself, so the file may be sparse or have
//! no lines at all: holes are skipped, the number of bytes read is bounded, and a search stops when
//! its client has gone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Most bytes that one search reads.
const MOST_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes read at once.
const PIECE: u64 = 128 * 1024;

/// The client of a piece of blocking work, which no dropped future can stop.
#[derive(Clone, Debug)]
pub struct Client(Weak<()>);

impl Client {
    /// The client, and what it holds for as long as it waits.
    pub fn new() -> (Self, Arc<()>) {
        let waiting = Arc::new(());
        (Self(Arc::downgrade(&waiting)), waiting)
    }

    /// # Errors
    ///
    /// When the client has gone.
    pub fn check(&self) -> io::Result<()> {
        match self.0.strong_count() {
            0 => Err(io::Error::other("the client has gone")),
            _ => Ok(()),
        }
    }
}

/// Searches a log for ends of lines.
pub struct Search<'a> {
    file: &'a File,
    client: &'a Client,
    /// How many bytes may still be read.
    left: u64,
    piece: Vec<u8>,
}

impl<'a> Search<'a> {
    pub fn new(file: &'a File, client: &'a Client) -> Self {
        Self {
            file,
            client,
            left: MOST_BYTES,
            piece: Vec::new(),
        }
    }

    /// Where the first whole line begins: the beginning of a long log was dropped.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the client has gone.
    pub fn first_line(&mut self, length: u64) -> io::Result<u64> {
        match self.data_from(0)? {
            Some(0) => Ok(0),
            Some(data) => self.next_line(data, length),
            None => Ok(length),
        }
    }

    /// Where the line begins that an offset is in.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the client has gone.
    pub fn line_start(&mut self, offset: u64) -> io::Result<u64> {
        self.backwards(offset, || true)
    }

    /// Where the last `lines` lines of the first `length` bytes begin. Of lines that take more
    /// bytes than a search may read, there are fewer.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the client has gone.
    pub fn start_of_last(&mut self, lines: u64, length: u64) -> io::Result<u64> {
        // The end of the last line does not begin another.
        let mut left = lines.saturating_add(u64::from(self.ends_with_line(length)?));
        if left == 0 {
            return Ok(length);
        }
        self.backwards(length, || {
            left -= 1;
            left == 0
        })
    }

    /// Where the line after an offset begins, or `end` if none begins before it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the client has gone.
    pub fn next_line(&mut self, offset: u64, end: u64) -> io::Result<u64> {
        let mut at = offset;
        while at < end && self.left > 0 {
            at = match self.data_from(at)? {
                Some(data) if data < end => data,
                _ => return Ok(end),
            };
            let to = end.min(at + PIECE);
            self.read(at, to)?;
            if let Some(found) = memchr::memchr(b'\n', &self.piece) {
                return Ok(at + found as u64 + 1);
            }
            at = to;
        }
        Ok(at)
    }

    /// Goes through the ends of lines before an offset, the last one first, until `is_wanted`.
    /// Gives the offset behind that one, or where the search ended.
    fn backwards(&mut self, offset: u64, mut is_wanted: impl FnMut() -> bool) -> io::Result<u64> {
        let mut end = offset;
        let mut window = PIECE;
        while end > 0 && self.left > 0 {
            let start = end.saturating_sub(window);
            if self.data_from(start)?.is_none_or(|data| data >= end) {
                // A hole: look further back, in larger steps.
                end = start;
                window = window.saturating_mul(2);
                continue;
            }
            if window > PIECE {
                window = PIECE.max(window / 2);
                continue;
            }
            self.read(start, end)?;
            let mut ends = memchr::memrchr_iter(b'\n', &self.piece);
            if let Some(found) = ends.find(|_| is_wanted()) {
                return Ok(start + found as u64 + 1);
            }
            end = start;
        }
        Ok(end)
    }

    fn ends_with_line(&self, length: u64) -> io::Result<bool> {
        let mut last = [0];
        let Some(before) = length.checked_sub(1) else {
            return Ok(false);
        };
        Ok(self.file.read_at(&mut last, before)? == 1 && last == *b"\n")
    }

    /// Where the next data is, at an offset or behind it; a file system without holes has it there.
    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        self.client.check()?;
        match seek(self.file, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(_) => Ok(Some(offset)),
        }
    }

    /// Reads a piece. A file that was truncated meanwhile has less.
    fn read(&mut self, from: u64, to: u64) -> io::Result<()> {
        let length = to - from;
        self.left = self.left.saturating_sub(length);
        self.piece.resize(usize::try_from(length).unwrap_or(0), 0);
        let mut filled = 0;
        while filled < self.piece.len() {
            match self
                .file
                .read_at(&mut self.piece[filled..], from + filled as u64)?
            {
                0 => break,
                read => filled += read,
            }
        }
        self.piece.truncate(filled);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    proptest! {
        #[test]
        fn the_last_lines_are_found(text in "[a\n]{0,60}", lines in 0_u64..8) {
            let (client, _waiting) = Client::new();
            let length = text.len() as u64;
            let file = file(text.as_bytes());
            let start = Search::new(&file, &client).start_of_last(lines, length).unwrap();
            let all: Vec<&str> = text.split_inclusive('\n').collect();
            let kept = all.len().saturating_sub(usize::try_from(lines).unwrap());
            prop_assert_eq!(&text[usize::try_from(start).unwrap()..], all[kept..].concat());
        }

        #[test]
        fn a_line_begins_behind_the_end_of_another(text in "[a\n]{1,60}", offset in 0_usize..60) {
            let (client, _waiting) = Client::new();
            let offset = offset.min(text.len());
            let file = file(text.as_bytes());
            let start = Search::new(&file, &client).line_start(offset as u64).unwrap();
            let expected = text[..offset].rfind('\n').map_or(0, |at| at + 1);
            prop_assert_eq!(start, expected as u64);
            let next = Search::new(&file, &client).next_line(offset as u64, text.len() as u64).unwrap();
            let expected = text[offset..].find('\n').map_or(text.len(), |at| offset + at + 1);
            prop_assert_eq!(next, expected as u64);
        }
    }

    #[test]
    fn holes_cost_nothing() {
        const TERABYTES: u64 = 1 << 42;
        let mut log = file(b"first\n");
        log.set_len(TERABYTES).unwrap();
        let (client, _waiting) = Client::new();
        assert_eq!(
            Search::new(&log, &client)
                .start_of_last(1, TERABYTES)
                .unwrap(),
            6
        );
        assert_eq!(
            Search::new(&log, &client).next_line(6, TERABYTES).unwrap(),
            TERABYTES
        );
        // Data between two holes, found from both sides.
        log.write_all_at(b"second\n", TERABYTES / 2 + 5).unwrap();
        log.write_all(b"").unwrap();
        let behind = TERABYTES / 2 + 12;
        assert_eq!(
            Search::new(&log, &client)
                .start_of_last(1, TERABYTES)
                .unwrap(),
            behind
        );
        assert_eq!(
            Search::new(&log, &client).next_line(6, TERABYTES).unwrap(),
            behind
        );
    }

    #[test]
    fn a_search_without_a_client_ends() {
        let log = file(b"a line\n");
        let (client, waiting) = Client::new();
        drop(waiting);
        assert!(Search::new(&log, &client).line_start(7).is_err());
    }
}
