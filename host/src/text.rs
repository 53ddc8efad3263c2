//! Files of text that people write: read whole, decoded, and refused in words that say what to do.

use std::fmt::Display;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};

/// Most bytes of a file. Nobody writes more, and an endless one must not fill the memory.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Reads a file, or standard input where it is called `-`.
///
/// # Errors
///
/// When it cannot be read, is not text, or has more than 16 MiB.
pub fn read(file: &Path) -> anyhow::Result<String> {
    let name = match file.to_str() {
        Some("-") => "standard input".to_string(),
        _ => file.display().to_string(),
    };
    let mut bytes = Vec::new();
    let read = match file.to_str() {
        Some("-") => io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes),
        _ => std::fs::File::open(file)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| anyhow::anyhow!(why(&error)))
        .with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{name} has more than 16 MiB; put large data into a file that the job reads");
    }
    decode(&bytes).map_err(|wrong| anyhow::anyhow!("{name}: {wrong}"))
}

/// The text of some bytes without a byte order mark.
///
/// # Errors
///
/// Where they are not UTF-8, and what to do.
pub fn decode(bytes: &[u8]) -> Result<String, String> {
    if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Err("the text is UTF-16; save the file as UTF-8".to_string());
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    std::str::from_utf8(bytes)
        .map(str::to_string)
        .map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line}: the text is not UTF-8; save the file as UTF-8")
        })
}

/// Why something could not be done with a file, without the number that the system gives the reason.
pub fn why(error: &io::Error) -> String {
    without_numbers(error)
}

/// A sentence without the numbers of system errors: `(os error 2)`.
pub fn without_numbers(sentence: impl Display) -> String {
    let sentence = sentence.to_string();
    let mut parts = sentence.split(" (os error ");
    let mut kept = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                kept.push_str(rest)
            }
            _ => {
                kept.push_str(" (os error ");
                kept.push_str(part);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_its_byte_order_mark() {
        assert_eq!(decode(b"\xef\xbb\xbfa: 1\n").unwrap(), "a: 1\n");
    }

    #[test]
    fn what_is_not_utf_8_is_told_with_its_line() {
        let wrong = decode(b"a: 1\nb: \xff\n").unwrap_err();
        assert_eq!(
            wrong,
            "line 2: the text is not UTF-8; save the file as UTF-8"
        );
        assert!(decode(b"\xff\xfea\0").unwrap_err().contains("UTF-16"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_the_reason_alone() {
        let wrong = read(Path::new("/nonexistent/a.yaml")).unwrap_err();
        let expected = "cannot read /nonexistent/a.yaml: No such file or directory";
        assert_eq!(format!("{wrong:#}"), expected);
        assert!(format!("{:#}", read(Path::new("/")).unwrap_err()).contains("cannot read /: "));
    }

    #[test]
    fn only_numbers_of_system_errors_are_left_out() {
        for (sentence, kept) in [
            ("x: No such file (os error 2): y", "x: No such file: y"),
            ("a (os error 2) b (os error 13)", "a b"),
            ("(os error x)", "(os error x)"),
            (" (os error 2", " (os error 2"),
        ] {
            assert_eq!(without_numbers(sentence), kept);
        }
    }
}
