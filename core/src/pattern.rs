//! Patterns and prefixes in files of settings.

/// Whether a text matches a pattern, in which `*` stands for any characters.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    // The first place of each part leaves the most room for the next.
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

/// Whether a URI is a prefix of the list, or under it: `s3://a/runs` does not include
/// `s3://a/runs-of-others`.
pub(crate) fn is_under(prefix: &str, uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix(prefix) else {
        // The prefix itself, with or without its last slash.
        return prefix.strip_suffix('/') == Some(uri);
    };
    (rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')) && !climbs(uri)
}

/// Whether a path has segments that lead out of it.
pub(crate) fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("ghcr.io/team/*", "ghcr.io/team/trainer:1", true),
            ("ghcr.io/team/*", "ghcr.io/team-b/trainer:1", false),
            ("ghcr.io/*/trainer:*", "ghcr.io/a/b/trainer:1", true),
            ("ghcr.io/*/trainer", "ghcr.io/a/trainer:1", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("trainer", "trainer", true),
            ("trainer", "trainer2", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        for (prefix, uri, expected) in [
            ("s3://a/runs", "s3://a/runs", true),
            ("s3://a/runs", "s3://a/runs/x", true),
            ("s3://a/runs", "s3://a/runs-b/x", false),
            ("s3://a/runs/", "s3://a/runs", true),
            ("s3://a/runs/", "s3://a/runs/x", true),
            ("s3://a/", "s3://ab/x", false),
            ("s3://", "s3://any/x", true),
            ("s3://a/runs", "s3://a/runs/../secret", false),
            ("hf://", "s3://a", false),
        ] {
            assert_eq!(is_under(prefix, uri), expected, "{prefix} {uri}");
        }
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_with_stars_for_parts_of_it(
            (before, middle, after) in (r"[a-z/:.]{0,8}", r"[a-z/:.]{0,8}", r"[a-z/:.]{0,8}"),
        ) {
            let text = format!("{before}{middle}{after}");
            let pattern = format!("{before}*{after}");
            prop_assert!(matches(&pattern, &text));
        }
    }
}
