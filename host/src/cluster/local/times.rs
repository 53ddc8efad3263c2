//! When the bytes of a log were written. The replica writes its log itself, so that nothing stands
//! between it and the disk; its shim looks at the length of the file ten times a second and
//! leaves a mark in a file beside it whenever that has grown. It also drops the beginning of a log that
//! takes too much of the disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FallocateFlags, OFlags, fallocate};

/// How often a shim looks, and so how exact the times of lines are.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// Two numbers of 8 bytes, little endian: the end, and microseconds since 1970.
const MARK_BYTES: usize = 16;
/// What `st_blocks` counts (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Everything before `end` was written by `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub end: u64,
    pub time: Timestamp,
}

impl Mark {
    fn to_bytes(self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..8].copy_from_slice(&self.end.to_le_bytes());
        bytes[8..].copy_from_slice(&self.time.as_microsecond().to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; MARK_BYTES]) -> Option<Self> {
        let (end, time) = bytes.split_first_chunk::<8>()?;
        let time = i64::from_le_bytes(time.try_into().ok()?);
        Some(Self {
            end: u64::from_le_bytes(*end),
            time: Timestamp::from_microsecond(time).ok()?,
        })
    }
}

/// The file of the marks of a log.
fn file_of(log: &Path) -> PathBuf {
    log.with_extension("times")
}

/// Leaves marks.
#[derive(Debug)]
pub struct MarkWriter {
    log: PathBuf,
    /// Most bytes of the log on disk.
    most: u64,
    marks: File,
    marked: u64,
}

impl MarkWriter {
    /// # Errors
    ///
    /// When the file of the marks cannot be made.
    pub fn open(log: &Path, most: u64) -> std::io::Result<Self> {
        let marks = OpenOptions::new()
            .create(true)
            .mode(0o600)
            .append(true)
            .open(file_of(log))?;
        Ok(Self {
            log: log.to_path_buf(),
            most,
            marks,
            marked: 0,
        })
    }

    /// Leaves a mark if the log has grown.
    ///
    /// # Errors
    ///
    /// When the log cannot be looked at or the mark not be written, as on a full disk.
    pub fn look(&mut self) -> std::io::Result<()> {
        let time = Timestamp::now();
        let metadata = std::fs::metadata(&self.log)?;
        let end = metadata.len();
        if metadata.blocks() * BLOCK_BYTES > self.most {
            self.drop_beginning(end)?;
        }
        if end > self.marked {
            self.marks.write_all(&Mark { end, time }.to_bytes())?;
            self.marked = end;
        }
        Ok(())
    }
}

impl MarkWriter {
    /// Makes a hole of all but the end of the log. Offsets stay what they are.
    fn drop_beginning(&self, end: u64) -> std::io::Result<()> {
        let log = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.log)?;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let dropped = end.saturating_sub(self.most / 2);
        Ok(fallocate(log, hole, 0, dropped)?)
    }
}

/// Reads marks, from memory that the kernel keeps: each call takes microseconds.
#[derive(Debug)]
pub struct Marks {
    file: PathBuf,
    marks: Option<File>,
}

impl Marks {
    /// The marks of a log, of which there need not be any yet.
    pub fn of(log: &Path) -> Self {
        Self {
            file: file_of(log),
            marks: None,
        }
    }

    fn get(&mut self, number: u64) -> Option<Mark> {
        if self.marks.is_none() {
            self.marks = File::open(&self.file).ok();
        }
        let mut bytes = [0; MARK_BYTES];
        let at = number * MARK_BYTES as u64;
        self.marks.as_ref()?.read_exact_at(&mut bytes, at).ok()?;
        Mark::from_bytes(bytes)
    }

    fn count(&mut self) -> u64 {
        let length = std::fs::metadata(&self.file).map_or(0, |metadata| metadata.len());
        length / MARK_BYTES as u64
    }

