//! Characters that change how other text is displayed.

/// Whether a character changes the display order of text.
pub(crate) fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
