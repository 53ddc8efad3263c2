//! The URIs that training jobs take, parsed once at the door.
//!
//! What is refused here was lost later by services that came before: an unknown scheme became a
//! local folder inside the pod, and the checkpoints died with the pod. So each form that people
//! write by mistake is refused with the right spelling.

use std::fmt;
use std::str::FromStr;

/// Longest URI.
const MAX_BYTES: usize = 2048;
/// Longest key of an object in S3.
const MAX_KEY_BYTES: usize = 1024;

/// Which field a URI stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriRole {
    Dataset,
    Checkpoint,
}

/// A scheme that `train.py` can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    S3,
    Gs,
    Abfss,
    Abfs,
    Az,
    Hf,
    Pvc,
    File,
    Https,
}

/// What a dataset may be read from, unless the operator says otherwise.
pub const DATASET_SCHEMES: &[Scheme] = &[
    Scheme::S3,
    Scheme::Gs,
    Scheme::Abfss,
    Scheme::Abfs,
    Scheme::Az,
    Scheme::Hf,
    Scheme::Pvc,
    Scheme::File,
    Scheme::Https,
];

/// What checkpoints may be written to, unless the operator says otherwise.
pub const CHECKPOINT_SCHEMES: &[Scheme] = &[
    Scheme::S3,
    Scheme::Gs,
    Scheme::Abfss,
    Scheme::Abfs,
    Scheme::Az,
    Scheme::Pvc,
    Scheme::File,
];

/// A URI that training jobs can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageUri {
    text: String,
    scheme: Scheme,
}

/// Why a text is no such URI: a sentence to go after the name of the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("must not be empty")]
    Empty,
    #[error("{0} bytes are more than the {MAX_BYTES} allowed")]
    TooLong(usize),
    #[error("not a URI (expected scheme://...); accepted schemes: {}", list(.0))]
    NotAUri(Vec<Scheme>),
    #[error("white space and control characters are not allowed")]
    Characters,
    #[error("use {right} instead of {given}://")]
    Spelling { given: String, right: String },
    #[error(
        "scheme {given}:// is not supported; accepted schemes: {}",
        list(accepted)
    )]
    Unsupported {
        given: String,
        accepted: Vec<Scheme>,
    },
    #[error("{0}:// is read only")]
    ReadOnly(Scheme),
    #[error("must not contain credentials")]
    Credentials,
    #[error("must not contain a signed URL")]
    SignedUrl,
    #[error("? and # are not allowed: train.py would cut the path there")]
    QueryOrFragment,
    #[error("{0:?} is not allowed in a path")]
    PathCharacter(char),
    #[error("empty, . and .. segments are not allowed in a path")]
    Segment,
    #[error("malformed {scheme}:// URI: {rule}")]
    Malformed { scheme: Scheme, rule: &'static str },
}

impl StorageUri {
    /// Parses a URI for a field. `allowed` are the schemes that the operator accepts there, in the
    /// order in which errors list them.
    ///
    /// # Errors
    ///
    /// The first rule that the text breaks.
    pub fn parse(role: UriRole, text: &str, allowed: &[Scheme]) -> Result<Self, UriError> {
        if text.is_empty() {
            return Err(UriError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(UriError::TooLong(text.len()));
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(UriError::Characters);
        }
        let Some((given, rest)) = text.split_once("://").filter(|(s, _)| is_scheme(s)) else {
            return Err(UriError::NotAUri(allowed.to_vec()));
        };
        let scheme = scheme(given, allowed)?;
        check_role(role, scheme, allowed)?;
        check_secrets(rest)?;
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, path),
            None => (rest, ""),
        };
        check_authority(scheme, authority)?;
        let path = match role {
            UriRole::Dataset => path.strip_suffix('/').unwrap_or(path),
            UriRole::Checkpoint => path.trim_end_matches('/'),
        };
        check_path(scheme, path)?;
        let text = match role {
            UriRole::Dataset => text.to_string(),
            UriRole::Checkpoint => text.trim_end_matches('/').to_string(),
        };
        Ok(Self { text, scheme })
    }

    /// The URI: as given for a dataset, without trailing slashes for checkpoints.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The PersistentVolumeClaim of a `pvc://` URI.
    pub fn claim(&self) -> Option<&str> {
        let rest = self.text.strip_prefix("pvc://")?;
        rest.split('/').next()
    }
}

