//! cosign signatures with a key pair: ECDSA P-256 with SHA-256. They are verified offline, with
//! public keys in PEM format.
//!
//! Files are signed directly. For an artifact in a registry, a small JSON document with its
//! repository and manifest digest is signed. Both are compared with the requested ones, so that a
//! signature for another plugin by the same key is not accepted.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::Reference;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::{SourceError, files};
use super::Digest;

/// The document that cosign signs.
const COSIGN: &str = "cosign container image signature";
/// The maximum size of a public key file.
const MOST_KEY_BYTES: usize = 64 * 1024;

/// Public keys, one of which must have signed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeySet {
    /// Their files, for messages.
    names: String,
    keys: Vec<VerifyingKey>,
}

/// What was signed, and the signatures.
#[derive(Debug, Default)]
pub enum Signed {
    /// Nothing.
    #[default]
    Nothing,
    /// A file: a base64 signature.
    File(String),
    /// Documents, one of which must match this repository and manifest.
    Manifest {
        digest: Digest,
        signed_as: SignedAs,
        documents: Vec<SignedDocument>,
    },
}

/// The repository that a signature must be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedAs {
    /// This one, as `registry/name`.
    Repository(String),
    /// Any repository. A signature for another plugin by the same key is accepted too.
    Any,
}

impl SignedAs {
    /// The repository of a reference.
    pub fn of(reference: &Reference) -> Self {
        Self::Repository(repository(reference))
    }

    /// Parses a repository, or `*` for any.
    ///
    /// # Errors
    ///
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let reference: Result<Reference, _> = text.parse();
        reference
            .map(|reference| Self::of(&reference))
            .map_err(|error| {
                format!("signed_as {text:?} is neither a repository nor \"*\": {error}")
            })
    }

    fn accepts(&self, repository_signed: &str) -> bool {
        let Self::Repository(expected) = self else {
            return true;
        };
        let signed: Result<Reference, _> = repository_signed.parse();
        signed.is_ok_and(|signed| repository(&signed) == *expected)
    }
}

/// Without tag and digest. Docker Hub has two host names.
fn repository(reference: &Reference) -> String {
    let registry = match reference.registry() {
        "index.docker.io" => "docker.io",
        registry => registry,
    };
    format!("{registry}/{}", reference.repository())
}

/// The contents of a document. Duplicate names make it invalid.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

/// One of cosign's documents and its signature.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedDocument {
    pub payload: String,
    /// In base64.
    pub signature: String,
}

impl KeySet {
    /// Reads public keys in PEM format from files in a folder. Without files, no signature is
    /// required.
    ///
    /// # Errors
    ///
    /// Which file is not a valid public key.
    pub fn read(folder: &Path, files: &[PathBuf]) -> Result<Option<Self>, String> {
        let mut set = Self::default();
        for file in files {
            let wrong = |why: String| format!("key {}: {why}", file.display());
            let pem = files::read_text(&folder.join(file), MOST_KEY_BYTES);
            let pem = pem.map_err(|error| wrong(error.to_string()))?;
            let key = VerifyingKey::from_public_key_pem(&pem).map_err(|error| {
                wrong(format!(
                    "not a PEM-encoded P-256 public key, as written by cosign: {error}"
                ))
            })?;
            set.keys.push(key);
            let comma = if set.names.is_empty() { "" } else { ", " };
            set.names += &format!("{comma}{}", file.display());
        }
        Ok(Some(set).filter(|set| !set.keys.is_empty()))
    }

    /// Verifies that one of the keys signed these bytes.
    ///
    /// # Errors
    ///
    /// When none did.
    pub fn check(&self, signed: &Signed, bytes: &[u8]) -> Result<(), SourceError> {
        let by_none = || SourceError::Signature {
            keys: self.names.clone(),
        };
        match signed {
            Signed::Nothing => Err(by_none()),
            Signed::File(signature) => match self.signed(bytes, signature) {
                true => Ok(()),
                false => Err(by_none()),
            },
            Signed::Manifest {
                digest,
                signed_as,
                documents,
            } => {
                let mut others = Vec::new();
                for document in documents.iter().filter(|document| self.signed_it(document)) {
                    match document.names(digest) {
                        Some(repository) if signed_as.accepts(&repository) => return Ok(()),
                        Some(repository) => others.push(repository),
                        None => {}
                    }
                }
                match (others.pop(), signed_as) {
                    (Some(found), SignedAs::Repository(expected)) => Err(SourceError::SignedAs {
                        found,
                        expected: expected.clone(),
                    }),
                    _ => Err(by_none()),
                }
            }
        }
    }

    fn signed_it(&self, document: &SignedDocument) -> bool {
        self.signed(document.payload.as_bytes(), &document.signature)
    }

    fn signed(&self, bytes: &[u8], signature: &str) -> bool {
        let signature = STANDARD.decode(signature.trim()).unwrap_or_default();
        let Ok(signature) = Signature::from_der(&signature) else {
            return false;
        };
        self.keys
            .iter()
            .any(|key| key.verify(bytes, &signature).is_ok())
    }
}

