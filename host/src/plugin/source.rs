//! Fetches the bytes of plugins and verifies them.

pub mod oci;
pub mod signature;

use std::fmt;
use std::path::{Path, PathBuf};

use oci_client::Reference;
use sha2::{Digest as _, Sha256};

use super::limits::{CallLimits, Limits};
use super::{LoadError, SourceError, files};
use oci::{Artifact, Registries, Signatures, Wanted};
use signature::Signed;
pub use signature::{KeySet, SignedAs};

/// The maximum size of a signature file.
const MOST_SIGNATURE_BYTES: usize = 64 * 1024;

/// The SHA-256 of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(String);

/// The location of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    File(PathBuf),
    Registry(Reference),
}

/// A plugin to be served: its location, requirements and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The name for operators: `hf.wasm` or `oci://…`.
    pub name: String,
    pub location: Location,
    /// The framework that the plugin must provide. The name is reserved for it.
    pub framework: Option<String>,
    /// The expected digest of the file.
    pub digest: Option<Digest>,
    /// Whether a digest is required.
    pub(super) needs_digest: bool,
    /// Requires a signature by one key of each set.
    pub keys: Vec<KeySet>,
    /// The repository in the signature, if it differs from the source.
    pub signed_as: Option<SignedAs>,
    pub(super) registries: Registries,
    pub limits: CallLimits,
}

/// The verified bytes of a plugin.
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

    /// Parses a digest: `sha256:` followed by 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// If the text is not a valid digest.
    pub fn parse(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        match hex.len() == 64 && hex.chars().all(is_hex) {
            true => Ok(Self(hex.to_string())),
            false => Err(format!(
                "digest {text:?} is not valid; expected sha256: followed by 64 hexadecimal digits"
            )),
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
    /// Parses `oci://registry/name:tag@sha256:…`, or the path of a file relative to a folder.
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
            Some((scheme, _)) => Err(format!(
                "scheme {scheme}:// is not supported; use a path or oci://"
            )),
            None => Ok(Self::File(folder.join(text))),
        }
    }
}

impl Source {
    /// A source without requirements.
    pub fn new(name: String, location: Location, limits: CallLimits) -> Self {
        Self {
            name,
            location,
            framework: None,
            digest: None,
            needs_digest: false,
            keys: Vec::new(),
            signed_as: None,
            registries: Registries::One,
            limits,
        }
    }

    /// Fetches the bytes and verifies their size, digest and signature. Registry artifacts
    /// referenced by digest are cached in the folder `pulled`.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be fetched or verified.
    pub fn fetch(&self, limits: &Limits, pulled: &Path) -> Result<Fetched, LoadError> {
        match self.fetch_here(limits, pulled)? {
            Some(fetched) => Ok(fetched),
            None => self.fetch_from_registry(limits, pulled),
        }
    }

    /// Like [`Source::fetch`], but returns None if a registry would have to be queried.
    ///
    /// # Errors
    ///
    /// As [`Source::fetch`].
    pub fn fetch_here(&self, limits: &Limits, pulled: &Path) -> Result<Option<Fetched>, LoadError> {
        self.check_pin()?;
        let reference = match &self.location {
            Location::Registry(reference) => reference,
            Location::File(file) => {
                let bytes = files::read(file, limits.file_bytes)?;
                let signed = self.signature_beside(file)?;
                return self.checked(bytes, &signed).map(Some);
            }
        };
        let kept = oci::kept(self.wanted(reference, limits), pulled)?;
        let kept = kept.map(|artifact| self.checked_artifact(artifact, reference));
        // A signature that was added later is only in the registry.
        Ok(kept.and_then(Result::ok))
    }

    fn fetch_from_registry(&self, limits: &Limits, pulled: &Path) -> Result<Fetched, LoadError> {
        let Location::Registry(reference) = &self.location else {
            return Err(SourceError::Registry("it is a file".to_string()).into());
        };
        let wanted = self.wanted(reference, limits);
        let artifact = oci::pull(wanted, limits.pull_time, pulled)?;
        self.checked_artifact(artifact, reference)
    }

    fn wanted<'a>(&self, reference: &'a Reference, limits: &Limits) -> Wanted<'a> {
        Wanted {
            reference,
            most_bytes: limits.file_bytes,
            signatures: match self.keys.is_empty() {
                true => Signatures::Unneeded,
                false => Signatures::Needed,
            },
            registries: self.registries,
        }
    }

    fn check_pin(&self) -> Result<(), SourceError> {
        let is_pinned = match &self.location {
            Location::File(_) => self.digest.is_some(),
            Location::Registry(reference) => self.digest.is_some() || reference.digest().is_some(),
        };
        match self.needs_digest && !is_pinned {
            true => Err(SourceError::NoDigest),
            false => Ok(()),
        }
    }

    fn checked_artifact(
        &self,
        artifact: Artifact,
        reference: &Reference,
    ) -> Result<Fetched, LoadError> {
        let signed_as = self.signed_as.clone();
        let signed = artifact.signed(signed_as.unwrap_or_else(|| SignedAs::of(reference)));
        self.checked(artifact.bytes, &signed)
    }

    fn checked(&self, bytes: Vec<u8>, signed: &Signed) -> Result<Fetched, LoadError> {
        let digest = Digest::of(&bytes);
        if let Some(expected) = self.digest.as_ref().filter(|expected| **expected != digest) {
            return Err(LoadError::Source(SourceError::Digest {
                found: digest.to_string(),
                expected: expected.to_string(),
            }));
        }
        for keys in &self.keys {
            keys.check(signed, &bytes)?;
        }
        Ok(Fetched { bytes, digest })
    }

    /// The signature of a file is in a file beside it, as `cosign sign-blob` writes it.
    fn signature_beside(&self, file: &Path) -> Result<Signed, SourceError> {
        let mut beside = file.as_os_str().to_owned();
        beside.push(".sig");
        if self.keys.is_empty() {
            return Ok(Signed::default());
        }
        match files::read_text(Path::new(&beside), MOST_SIGNATURE_BYTES) {
            Ok(signature) => Ok(Signed::File(signature)),
            Err(error) => Err(SourceError::NoSignature(format!(
                "{}: {error}",
                Path::new(&beside).display()
            ))),
        }
    }
}