impl Scheme {
    const ALL: &[Self] = DATASET_SCHEMES;

    fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Abfss => "abfss",
            Self::Abfs => "abfs",
            Self::Az => "az",
            Self::Hf => "hf",
            Self::Pvc => "pvc",
            Self::File => "file",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut known = Self::ALL.iter().copied();
        known
            .find(|scheme| scheme.as_str() == text)
            .ok_or_else(|| format!("not one of {}", list(Self::ALL)))
    }
}

fn list(schemes: &[Scheme]) -> String {
    let names: Vec<&str> = schemes.iter().map(|scheme| scheme.as_str()).collect();
    names.join(", ")
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
}

fn scheme(given: &str, allowed: &[Scheme]) -> Result<Scheme, UriError> {
    let spelling = |right: &str| {
        Err(UriError::Spelling {
            given: given.to_string(),
            right: right.to_string(),
        })
    };
    let azure = "abfss://container@account.dfs.core.windows.net/...";
    match given {
        "s3a" | "s3n" => spelling("s3://"),
        "gcs" => spelling("gs://"),
        "wasb" | "wasbs" | "adl" => spelling(azure),
        _ if given.contains(|c: char| c.is_ascii_uppercase()) => {
            spelling(&format!("{}://", given.to_ascii_lowercase()))
        }
        _ => given.parse().map_err(|_| UriError::Unsupported {
            given: given.to_string(),
            accepted: allowed.to_vec(),
        }),
    }
}

fn check_role(role: UriRole, scheme: Scheme, allowed: &[Scheme]) -> Result<(), UriError> {
    if role == UriRole::Checkpoint && matches!(scheme, Scheme::Hf | Scheme::Https) {
        return Err(UriError::ReadOnly(scheme));
    }
    match allowed.contains(&scheme) {
        true => Ok(()),
        false => Err(UriError::Unsupported {
            given: scheme.to_string(),
            accepted: allowed.to_vec(),
        }),
    }
}

/// What must not end in the metadata of a job. The text is never repeated in the error.
fn check_secrets(rest: &str) -> Result<(), UriError> {
    let lower = rest.to_ascii_lowercase();
    let signed = ["sig=", "x-amz-signature=", "x-goog-signature="];
    if lower.contains('?') && signed.iter().any(|word| lower.contains(word)) {
        return Err(UriError::SignedUrl);
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    match user.is_some_and(|user| user.contains(':')) {
        true => Err(UriError::Credentials),
        false => Ok(()),
    }
}

fn check_authority(scheme: Scheme, authority: &str) -> Result<(), UriError> {
    let rule = match scheme {
        Scheme::S3 => s3_bucket(authority),
        Scheme::Gs => gs_bucket(authority),
        Scheme::Abfss | Scheme::Abfs if authority.contains('@') => azure_account(authority),
        Scheme::Abfss => Some("expected container@account.dfs.core.windows.net"),
        Scheme::Abfs | Scheme::Az => azure_container(authority),
        Scheme::Pvc => (!super::metadata::is_dns_subdomain(authority))
            .then_some("the claim must be a DNS name of a-z, 0-9, - and ."),
        Scheme::File => (!matches!(authority, "" | "localhost"))
            .then_some("expected an absolute path: file:///..."),
        Scheme::Hf | Scheme::Https => authority.is_empty().then_some("the host is missing"),
    };
    match rule {
        Some(rule) => Err(UriError::Malformed { scheme, rule }),
        None => Ok(()),
    }
}

/// Rules for using a bucket; aliases of access points and directory buckets are legal to use.
fn s3_bucket(bucket: &str) -> Option<&'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !(3..=63).contains(&bucket.len()) {
        return Some("the bucket must have 3 to 63 characters");
    }
    if !bucket.bytes().all(fits) {
        return Some("the bucket must be of a-z, 0-9, - and .");
    }
    if !has_alphanumeric_edges(bucket) || bucket.contains("..") || bucket.starts_with("xn--") {
        return Some(
            "the bucket must begin and end with a letter or digit, without .. and not xn--",
        );
    }
    is_ipv4(bucket).then_some("the bucket must not be an IP address")
}

