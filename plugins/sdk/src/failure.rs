//! What a panic leaves for the plugin's author: its message, in the memory of the plugin.

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use std::panic::PanicHookInfo;

/// Maximum size of a message, in bytes.
const MOST: usize = 2048;

/// The host searches the memory of a plugin that trapped for the marker. The length and the message
/// follow it (`host/src/plugin/failure.rs`).
#[repr(C)]
struct Failure {
    marker: [u8; 16],
    length: usize,
    text: [u8; MOST],
}

struct Place(UnsafeCell<Failure>);

// SAFETY: a plugin has no threads: the component has no shared memory and imports nothing.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new(Failure {
    marker: *b"trainer-failure:",
    length: 0,
    text: [0; MOST],
}));

/// Keeps the message of a panic where the host finds it. A plugin has no output, and a panic ends it.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(keep));
}

fn keep(panic: &PanicHookInfo<'_>) {
    // SAFETY: only this function refers to the place, and a plugin has a single thread.
    let failure = unsafe { &mut *PLACE.0.get() };
    failure.length = 0;
    // What does not fit is left out.
    let _ = write!(failure, "{panic}");
}

impl Write for Failure {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let rest = &mut self.text[self.length..];
        let mut length = rest.len().min(text.len());
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        rest[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        match length == text.len() {
            true => Ok(()),
            false => Err(fmt::Error),
        }
    }
}
