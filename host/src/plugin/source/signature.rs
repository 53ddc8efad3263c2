//! Signatures as cosign makes them with a key of its own: ECDSA on P-256 over SHA-256. They are
//! verified offline, against public keys in PEM.
//!
//! A file is signed itself. Of an artifact in a registry a small JSON document is signed, which
//! names the digest of the artifact's manifest.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::SourceError;
use super::Digest;

/// Public keys, one of which has to have signed.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    /// The files that they are in, for messages.
    names: String,
    keys: Vec<VerifyingKey>,
}

/// What was signed, and with which result.
#[derive(Debug, Default)]
pub enum Signed {
    /// Nothing.
    #[default]
    Nothing,
    /// A file itself: a signature in base64.
    File(String),
    /// Documents that name the manifest with this digest.
    Manifest {
        digest: Digest,
        documents: Vec<SignedDocument>,
    },
}

/// One of cosign's documents and its signature.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedDocument {
    pub payload: String,
    /// In base64.
    pub signature: String,
}

impl KeySet {
    /// Reads public keys in PEM from files beneath a folder. No file is no requirement.
    ///
    /// # Errors
    ///
    /// Which file is no public key.
    pub fn read(folder: &Path, files: &[PathBuf]) -> Result<Option<Self>, String> {
        let mut set = Self::default();
        for file in files {
            let wrong = |why: String| format!("key {}: {why}", file.display());
            let pem = std::fs::read_to_string(folder.join(file));
            let pem = pem.map_err(|error| wrong(error.to_string()))?;
            let key = VerifyingKey::from_public_key_pem(&pem).map_err(|error| {
                wrong(format!(
                    "no public key of P-256 in PEM, as cosign's: {error}"
                ))
            })?;
            set.keys.push(key);
            let comma = if set.names.is_empty() { "" } else { ", " };
            set.names += &format!("{comma}{}", file.display());
        }
        Ok(Some(set).filter(|set| !set.keys.is_empty()))
    }

    /// Checks that one of the keys signed what has these bytes.
    ///
    /// # Errors
    ///
    /// When none did.
    pub fn check(&self, signed: &Signed, bytes: &[u8]) -> Result<(), SourceError> {
        let is_signed = match signed {
            Signed::Nothing => false,
            Signed::File(signature) => self.signed(bytes, signature),
            Signed::Manifest { digest, documents } => documents.iter().any(|document| {
                names(&document.payload, digest)
                    && self.signed(document.payload.as_bytes(), &document.signature)
            }),
        };
        match is_signed {
            true => Ok(()),
            false => Err(SourceError::Signature {
                keys: self.names.clone(),
            }),
        }
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

/// Whether a document is about this manifest.
fn names(payload: &str, digest: &Digest) -> bool {
    let payload: Value = serde_json::from_str(payload).unwrap_or_default();
    payload["critical"]["image"]["docker-manifest-digest"] == digest.to_string()
}

/// Signs a manifest with a private key in PEM (PKCS #8, not encrypted).
///
/// # Errors
///
/// When the key cannot be read.
pub fn sign_manifest(
    key: &str,
    repository: &str,
    digest: &Digest,
) -> Result<SignedDocument, String> {
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": repository },
            "image": { "docker-manifest-digest": digest.to_string() },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string();
    Ok(SignedDocument {
        signature: sign(key, payload.as_bytes())?,
        payload,
    })
}

/// Signs bytes with a private key in PEM (PKCS #8, not encrypted), and gives base64.
///
/// # Errors
///
/// When the key cannot be read.
pub fn sign(key: &str, bytes: &[u8]) -> Result<String, String> {
    let key = SigningKey::from_pkcs8_pem(key)
        .map_err(|error| format!("no private key of P-256 in PEM: {error}"))?;
    let signature: Signature = key.sign(bytes);
    Ok(STANDARD.encode(signature.to_der()))
}