fn gs_bucket(bucket: &str) -> Option<&'static str> {
    let longest = if bucket.contains('.') { 222 } else { 63 };
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if !(3..=longest).contains(&bucket.len()) {
        return Some("the bucket must have 3 to 63 characters, or 222 with dots");
    }
    if !bucket.bytes().all(fits) || !has_alphanumeric_edges(bucket) {
        return Some("the bucket must be of a-z, 0-9, -, _ and ., and end with a letter or digit");
    }
    (bucket.starts_with("goog") || is_ipv4(bucket))
        .then_some("the bucket must not begin with goog nor be an IP address")
}

fn azure_account(authority: &str) -> Option<&'static str> {
    let (container, host) = authority.split_once('@')?;
    let account = host.strip_suffix(".dfs.core.windows.net");
    let valid = account.is_some_and(|account| {
        (3..=24).contains(&account.len())
            && account
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    });
    match valid {
        true => azure_container(container),
        false => Some("expected container@account.dfs.core.windows.net"),
    }
}

fn azure_container(container: &str) -> Option<&'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = (3..=63).contains(&container.len())
        && container.bytes().all(fits)
        && has_alphanumeric_edges(container)
        && !container.contains("--");
    (!valid).then_some("the container must be 3 to 63 of a-z, 0-9 and single -")
}

fn has_alphanumeric_edges(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next()) && edge(text.bytes().last())
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}

