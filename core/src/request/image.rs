//! Checks references to container images against the grammar of registries and container runtimes
//! (distribution/reference): `[domain[:port]/]path[:tag][@digest]`.

use std::fmt;

/// The maximum length of a name including its domain.
const MAX_NAME: usize = 255;
/// The maximum length of a tag.
const MAX_TAG: usize = 128;

/// Why a text is not a valid reference. The message follows the name of the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageFault {
    /// It starts with the scheme of a URL; this is the rest.
    Scheme(String),
    /// The path has upper-case letters; this is the reference without them.
    UpperCase(String),
    TooLong,
    Domain,
    Path,
    Tag,
    Digest,
}

impl fmt::Display for ImageFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(rest) => write!(
                formatter,
                "an image has no scheme such as https:// or docker://; use {rest:?}"
            ),
            Self::UpperCase(lower) => write!(
                formatter,
                "the path of an image must be in lower case; use {lower:?}"
            ),
            Self::TooLong => write!(formatter, "the name is longer than {MAX_NAME} characters"),
            Self::Domain => formatter.write_str(
                "the registry is not a valid host name with an optional port; examples: ghcr.io, \
                 registry:5000",
            ),
            Self::Path => formatter.write_str(
                "not a valid image: expected [registry/]path[:tag][@digest] such as \
                 ghcr.io/team/trainer:1.2, where each part of the path consists of a-z and 0-9 \
                 separated by single '.', '_' or '-'",
            ),
            Self::Tag => write!(
                formatter,
                "the tag is not valid; use 1-{MAX_TAG} characters A-Z, a-z, 0-9, '_', '.' and '-', \
                 not starting with '.' or '-'"
            ),
            Self::Digest => formatter.write_str(
                "the digest is not valid; expected sha256: followed by 64 hexadecimal digits",
            ),
        }
    }
}

/// Checks a reference.
///
/// # Errors
///
/// The first rule that the text violates.
pub fn check(text: &str) -> Result<(), ImageFault> {
    if let Some((_, rest)) = text.split_once("://") {
        return Err(ImageFault::Scheme(rest.to_string()));
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    let (domain, rest) = split_domain(named);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if domain.is_some_and(|domain| !is_domain(domain)) {
        return Err(ImageFault::Domain);
    }
    if !path.split('/').all(is_component) {
        return Err(path_fault(text, path));
    }
    if named.len() - tag.map_or(0, |tag| tag.len() + 1) > MAX_NAME {
        return Err(ImageFault::TooLong);
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(ImageFault::Tag);
    }
    match digest.is_none_or(is_digest) {
        true => Ok(()),
        false => Err(ImageFault::Digest),
    }
}

/// Splits off the registry. The first part is one if it contains a dot or a port, or is localhost.
fn split_domain(named: &str) -> (Option<&str>, &str) {
    match named.split_once('/') {
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => {
            (Some(first), rest)
        }
        _ => (None, named),
    }
}

fn path_fault(text: &str, path: &str) -> ImageFault {
    let lower = path.to_ascii_lowercase();
    match lower != path && lower.split('/').all(is_component) {
        true => ImageFault::UpperCase(text.replacen(path, &lower, 1)),
        false => ImageFault::Path,
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok() && !port.starts_with('+');
    let is_address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (is_address || host.split('.').all(is_label)) && port.is_none_or(is_port)
}

fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(inner)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_word = |c: char| c.is_ascii_alphanumeric();
    edge(component.bytes().next())
        && edge(component.bytes().last())
        && component.bytes().all(fits)
        && component.split(is_word).all(|between| {
            matches!(between, "" | "." | "_" | "__") || !between.contains(['.', '_'])
        })
}

fn is_tag(tag: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=MAX_TAG).contains(&tag.len()) && !tag.starts_with(['.', '-']) && tag.bytes().all(fits)
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let lengths = [("sha256", 64), ("sha384", 96), ("sha512", 128)];
    lengths.contains(&(algorithm, hex.len()))
        && hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_runtime_pulls_is_a_reference() {
        let digest = format!("ghcr.io/a/b@sha256:{}", "0f".repeat(32));
        let both = format!("a/b:1@sha256:{}", "0f".repeat(32));
        for image in [
            "trainer",
            "trainer:latest",
            "team/trainer:V1.2-rc_1",
            "ghcr.io/deepfinery/trainer:latest",
            "localhost/x",
            "localhost:5000/x:1",
            "registry:5000/team/x",
            "REGISTRY.example.com/team/x",
            "[fd00::1]:5000/x",
            "a--b/c__d/e.f_g",
            "nvcr.io/nvidia/nemo:24.09",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/x:1",
            &digest,
            &both,
        ] {
            assert_eq!(check(image), Ok(()), "{image}");
        }
    }

    #[test]
    fn what_no_runtime_pulls_is_refused_with_what_to_write() {
        for (image, instead) in [
            ("https://ghcr.io/x/y:1", "use \"ghcr.io/x/y:1\""),
            ("docker://x/y", "use \"x/y\""),
            ("oci://x", "use \"x\""),
            ("Reg/Trainer:latest", "use \"reg/trainer:latest\""),
            ("ghcr.io/Team/X:V1", "use \"ghcr.io/team/x:V1\""),
            ("a:b:c", "the tag"),
            ("x:", "the tag"),
            ("x:.a", "the tag"),
            ("x@sha256:abc", "the digest"),
            ("x@md5", "the digest"),
            ("registry:port/x", "the registry"),
            ("registry:70000/x", "the registry"),
            ("-a.io/x", "the registry"),
            ("/x", "not a valid image"),
            ("x/", "not a valid image"),
            ("a//b", "not a valid image"),
            ("a..b", "not a valid image"),
            ("a___b", "not a valid image"),
            ("a b", "not a valid image"),
            ("ä", "not a valid image"),
            ("", "not a valid image"),
        ] {
            let finding = check(image).unwrap_err().to_string();
            assert!(finding.contains(instead), "{image}: {finding}");
        }
        assert_eq!(check(&"a".repeat(256)), Err(ImageFault::TooLong));
    }

    proptest! {
        #[test]
        fn what_the_grammar_makes_is_a_reference(
            image in "([a-z]{1,5}\\.io(:[0-9]{1,4})?/)?[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,3})?(/[a-z0-9]{1,4}){0,2}(:[\\w&&[:ascii:]][a-zA-Z0-9_.-]{0,9})?",
        ) {
            prop_assert_eq!(check(&image), Ok(()));
        }

        #[test]
        fn nothing_that_is_written_makes_it_panic(image in r"\PC{0,40}") {
            let _ = check(&image);
        }
    }
}
