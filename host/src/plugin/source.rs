//! Where a plugin's bytes come from, and whether they are those that the operator asks for.

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

/// Most bytes of the signature of a file.
const MOST_SIGNATURE_BYTES: usize = 64 * 1024;

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
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// As the operator calls it: `hf.wasm` or `oci://…`.
    pub name: String,
    pub location: Location,
    /// The framework that the plugin has to be. Nobody else gets this name.
    pub framework: Option<String>,
    /// What the file has to hash to.
    pub digest: Option<Digest>,
    /// Whether it is refused without a digest to compare with.
    pub(super) needs_digest: bool,
    /// A signature by one key of each set is required.
    pub keys: Vec<KeySet>,
    /// The repository that the signature names, where it is not the source's own.
    pub signed_as: Option<SignedAs>,
    pub(super) registries: Registries,
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
            Some((scheme, _)) => Err(format!(
                "scheme {scheme}:// is not supported; use a path or oci://"
            )),
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
            framework: None,
            digest: None,
            needs_digest: false,
            keys: Vec::new(),
            signed_as: None,
            registries: Registries::One,
            limits,
        }
    }

    /// Gets the bytes, and checks their size, digest and signature. Artifacts of a registry that
    /// are named by digest are kept in the folder `pulled`, so that they are asked for once.
    ///
    /// # Errors
    ///
    /// When they cannot be had, or are not those that were asked for.
    pub fn fetch(&self, limits: &Limits, pulled: &Path) -> Result<Fetched, LoadError> {
        match self.fetch_here(limits, pulled)? {
            Some(fetched) => Ok(fetched),
            None => self.fetch_from_registry(limits, pulled),
        }
    }

    /// Gets the bytes as [`Source::fetch`] does, or nothing where that takes a registry.
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
        // A signature that was added since is in the registry.
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

    /// The signature of a file stands beside it, as `cosign sign-blob` writes it.
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
