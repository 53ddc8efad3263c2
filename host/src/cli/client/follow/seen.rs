//! Remembers which lines of a log were printed, so that none is lost or repeated after an
//! interruption.

use std::collections::BTreeMap;
use std::io::Write;

/// How much of a line's text was printed.
pub(super) struct Printed {
    pub(super) replica: Vec<u8>,
    /// In bytes.
    pub(super) written: usize,
    /// Bytes that are received again after an interruption and were printed before it.
    pub(super) skip: usize,
}

impl Printed {
    pub(super) fn write(&mut self, text: &[u8], output: &mut impl Write) -> std::io::Result<()> {
        let skipped = self.skip.min(text.len());
        self.skip -= skipped;
        self.written += text.len() - skipped;
        output.write_all(&text[skipped..])
    }
}

/// The position in the log of each replica: the time of its last line, and how many lines have that
/// time.
#[derive(Default)]
pub(super) struct Seen {
    replicas: BTreeMap<Vec<u8>, Last>,
    /// How many bytes of the next line's text were printed before the interruption.
    pub(super) interrupted: usize,
}

#[derive(Default)]
struct Last {
    time: Vec<u8>,
    count: u64,
    /// How many of these are still expected to be received again.
    again: u64,
}

impl Seen {
    /// The time from which to continue.
    pub(super) fn since(&self) -> Option<String> {
        let times = self.replicas.values().map(|last| &last.time);
        times
            .min()
            .and_then(|time| String::from_utf8(time.clone()).ok())
    }

    /// Forgets the last line, which was not printed completely and will be received again.
    pub(super) fn forget_last(&mut self, printed: Printed) {
        if let Some(last) = self.replicas.get_mut(&printed.replica) {
            last.count = last.count.saturating_sub(1);
        }
        self.interrupted = printed.written;
    }

    pub(super) fn resume(&mut self) {
        let replicas = self.replicas.values_mut();
        replicas.for_each(|last| last.again = last.count);
    }

    /// Whether a line is new. All times have the same format, so they can be compared as strings.
    pub(super) fn is_new(&mut self, replica: &[u8], time: &[u8]) -> bool {
        let last = self.replicas.entry(replica.to_vec()).or_default();
        if time < last.time.as_slice() {
            return false;
        }
        if time > last.time.as_slice() {
            *last = Last {
                time: time.to_vec(),
                count: 1,
                again: 0,
            };
            return true;
        }
        if last.again > 0 {
            last.again -= 1;
            return false;
        }
        last.count += 1;
        true
    }
}
