//! Cleans up lines of a log.

/// How many characters of a line are read.
const MAX_CHARACTERS: usize = 2000;

/// Removes colours and control characters from a line, and keeps only the last state of a progress
/// bar.
pub fn clean(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut text = String::new();
    let mut characters = line.chars().take(MAX_CHARACTERS);
    while let Some(character) = characters.next() {
        match character {
            // An escape sequence ends with a letter.
            '\u{1b}' => drop(characters.find(char::is_ascii_alphabetic)),
            '\t' => text.push(' '),
            character if character.is_control() => {}
            character => text.push(character),
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Splits off the marker of a rank, as in `[rank3]: text` or `[default3]:text`.
pub fn split_rank(line: &str) -> (Option<u32>, &str) {
    let rank = || {
        let marked = line
            .strip_prefix("[rank")
            .or_else(|| line.strip_prefix("[default"))?;
        let (rank, rest) = marked.split_once("]:")?;
        Some((rank.parse().ok()?, rest.strip_prefix(' ').unwrap_or(rest)))
    };
    match rank() {
        Some((rank, rest)) => (Some(rank), rest),
        None => (None, line),
    }
}
