//! The token of a service as it is given: in a variable, a flag or a file.

use anyhow::bail;

/// The token that a setting has, without the white space around it, which files and shells add.
/// Nothing if it is empty.
///
/// # Errors
///
/// When it is white space alone, or has what a header cannot carry. The token is not told.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(text: &str) -> String {
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
            assert_eq!(told(blank), "TOKEN has white space and no token");
        }
        for text in ["two words", "two\nlines", "caf\u{e9}", "bell\u{7}", "nul\0"] {
            let told = told(text);
            assert!(told.starts_with("TOKEN has the character"), "{told}");
            assert!(!told.contains(&text[..3]), "{told}");
        }
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
