//! Where a plugin's bytes come from, and whether they are those that the operator asks for.

mod at_most;
pub mod oci;
pub mod signature;

use std::fmt;
use std::path::{Path, PathBuf};

use oci_client::Reference;
use sha2::{Digest as _, Sha256};

use super::limits::CallLimits;
use super::{LoadError, SourceError};
pub use signature::KeySet;
use signature::Signed;

/// The SHA-256 of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(String);

/// Where a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    File(PathBuf),
    Registry(Reference),
}

/// A plugin that is to be served: where it is, what is required of it, what it may use.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the operator calls it: `hf.wasm` or `oci://…`.
    pub name: String,
    pub location: Location,
    /// What the file has to hash to.
    pub digest: Option<Digest>,
    /// Whether it is refused without a digest to compare with.
    pub(super) needs_digest: bool,
    /// A signature by one key of each set is required.
    pub keys: Vec<KeySet>,
    pub limits: CallLimits,
}

/// A plugin's bytes, which are those that were asked for.
#[derive(Debug)]
pub struct Fetched {
    pub bytes: Vec<u8>,
    pub digest: Digest,
}

impl Digest {
    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let hex = |byte: &u8| format!("{byte:02x}");
        Self(Sha256::digest(bytes).iter().map(hex).collect())
    }

    /// A digest as people write it, `sha256:` and 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// When it is not written so.
    pub fn parse(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        match hex.len() == 64 && hex.chars().all(is_hex) {
            true => Ok(Self(hex.to_string())),
            false => Err(format!("digest {text:?} is not sha256: and 64 hex digits")),
        }
    }

    /// Without the algorithm.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.0)
    }
}

impl Location {
    /// Reads `oci://registry/name:tag@sha256:…`, or the path of a file beneath a folder.
    ///
    /// # Errors
    ///
    /// When it is neither.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("oci", reference)) => {
                let read: Result<Reference, _> = reference.parse();
                read.map(Self::Registry).map_err(|error| error.to_string())
            }
            Some((scheme, _)) => Err(format!("scheme {scheme}:// is neither a path nor oci://")),
            None => Ok(Self::File(folder.join(text))),
        }
    }
}

impl Source {
    /// A source of which nothing is required.
    pub fn new(name: String, location: Location, limits: CallLimits) -> Self {
        Self {
            name,
            location,
            digest: None,
            needs_digest: false,
            keys: Vec::new(),
            limits,
        }
    }

    /// Gets the bytes, and checks their size, digest and signature. Artifacts of a registry are
    /// kept in the folder `pulled`, so that one that is pinned is asked for once.
    ///
    /// # Errors
    ///
    /// When they cannot be had, or are not those that were asked for.
    pub fn fetch(&self, most_bytes: usize, pulled: &Path) -> Result<Fetched, LoadError> {
        let is_pinned = match &self.location {
            Location::File(_) => self.digest.is_some(),
            Location::Registry(reference) => self.digest.is_some() || reference.digest().is_some(),
        };
        if self.needs_digest && !is_pinned {
            return Err(SourceError::NoDigest.into());
        }
        let needs = match self.keys.is_empty() {
            true => oci::Signatures::Unneeded,
            false => oci::Signatures::Needed,
        };
        let (bytes, signed) = match &self.location {
            Location::File(file) => {
                let bytes = read_at_most(file, most_bytes)?;
                (bytes, self.signature_beside(file)?)
            }
            Location::Registry(reference) => {
                let artifact = oci::pull(reference, most_bytes, pulled, needs)?;
                let signed = artifact.signed();
                (artifact.bytes, signed)
            }
        };
        let digest = Digest::of(&bytes);
        if let Some(expected) = self.digest.as_ref().filter(|expected| **expected != digest) {
            return Err(LoadError::Source(SourceError::Digest {
                found: digest.to_string(),
                expected: expected.to_string(),
            }));
        }
        for keys in &self.keys {
            keys.check(&signed, &bytes)?;
        }
        Ok(Fetched { bytes, digest })
    }

    /// The signature of a file stands beside it, as `cosign sign-blob` writes it.
    fn signature_beside(&self, file: &Path) -> Result<Signed, SourceError> {
        let mut beside = file.as_os_str().to_owned();
        beside.push(".sig");
        if self.keys.is_empty() {
            return Ok(Signed::default());
        }
        match std::fs::read_to_string(&beside) {
            Ok(signature) => Ok(Signed::File(signature)),
            Err(error) => Err(SourceError::NoSignature(format!(
                "{}: {error}",
                Path::new(&beside).display()
            ))),
        }
    }
}

/// A file's bytes, unless they are too many: then none is read.
pub(super) fn read_at_most(file: &Path, most: usize) -> Result<Vec<u8>, LoadError> {
    let size = std::fs::metadata(file).map_err(LoadError::Read)?.len();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > most {
        return Err(LoadError::Size {
            size,
            allowed: most,
        });
    }
    std::fs::read(file).map_err(LoadError::Read)
}
