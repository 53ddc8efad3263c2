//! The size of a value as JSON, computed without creating the text.

use std::io::{self, Write};

use serde::Serialize;

/// The number of bytes of a value as compact JSON.
pub fn json_bytes(value: &impl Serialize) -> usize {
    let mut counter = Counter(0);
    // The counter never fails, and only plain data is serialized here.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
