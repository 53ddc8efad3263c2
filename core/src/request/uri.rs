//! Parses and validates the storage URIs of a request.
//!
//! Other services accept more and lose data later: an unknown scheme becomes a local folder in the
//! pod, and the checkpoints are lost with the pod. So common mistakes are refused, with the correct
//! spelling.

mod authority;

use std::fmt;
use std::str::FromStr;

use authority::{check_authority, check_repository, object_store_form};

/// The maximum length of a URI.
const MAX_BYTES: usize = 2048;
/// The maximum length of an S3 object key.
const MAX_KEY_BYTES: usize = 1024;
/// Bytes reserved for the run's files under `checkpoint_base_uri`:
/// `/<run_id>/framework=<name>/checkpoints/` takes at most 152, the folder of a step and its native
/// files the rest.
const MAX_RUN_BYTES: usize = 256;

/// The field that contains a URI.
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

/// The default schemes for datasets.
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

/// The default schemes for checkpoints.
pub const CHECKPOINT_SCHEMES: &[Scheme] = &[
    Scheme::S3,
    Scheme::Gs,
    Scheme::Abfss,
    Scheme::Abfs,
    Scheme::Az,
    Scheme::Pvc,
    Scheme::File,
];

/// A valid URI for training jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageUri {
    text: String,
    scheme: Scheme,
}

/// Why a text is not a valid URI. The message follows the name of the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("must not be empty")]
    Empty,
    #[error("{0} bytes, but at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    #[error("not a URI (expected scheme://...); accepted schemes: {}", list(.0))]
    NotAUri(Vec<Scheme>),
    #[error(
        "white space and control characters are not allowed; rename the object, or use the prefix \
         above it (%20 is not decoded)"
    )]
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
    #[error("{scheme}:// is read-only; {}", writable(.instead.as_deref()))]
    ReadOnly {
        scheme: Scheme,
        instead: Option<String>,
    },
    #[error("must not contain credentials")]
    Credentials,
    #[error("must not contain a signed URL{}", use_instead(.instead.as_deref()))]
    SignedUrl { instead: Option<String> },
    #[error(
        "? and # are not allowed, because train.py would cut the path there; rename the object or \
         folder"
    )]
    QueryOrFragment,
    #[error("{0:?} is not allowed in a path; rename the object or folder")]
    PathCharacter(char),
    #[error("empty segments, . and .. are not allowed in a path")]
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
    /// The first rule that the text violates.
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
        check_role(role, scheme, rest, allowed)?;
        check_secrets(scheme, rest)?;
        if rest.contains(['?', '#']) {
            return Err(UriError::QueryOrFragment);
        }
        let (authority, path) = split(rest);
        check_authority(scheme, authority)?;
        let path = match role {
            UriRole::Dataset if path == "/" => path,
            UriRole::Dataset => path.strip_suffix('/').unwrap_or(path),
            UriRole::Checkpoint => path.trim_end_matches('/'),
        };
        check_path(role, scheme, path)?;
        check_repository(scheme, rest)?;
        let text = match role {
            UriRole::Dataset => text.to_string(),
            UriRole::Checkpoint => text.trim_end_matches('/').to_string(),
        };
        Ok(Self { text, scheme })
    }

    /// The URI: unchanged for datasets, without trailing slashes for checkpoints.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A percent-encoded character such as `%20` that is not decoded. Only web servers decode it;
    /// in the key of an object or the name of a file it stands for three characters.
    pub fn undecoded(&self) -> Option<&str> {
        let mut signs = self.text.match_indices('%').map(|(at, _)| at);
        let encoded = signs.find_map(|at| {
            let encoded = self.text.get(at..at + 3)?;
            let is_hex = encoded.bytes().skip(1).all(|b| b.is_ascii_hexdigit());
            is_hex.then_some(encoded)
        });
        encoded.filter(|_| self.scheme != Scheme::Https)
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

fn use_instead(instead: Option<&str>) -> String {
    instead.map_or_else(String::new, |uri| format!("; use {uri} instead"))
}

/// What to write to in place of a scheme that can only be read.
fn writable(instead: Option<&str>) -> String {
    match instead {
        Some(uri) => format!("use {uri} instead"),
        None => "use a scheme that can be written, such as s3://".to_string(),
    }
}

/// Splits a text at its first slash.
fn split(rest: &str) -> (&str, &str) {
    rest.split_once('/').unwrap_or((rest, ""))
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
    let lower = given.to_ascii_lowercase();
    match lower.as_str() {
        "s3a" | "s3n" => spelling("s3://"),
        "gcs" => spelling("gs://"),
        "wasb" | "wasbs" | "adl" => spelling(azure),
        _ => match lower.parse::<Scheme>() {
            Ok(scheme) if lower == given => Ok(scheme),
            Ok(scheme) => spelling(&format!("{scheme}://")),
            Err(_) => Err(UriError::Unsupported {
                given: given.to_string(),
                accepted: allowed.to_vec(),
            }),
        },
    }
}

fn check_role(
    role: UriRole,
    scheme: Scheme,
    rest: &str,
    allowed: &[Scheme],
) -> Result<(), UriError> {
    if role == UriRole::Checkpoint && matches!(scheme, Scheme::Hf | Scheme::Https) {
        let instead = object_store_form(scheme, rest);
        return Err(UriError::ReadOnly { scheme, instead });
    }
    match allowed.contains(&scheme) {
        true => Ok(()),
        false => Err(UriError::Unsupported {
            given: scheme.to_string(),
            accepted: allowed.to_vec(),
        }),
    }
}

/// Refuses secrets, which must not end up in the metadata of a job. The error never repeats them.
fn check_secrets(scheme: Scheme, rest: &str) -> Result<(), UriError> {
    let lower = rest.to_ascii_lowercase();
    let signed = ["sig=", "x-amz-signature=", "x-goog-signature="];
    if lower.contains('?') && signed.iter().any(|word| lower.contains(word)) {
        let instead = object_store_form(scheme, rest);
        return Err(UriError::SignedUrl { instead });
    }
    let user = split(rest).0.rsplit_once('@').map(|(user, _)| user);
    // Web servers also accept a token without a password.
    match user.is_some_and(|user| user.contains(':') || scheme == Scheme::Https) {
        true => Err(UriError::Credentials),
        false => Ok(()),
    }
}

fn check_path(role: UriRole, scheme: Scheme, path: &str) -> Result<(), UriError> {
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
            _ => Ok(()),
        };
    }
    if path
        .split('/')
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return Err(UriError::Segment);
    }
    match (scheme, role) {
        (Scheme::S3, UriRole::Dataset) if path.len() > MAX_KEY_BYTES => {
            malformed("the key is longer than 1024 bytes")
        }
        (Scheme::S3, UriRole::Checkpoint) if path.len() > MAX_KEY_BYTES - MAX_RUN_BYTES => {
            malformed("the keys of the run's files would be longer than 1024 bytes")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