fn check_path(scheme: Scheme, path: &str) -> Result<(), UriError> {
    if path.contains(['?', '#']) {
        return Err(UriError::QueryOrFragment);
    }
    if let Some(character) = path
        .chars()
        .find(|c| matches!(c, '*' | '[' | ']' | '$' | '\\'))
    {
        return Err(UriError::PathCharacter(character));
    }
    let malformed = |rule| Err(UriError::Malformed { scheme, rule });
    if path.is_empty() {
        return match scheme {
            Scheme::File => malformed("expected an absolute path: file:///..."),
            Scheme::Hf => malformed("expected hf://datasets/org/name or hf://org/name"),
            _ => Ok(()),
        };
    }
    if path
        .split('/')
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return Err(UriError::Segment);
    }
    match scheme {
        Scheme::S3 if path.len() > MAX_KEY_BYTES => malformed("the key is longer than 1024 bytes"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dataset(text: &str) -> Result<String, String> {
        let uri = StorageUri::parse(UriRole::Dataset, text, DATASET_SCHEMES);
        uri.map(|u| u.as_str().to_string())
            .map_err(|e| e.to_string())
    }

    fn checkpoint(text: &str) -> Result<String, String> {
        let uri = StorageUri::parse(UriRole::Checkpoint, text, CHECKPOINT_SCHEMES);
        uri.map(|u| u.as_str().to_string())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn every_supported_form_is_accepted() {
        for uri in [
            "s3://bucket",
            "s3://deepfinery-datasets/aml/v1/",
            "s3://alias-s3alias/dt=2025-01-01/a%20b.jsonl",
            "s3://name--use1-az4--x-s3/x",
            "gs://a_b.c/d",
            "abfss://data@acmestore.dfs.core.windows.net/sft/train.jsonl",
            "abfs://container/x",
            "az://container/x",
            "hf://datasets/org/name@main/file.jsonl",
            "hf://org/name",
            "pvc://claim/fx/train.jsonl",
            "pvc://claim.of.mine",
            "file:///data/x",
            "file://localhost/data/x",
            "https://example.org/x.jsonl",
        ] {
            assert_eq!(dataset(uri).as_deref(), Ok(uri));
        }
    }

    #[test]
    fn only_checkpoints_lose_their_trailing_slashes() {
        assert_eq!(
            checkpoint("s3://bucket/runs//").as_deref(),
            Ok("s3://bucket/runs")
        );
        assert_eq!(
            checkpoint("file:///tmp/runs/").as_deref(),
            Ok("file:///tmp/runs")
        );
        assert_eq!(dataset("s3://bucket/v1/").as_deref(), Ok("s3://bucket/v1/"));
    }

    #[test]
    fn each_mistake_is_told_with_the_right_spelling() {
        let schemes = "s3, gs, abfss, abfs, az, pvc, file";
        let not_a_uri = format!("not a URI (expected scheme://...); accepted schemes: {schemes}");
        for text in [
            "/data/x", "data/x", "s3:/b", "s3//b", "bucket/x", "C:\\runs", "://x",
        ] {
            assert_eq!(checkpoint(text), Err(not_a_uri.clone()), "{text}");
        }
        let azure = "abfss://container@account.dfs.core.windows.net/...";
        let cases = [
            ("", "must not be empty"),
            ("gcs://b/x", "use gs:// instead of gcs://"),
            ("s3a://b/x", "use s3:// instead of s3a://"),
            ("S3://bucket/x", "use s3:// instead of S3://"),
            (
                "wasbs://c@a.blob.core.windows.net/x",
                &format!("use {azure} instead of wasbs://"),
            ),
            (
                "hdfs://x/y",
                &format!("scheme hdfs:// is not supported; accepted schemes: {schemes}"),
            ),
            ("hf://org/name", "hf:// is read only"),
            ("https://x/y", "https:// is read only"),
            ("s3://key:secret@bucket/x", "must not contain credentials"),
            (
                "s3://bucket/x?X-Amz-Signature=1",
                "must not contain a signed URL",
            ),
            (
                "s3://bucket/x?y=1",
                "? and # are not allowed: train.py would cut the path there",
            ),
            (
                "s3://bucket/a//b",
                "empty, . and .. segments are not allowed in a path",
            ),
            (
                "s3://bucket/../b",
                "empty, . and .. segments are not allowed in a path",
            ),
            ("s3://bucket/*.json", "'*' is not allowed in a path"),
            ("s3://bucket/$(RANK)", "'$' is not allowed in a path"),
            (
                "s3://bucket/a b",
                "white space and control characters are not allowed",
            ),
            (
                "s3://ab/x",
                "malformed s3:// URI: the bucket must have 3 to 63 characters",
            ),
            (
                "s3://Bucket/x",
                "malformed s3:// URI: the bucket must be of a-z, 0-9, - and .",
            ),
            (
                "s3://10.0.0.1/x",
                "malformed s3:// URI: the bucket must not be an IP address",
            ),
            (
                "s3:///x",
                "malformed s3:// URI: the bucket must have 3 to 63 characters",
            ),
            (
                "gs://google/x",
                "malformed gs:// URI: the bucket must not begin with goog nor be an \
                               IP address",
            ),
            (
                "abfss://container/x",
                "malformed abfss:// URI: expected \
                                     container@account.dfs.core.windows.net",
            ),
            (
                "az://a--b/x",
                "malformed az:// URI: the container must be 3 to 63 of a-z, 0-9 and \
                             single -",
            ),
            (
                "pvc:///x",
                "malformed pvc:// URI: the claim must be a DNS name of a-z, 0-9, - and .",
            ),
            (
                "file://host/x",
                "malformed file:// URI: expected an absolute path: file:///...",
            ),
            (
                "file:///",
                "malformed file:// URI: expected an absolute path: file:///...",
            ),
        ];
        for (text, error) in cases {
            assert_eq!(checkpoint(text), Err(error.to_string()), "{text}");
        }
    }

    #[test]
    fn the_operator_may_allow_less() {
        let allowed = [Scheme::S3, Scheme::File];
        let error = StorageUri::parse(UriRole::Dataset, "gs://bucket/x", &allowed).unwrap_err();
        let text = "scheme gs:// is not supported; accepted schemes: s3, file";
        assert_eq!(error.to_string(), text);
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_makes_it_panic(text in r"(s3|pvc|file|az|abfss)?(://)?\PC{0,40}") {
            let _ = (dataset(&text), checkpoint(&text));
        }
    }
}
