//! Parses tokens from variables, flags and files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};

/// Most bytes of a file with a token.
const MOST_BYTES: u64 = 4096;
/// What a file with a token must not allow: everything to others, and changes to its group.
const FORBIDDEN_MODE: u32 = 0o027;

/// The token in a setting, trimmed, because files and shells add white space. None if it is empty.
///
/// # Errors
///
/// If it is only white space, or contains characters that are invalid in a header. The error does
/// not contain the token.
pub fn given(setting: &str, text: &str) -> anyhow::Result<Option<String>> {
    let token = text.trim();
    if token.is_empty() && !text.is_empty() {
        bail!("{setting} contains only white space");
    }
    if let Some(wrong) = token.chars().find(|c| !c.is_ascii_graphic()) {
        bail!(
            "{setting} contains the character {wrong:?}; a token consists of visible ASCII \
             characters, for example from `openssl rand -hex 32`"
        );
    }
    Ok(Some(token.to_string()).filter(|token| !token.is_empty()))
}

/// The token of a service in a file, which only the service's user and group can read.
///
/// # Errors
///
/// When the file cannot be read, others can, or there is no token in it.
pub fn in_file(setting: &str, file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let cannot = || format!("cannot read {name}, which {setting} names");
    // Of what a link points to. Kubernetes mounts the keys of a Secret as links.
    let metadata = std::fs::metadata(file).with_context(cannot)?;
    if !metadata.is_file() || metadata.size() > MOST_BYTES {
        bail!("{setting} names {name}, which is not a file of at most {MOST_BYTES} bytes");
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & FORBIDDEN_MODE != 0 {
        bail!(
            "{setting} names {name}, which has mode {mode:03o}: others could read or change the \
             token. Set the mode to 600, or to 640 where its group is the service's own; in a \
             Kubernetes volume, defaultMode: 0440"
        );
    }
    let mut text = String::new();
    File::open(file)
        .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
        .with_context(cannot)?;
    match given(&format!("{setting}: {name}"), &text)? {
        Some(token) => Ok(token),
        None => bail!("{setting} names {name}, which is empty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reported(text: &str) -> String {
        given("TOKEN", text).unwrap_err().to_string()
    }

    #[test]
    fn white_space_around_a_token_is_none_of_it() {
        for text in ["secret", "secret\n", "secret\r\n", " secret ", "\tsecret"] {
            assert_eq!(given("TOKEN", text).unwrap().unwrap(), "secret");
        }
        assert_eq!(given("TOKEN", "").unwrap(), None);
    }

    #[test]
    fn a_token_that_no_header_carries_is_refused_and_not_told() {
        for blank in [" ", "\n", "\t \r\n", "\u{a0}"] {
            assert_eq!(reported(blank), "TOKEN contains only white space");
        }
        for text in ["two words", "two\nlines", "caf\u{e9}", "bell\u{7}", "nul\0"] {
            let reported = reported(text);
            assert!(
                reported.starts_with("TOKEN contains the character"),
                "{reported}"
            );
            assert!(!reported.contains(&text[..3]), "{reported}");
        }
    }

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(file.path(), mode).unwrap();
        file
    }

    fn refused(file: &Path) -> String {
        format!("{:#}", in_file("FILE", file).unwrap_err())
    }

    #[test]
    fn a_file_has_a_token_that_only_the_service_can_read() {
        for mode in [0o600, 0o400, 0o440, 0o640] {
            let file = file("secret\n", mode);
            assert_eq!(in_file("FILE", file.path()).unwrap(), "secret");
        }
        for mode in [0o644, 0o604, 0o660, 0o602] {
            let refused = refused(file("secret", mode).path());
            assert!(refused.contains(&format!("mode {mode:o}")), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_refused() {
        assert!(refused(file("", 0o600).path()).contains("is empty"));
        assert!(refused(file("\n", 0o600).path()).contains("contains only white space"));
        assert!(refused(file("two words", 0o600).path()).contains("visible ASCII"));
        let long = file(&"x".repeat(5000), 0o600);
        assert!(refused(long.path()).contains("at most 4096 bytes"));
        assert!(refused(Path::new("/")).contains("is not a file"));
        assert!(refused(Path::new("/nonexistent/token")).contains("which FILE names"));
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_a_header(text in r"\PC{0,20}") {
            if let Ok(Some(token)) = given("TOKEN", &text) {
                prop_assert!(http::HeaderValue::from_str(&token).is_ok());
            }
        }
    }
}
