//! Masks the values of secrets in text that is read piece by piece.

use memchr::memmem::Finder;

/// What stands in place of a value.
const MASK: &[u8] = b"***";
/// Shorter values are not masked: they would make logs unreadable.
const MIN_BYTES: usize = 4;

/// Masks values, also those that are in two pieces of a text.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    /// The longest first, so that none is masked only in part.
    values: Vec<Finder<'static>>,
    /// The end of the last piece, which can be the beginning of a value.
    held: Vec<u8>,
}

impl Mask {
    /// Masks these values, and each line of those that have several.
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for value in values {
            let parts = value.lines().map(|line| line.trim().as_bytes().to_vec());
            lines.extend(parts.filter(|line| line.len() >= MIN_BYTES));
        }
        lines.sort_by(|one, other| other.len().cmp(&one.len()).then(one.cmp(other)));
        lines.dedup();
        Self {
            values: lines
                .iter()
                .map(|line| Finder::new(line).into_owned())
                .collect(),
            held: Vec::new(),
        }
    }

    /// Whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The masked text up to here. What can be the beginning of a value comes with the next piece.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(piece);
        let (mut masked, rest) = self.replaced(&text);
        let held = self.beginning(rest);
        masked.extend_from_slice(&rest[..rest.len() - held]);
        self.held = rest[rest.len() - held..].to_vec();
        masked
    }

    /// What is left at the end of the text.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// A whole text without the values.
    pub fn text(&self, text: &str) -> String {
        let (mut masked, rest) = self.replaced(text.as_bytes());
        masked.extend_from_slice(rest);
        String::from_utf8_lossy(&masked).into_owned()
    }

    /// The text up to the end of the last value, and the rest, which contains none.
    fn replaced<'a>(&self, mut text: &'a [u8]) -> (Vec<u8>, &'a [u8]) {
        let mut masked = Vec::with_capacity(text.len());
        while let Some((at, length)) = self.first(text) {
            masked.extend_from_slice(&text[..at]);
            masked.extend_from_slice(MASK);
            text = &text[at + length..];
        }
        (masked, text)
    }

    /// The place and length of the first value, the longest if several begin there.
    fn first(&self, text: &[u8]) -> Option<(usize, usize)> {
        let found = self.values.iter().filter_map(|value| {
            let at = value.find(text)?;
            Some((at, value.needle().len()))
        });
        found.min_by_key(|(at, length)| (*at, usize::MAX - length))
    }

    /// The length of the longest end of a text that is the beginning of a value.
    fn beginning(&self, text: &[u8]) -> usize {
        let longest = |value: &Finder| {
            let value = value.needle();
            let most = text.len().min(value.len() - 1);
            (1..=most)
                .rev()
                .find(|length| text.ends_with(&value[..*length]))
                .unwrap_or(0)
        };
        self.values.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(values: &[&str]) -> Mask {
        Mask::new(values.iter().map(ToString::to_string))
    }

    #[test]
    fn values_are_masked_and_short_ones_are_not() {
        let mask = mask(&["hunter2", "hunter2-long", "abc", "line one\nline two"]);
        assert_eq!(
            mask.text("a hunter2 b hunter2-long c abc"),
            "a *** b *** c abc"
        );
        assert_eq!(mask.text("line two, line one"), "***, ***");
    }

    proptest! {
        #[test]
        fn no_value_passes_however_the_text_is_cut(
            before in "[ab]{0,12}", after in "[ab]{0,12}",
            cuts in proptest::collection::vec(0_usize..40, 0..6),
        ) {
            let mut mask = mask(&["abba-secret", "ab-secret"]);
            let text = format!("{before}abba-secret{after}ab-secret\n");
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let whole = mask.clone().text(&text);
            let pieces = cuts.windows(2).map(|cut| mask.push(&text.as_bytes()[cut[0]..cut[1]]));
            let mut masked: Vec<u8> = pieces.collect::<Vec<_>>().concat();
            masked.extend(mask.finish());
            let masked = String::from_utf8(masked).unwrap();
            prop_assert!(!masked.contains("secret"), "{masked}");
            prop_assert_eq!(masked, whole);
        }
    }
}