impl SignedDocument {
    /// The repository of this document, if it is a cosign document for this manifest.
    fn names(&self, digest: &Digest) -> Option<String> {
        let payload: Payload = serde_json::from_str(&self.payload).ok()?;
        let Critical {
            identity,
            image,
            kind,
        } = payload.critical;
        let is_it = kind == COSIGN && image.docker_manifest_digest == digest.to_string();
        is_it.then_some(identity.docker_reference)
    }
}

/// Signs a manifest with a private key (PKCS #8 PEM, not encrypted).
///
/// # Errors
///
/// When the key cannot be read.
pub fn sign_manifest(
    key: &str,
    reference: &Reference,
    digest: &Digest,
) -> Result<SignedDocument, String> {
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": repository(reference) },
            "image": { "docker-manifest-digest": digest.to_string() },
            "type": COSIGN,
        },
        "optional": null,
    })
    .to_string();
    Ok(SignedDocument {
        signature: sign(key, payload.as_bytes())?,
        payload,
    })
}

/// Signs bytes with a private key (PKCS #8 PEM, not encrypted). Returns base64.
///
/// # Errors
///
/// When the key cannot be read.
pub fn sign(key: &str, bytes: &[u8]) -> Result<String, String> {
    let key = SigningKey::from_pkcs8_pem(key)
        .map_err(|error| format!("not a PEM-encoded P-256 private key: {error}"))?;
    let signature: Signature = key.sign(bytes);
    Ok(STANDARD.encode(signature.to_der()))
}

#[cfg(test)]
mod tests {
    use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};

    use super::*;

    struct Team {
        private: String,
        keys: KeySet,
    }

    impl Team {
        fn new() -> Self {
            // Any number below the order of the curve is a key.
            let key = SigningKey::from_slice(&[7; 32]).unwrap();
            let private = key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string();
            let public = VerifyingKey::from(&key)
                .to_public_key_pem(LineEnding::LF)
                .unwrap();
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("team.pub"), public).unwrap();
            let keys = KeySet::read(folder.path(), &["team.pub".into()]).unwrap();
            Self {
                private,
                keys: keys.unwrap(),
            }
        }

        fn signed(&self, payload: &str) -> SignedDocument {
            SignedDocument {
                payload: payload.to_string(),
                signature: sign(&self.private, payload.as_bytes()).unwrap(),
            }
        }

        /// Whether a payload is accepted of `registry.example.com/team/meta`.
        fn accepts(&self, payload: &str, signed_as: &str) -> Result<(), SourceError> {
            let signed = Signed::Manifest {
                digest: Digest::of(b"manifest"),
                signed_as: SignedAs::parse(signed_as).unwrap(),
                documents: vec![self.signed("nonsense"), self.signed(payload)],
            };
            self.keys.check(&signed, b"")
        }
    }

    fn payload(repository: &str, kind: &str) -> String {
        let digest = Digest::of(b"manifest");
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{repository}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":null}}"#
        )
    }

    const META: &str = "registry.example.com/team/meta";

    #[test]
    fn a_signature_counts_for_the_repository_that_it_names() {
        let team = Team::new();
        for signed in [META, "registry.example.com/team/meta:1.0"] {
            team.accepts(&payload(signed, COSIGN), META).unwrap();
        }
        for other in [
            "payments/other-repo",
            "team/meta",
            "registry.example.com/team/other",
            "registry.example.com:5000/team/meta",
            "evil.test/team/meta",
            "registry.example.com/team/meta/more",
            "",
        ] {
            let refused = team.accepts(&payload(other, COSIGN), META).unwrap_err();
            let message = refused.to_string();
            assert!(message.contains(&format!("for {other:?}")), "{message}");
        }
    }

    #[test]
    fn the_rule_about_repositories_can_be_relaxed() {
        let team = Team::new();
        let mirrored = payload(META, COSIGN);
        team.accepts(&mirrored, "mirror.example.com/meta")
            .unwrap_err();
        team.accepts(&mirrored, "*").unwrap();
        let hub = payload("index.docker.io/library/meta", COSIGN);
        team.accepts(&hub, "docker.io/library/meta").unwrap();
        assert!(SignedAs::parse("NO SUCH").is_err());
    }

    #[test]
    fn a_document_of_another_kind_or_manifest_or_with_names_given_twice_counts_for_nothing() {
        let team = Team::new();
        let honest = payload(META, COSIGN);
        let critical = honest.split_once(":{").unwrap().1;
        let critical = critical.split_once("},\"optional").unwrap().0;
        for wrong in [
            payload(META, "something else"),
            payload(META, "atomic container signature"),
            honest.replace(Digest::of(b"manifest").hex(), Digest::of(b"other").hex()),
            honest.replace("{\"critical", "{\"critical\":{},\"critical"),
            format!("{{\"critical\":{{{critical}}},\"critical\":{{{critical}}}}}"),
            honest.replace("\"type\"", "\"type\":\"x\",\"type\""),
            "[]".to_string(),
            "{}".to_string(),
        ] {
            let refused = team.accepts(&wrong, "*").unwrap_err();
            assert!(matches!(refused, SourceError::Signature { .. }), "{wrong}");
        }
    }
}
