//! Makes text of jobs and plugins safe for a terminal. Control characters could move the cursor,
//! rename the window or inject input, so they are made visible.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::hidden::is_bidirectional;

/// Replaces control characters, except for newlines and tabs. `ESC` becomes `^[`, as in `cat -v`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !is_hidden(c) => seen.push(c),
            '\u{7f}' => seen.push_str("^?"),
            c if c.is_ascii() => seen.extend(['^', char::from(c as u8 + b'@')]),
            c => seen.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(seen)
}

fn is_hidden(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t' || is_bidirectional(c)
}

/// Writes logs to a terminal. Carriage returns are kept, because progress bars use them.
#[derive(Debug)]
pub struct Terminal<W> {
    terminal: W,
    /// The beginning of an incomplete character.
    begun: Vec<u8>,
}

impl<W: Write> Terminal<W> {
    pub fn new(terminal: W) -> Self {
        Self {
            terminal,
            begun: Vec::new(),
        }
    }
}

impl<W: Write> Write for Terminal<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        let whole = whole_characters(&self.begun);
        let rest = self.begun.split_off(whole);
        let text = std::mem::replace(&mut self.begun, rest);
        let text = String::from_utf8_lossy(&text);
        let parts: Vec<Cow<str>> = text.split('\r').map(visible).collect();
        self.terminal.write_all(parts.join("\r").as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.terminal.flush()
    }
}

/// The length without an incomplete last character.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        // Invalid UTF-8 is replaced.
        Err(error) => {
            let after = error.valid_up_to() + error.error_len().unwrap_or(1);
            after + whole_characters(&bytes[after..])
        }
        Ok(text) => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_steers_a_terminal_is_seen_instead() {
        for (text, seen) in [
            ("plain é \t\n", "plain é \t\n"),
            ("\x1b]0;title\x07", "^[]0;title^G"),
            ("a\x08b\x7f\r", "a^Hb^?^M"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}gnp", "\\u{202e}gnp"),
        ] {
            assert_eq!(visible(text), seen);
        }
    }

    proptest! {
        #[test]
        fn a_log_is_shown_alike_however_it_is_cut(
            text in "[a\u{1b}\u{9b}é\r\n\u{1f600}]{0,20}", cut in 0_usize..80,
        ) {
            let mut shown = Vec::new();
            let mut terminal = Terminal::new(&mut shown);
            let (one, other) = text.as_bytes().split_at(cut.min(text.len()));
            terminal.write_all(one).unwrap();
            terminal.write_all(other).unwrap();
            let expected: Vec<_> = text.split('\r').map(visible).collect();
            prop_assert_eq!(String::from_utf8(shown).unwrap(), expected.join("\r"));
        }

        #[test]
        fn no_bytes_panic_or_steer(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut shown = Vec::new();
            Terminal::new(&mut shown).write_all(&bytes).unwrap();
            prop_assert!(!shown.contains(&0x1b));
        }
    }
}
