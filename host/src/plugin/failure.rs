//! The words of a plugin about its own failure, for its author: the message of a panic, or of an exception
//! that nothing caught.
//!
//! It is text of the plugin. It is bounded, has no control characters, and reaches the host's log and
//! the commands for authors, never the answer to a request.

use std::fmt::{self, Display, Formatter};

use memchr::memmem;
use serde::Deserialize;
use wasmtime::{Store, WasmBacktrace, WasmCoreDump};

use super::bindings::exports::deepfinery::trainer::framework as contract;
use super::limits::Limiter;
use crate::hidden::is_bidirectional;

/// What the SDK writes before the message of a panic (`plugins/sdk/src/failure.rs`).
const MARKER: &[u8] = b"trainer-failure:";
/// The part of a memory that is searched. The SDK's static data is at its beginning.
const SEARCHED_BYTES: usize = 16 * 1024 * 1024;
/// Maximum size of a message, in bytes. Of a longer one, the end is kept, where the exception is.
const MAX_BYTES: usize = 4096;
/// Maximum number of functions in a backtrace.
pub(super) const MAX_FRAMES: usize = 16;

/// What comes before the words of a plugin.
const INTRODUCTION: &str = "; the plugin says: ";

/// The words of a plugin about its failure, in one line, to be put after the message of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(String);

impl Words {
    fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let begin = text.len().saturating_sub(MAX_BYTES);
        let text = &text[text.ceil_char_boundary(begin)..];
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.collect::<Vec<_>>().join(" | ");
        (!line.is_empty()).then(|| Self(line.chars().flat_map(visible).collect()))
    }
}

impl Display for Words {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{INTRODUCTION}{}", self.0)
    }
}

/// An error without the words of a plugin, which come last.
pub(super) fn without_words(mut error: String) -> String {
    error.truncate(error.find(INTRODUCTION).unwrap_or(error.len()));
    error
}

/// A character, or its escape sequence if it could change a terminal or a log.
fn visible(c: char) -> impl Iterator<Item = char> {
    let is_hidden = c.is_control() || is_bidirectional(c);
    let escaped = is_hidden.then(|| c.escape_unicode());
    let itself = (!is_hidden).then_some(c);
    escaped.into_iter().flatten().chain(itself)
}

/// The message of the panic that ended a call. Without one, the functions that were running, as far as
/// the file has their names.
pub(super) fn of_trap(store: &Store<Limiter>, error: &wasmtime::Error) -> Option<Words> {
    let dump = error.downcast_ref::<WasmCoreDump>();
    let memories = dump.map(WasmCoreDump::memories).unwrap_or_default();
    let mut memories = memories.iter();
    let message = memories.find_map(|memory| message_in(memory.data(store)));
    Words::of(&message.unwrap_or_else(|| functions(error)))
}

fn functions(error: &wasmtime::Error) -> String {
    let frames = error.downcast_ref::<WasmBacktrace>();
    let frames = frames.map(WasmBacktrace::frames).unwrap_or_default();
    let named = frames.iter().filter_map(|frame| frame.func_name());
    named.map(|name| format!("in {name}\n")).collect()
}

fn message_in(memory: &[u8]) -> Option<String> {
    let memory = &memory[..memory.len().min(SEARCHED_BYTES)];
    let after = memmem::find(memory, MARKER)? + MARKER.len();
    let (length, text) = memory.get(after..)?.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let text = text.get(..length).filter(|text| text.len() <= MAX_BYTES)?;
    let text = String::from_utf8_lossy(text).into_owned();
    (!text.is_empty()).then_some(text)
}

/// The exception that a plan stands for: one without a command, with `failure` in its extensions.
pub(super) fn of_plan(plan: &contract::LaunchPlan) -> Option<Words> {
    #[derive(Deserialize)]
    struct Extensions {
        failure: String,
    }
    if !plan.command.is_empty() {
        return None;
    }
    let extensions: Extensions = serde_json::from_str(&plan.extensions).ok()?;
    Words::of(&extensions.failure)
}

/// The exception that a description stands for: the summary of one that has neither name nor schema.
pub(super) fn of_description(description: &contract::Description) -> Option<Words> {
    let is_empty = description.name.is_empty() && description.args_schema.is_empty();
    is_empty.then(|| Words::of(&description.summary)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(length: u32, text: &str) -> Vec<u8> {
        let mut memory = vec![7; 1000];
        memory.extend(MARKER);
        memory.extend(length.to_le_bytes());
        memory.extend(text.as_bytes());
        memory
    }

    #[test]
    fn a_message_is_found_behind_the_marker() {
        let found = message_in(&memory(5, "wrong, and more"));
        assert_eq!(found.as_deref(), Some("wrong"));
        for (length, text) in [(0, "wrong"), (6, "wrong"), (u32::MAX, "wrong")] {
            assert_eq!(message_in(&memory(length, text)), None);
        }
        let long = "x".repeat(MAX_BYTES + 1);
        assert_eq!(message_in(&memory(MAX_BYTES as u32 + 1, &long)), None);
        assert_eq!(message_in(MARKER), None);
        assert_eq!(message_in(b""), None);
    }

    #[test]
    fn words_are_one_line_without_control_characters_and_keep_their_end() {
        let words = |text: &str| Words::of(text).map(|words| words.to_string());
        assert_eq!(
            words("Traceback:\n  File \"app.py\"\r\n\nError: \u{1b}[2J\u{202e}\n").as_deref(),
            Some(r#"; the plugin says: Traceback: | File "app.py" | Error: \u{1b}[2J\u{202e}"#)
        );
        assert_eq!(words(" \n "), None);
        let error = format!("it failed{}", Words::of("secret").unwrap());
        assert_eq!(without_words(error), "it failed");
        assert_eq!(without_words("it failed".to_string()), "it failed");
        let long = words(&format!("{}the end", "é".repeat(MAX_BYTES))).unwrap();
        assert!(
            long.ends_with("the end") && long.len() < 2 * MAX_BYTES,
            "{long}"
        );
    }
}