    /// The number of the first mark that something holds for, which must hold for all after it.
    fn first(&mut self, holds: impl Fn(Mark) -> bool) -> u64 {
        let (mut from, mut to) = (0, self.count());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.get(middle).is_none_or(&holds) {
                true => to = middle,
                false => from = middle + 1,
            }
        }
        from
    }

    /// The end of what was written before a time.
    pub fn end_before(&mut self, time: Timestamp) -> u64 {
        let first = self.first(|mark| mark.time >= time);
        let before = first.checked_sub(1).and_then(|before| self.get(before));
        before.map_or(0, |mark| mark.end)
    }

    /// A reader that starts at an offset of the log.
    pub fn from(mut self, offset: u64) -> MarkReader {
        let next = self.first(|mark| mark.end > offset);
        MarkReader {
            marks: self,
            next,
            current: None,
        }
    }
}

/// Returns the times of consecutive lines.
#[derive(Debug)]
pub struct MarkReader {
    marks: Marks,
    next: u64,
    current: Option<Mark>,
}

impl MarkReader {
    /// When what ends at an offset had been written; nothing if that has not been marked yet.
    pub fn time_of(&mut self, end: u64) -> Option<Timestamp> {
        while self.current.is_none_or(|current| current.end < end) {
            self.current = Some(self.marks.get(self.next)?);
            self.next += 1;
        }
        self.current.map(|current| current.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn marked(folder: &Path, ends: &[u64]) -> PathBuf {
        let log = folder.join("0.log");
        let marks = (1..).zip(ends).map(|(second, end)| Mark {
            end: *end,
            time: at(second),
        });
        let bytes: Vec<u8> = marks.flat_map(Mark::to_bytes).collect();
        std::fs::write(file_of(&log), bytes).unwrap();
        log
    }

    #[test]
    fn a_log_without_marks_has_no_times() {
        let folder = tempfile::tempdir().unwrap();
        let mut marks = Marks::of(&folder.path().join("0.log"));
        assert_eq!(marks.end_before(at(1)), 0);
        assert_eq!(marks.from(0).time_of(1), None);
    }

    #[test]
    fn a_mark_is_left_for_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        std::fs::write(&log, "12345").unwrap();
        let mut writer = MarkWriter::open(&log, u64::MAX).unwrap();
        writer.look().unwrap();
        writer.look().unwrap();
        let mut marks = Marks::of(&log);
        assert_eq!(marks.count(), 1);
        assert_eq!(marks.get(0).unwrap().end, 5);
    }

    #[test]
    fn a_log_that_takes_too_much_loses_its_beginning_and_no_offset() {
        const MOST: u64 = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        let text = "a line\n".repeat(500_000);
        std::fs::write(&log, &text).unwrap();
        MarkWriter::open(&log, MOST).unwrap().look().unwrap();
        let kept = std::fs::read(&log).unwrap();
        assert_eq!(kept.len(), text.len());
        assert!(kept.ends_with(&text.as_bytes()[text.len() - 400_000..]));
        let metadata = std::fs::metadata(&log).unwrap();
        assert!(metadata.blocks() * BLOCK_BYTES <= MOST);
    }

    proptest! {
        #[test]
        fn times_are_those_of_the_first_mark_behind(
            steps in proptest::collection::vec(1_u64..50, 1..40), begin in 0_u64..100,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let ends: Vec<u64> = steps.iter().scan(0, |end, step| { *end += step; Some(*end) }).collect();
            let log = marked(folder.path(), &ends);
            let last = *ends.last().unwrap();
            let mut reader = Marks::of(&log).from(begin);
            for end in begin + 1..last + 2 {
                let expected = ends.iter().position(|mark| *mark >= end);
                let expected = expected.map(|number| at(i64::try_from(number).unwrap() + 1));
                prop_assert_eq!(reader.time_of(end), expected);
            }
            for second in 1..ends.len() + 3 {
                let before = second.checked_sub(2).map(|n| ends[n.min(ends.len() - 1)]);
                let time = at(i64::try_from(second).unwrap());
                prop_assert_eq!(Marks::of(&log).end_before(time), before.unwrap_or(0));
            }
        }
    }
}
