//! Caches artifacts that are referenced by digest.
//!
//! The cache is not trusted. The manifest is compared with the reference by hash, the layer with
//! the manifest, and signed documents are verified as if they had just been pulled. So someone who
//! changes the folder can at most cause another pull.

use std::io::ErrorKind;
use std::path::Path;

use oci_client::Reference;
use tracing::warn;

use super::super::super::{LoadError, error_chain, files};
use super::super::Digest;
use super::super::signature::SignedDocument;
use super::download::MOST_MANIFEST_BYTES;
use super::{Artifact, Signatures, layer};

/// The maximum size of all signed documents of a manifest.
const MOST_DOCUMENTS_BYTES: usize = 64 << 20;

/// The cached artifact of a reference with a digest, if it is complete.
///
/// # Errors
///
/// When others can write the folder.
pub(super) fn find(
    reference: &Reference,
    most_bytes: usize,
    folder: &Path,
    signatures: Signatures,
) -> Result<Option<Artifact>, LoadError> {
    let named = reference.digest().map(Digest::parse);
    let (Some(Ok(digest)), Ok(metadata)) = (named, std::fs::metadata(folder)) else {
        return Ok(None);
    };
    files::check_private(&metadata).map_err(|source| LoadError::Kept {
        folder: folder.to_path_buf(),
        source,
    })?;
    Ok(whole(&digest, most_bytes, folder, signatures))
}

/// Stores an artifact.
///
/// # Errors
///
/// If it cannot be written, or other users can write to the folder.
pub(super) fn keep(artifact: &Artifact, folder: &Path) -> Result<(), LoadError> {
    let refuse = |source| LoadError::Kept {
        folder: folder.to_path_buf(),
        source,
    };
    let documents = serde_json::to_vec(&artifact.documents).unwrap_or_default();
    let (manifest, layer) = (Digest::of(&artifact.manifest), Digest::of(&artifact.bytes));
    files::private_folder(folder)
        .and_then(|()| files::write_private(&folder.join(layer.hex()), &artifact.bytes))
        .and_then(|()| files::write_private(&documents_file(folder, &manifest), &documents))
        .and_then(|()| files::write_private(&folder.join(manifest.hex()), &artifact.manifest))
        .map_err(refuse)
}

fn whole(
    digest: &Digest,
    most_bytes: usize,
    folder: &Path,
    signatures: Signatures,
) -> Option<Artifact> {
    let manifest = blob(folder, digest, MOST_MANIFEST_BYTES)?;
    let layer = layer(&manifest).ok()?;
    let bytes = blob(folder, &Digest::parse(&layer.digest).ok()?, most_bytes)?;
    let documents = match signatures {
        Signatures::Unneeded => Vec::new(),
        Signatures::Needed => documents(folder, digest)?,
    };
    Some(Artifact {
        manifest,
        bytes,
        documents,
    })
}

/// Reads cached bytes, if they still have the expected digest.
fn blob(folder: &Path, digest: &Digest, most: usize) -> Option<Vec<u8>> {
    let bytes = read(&folder.join(digest.hex()), most)?;
    if Digest::of(&bytes) == *digest {
        return Some(bytes);
    }
    warn!(%digest, "ignoring a cached plugin that was modified");
    None
}

fn documents(folder: &Path, manifest: &Digest) -> Option<Vec<SignedDocument>> {
    let documents = read(&documents_file(folder, manifest), MOST_DOCUMENTS_BYTES)?;
    let documents: Vec<SignedDocument> = serde_json::from_slice(&documents).ok()?;
    (!documents.is_empty()).then_some(documents)
}

fn documents_file(folder: &Path, manifest: &Digest) -> std::path::PathBuf {
    folder.join(format!("{}.signatures.json", manifest.hex()))
}

fn read(file: &Path, most: usize) -> Option<Vec<u8>> {
    match files::read_private(file, most) {
        Ok(bytes) => Some(bytes),
        Err(LoadError::Read(error)) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let (file, why) = (file.display(), error_chain(&error));
            warn!(%file, why, "ignoring a cached file");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    const MOST: usize = 1024;

    fn artifact(bytes: &[u8]) -> Artifact {
        let layer = json!({
            "mediaType": "application/wasm", "size": bytes.len(),
            "digest": Digest::of(bytes).to_string(),
        });
        let config = json!({"mediaType": "x", "size": 0, "digest": Digest::of(b"").to_string()});
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        Artifact {
            manifest: manifest.to_string().into_bytes(),
            bytes: bytes.to_vec(),
            documents: Vec::new(),
        }
    }

    fn reference(artifact: &Artifact) -> Reference {
        let digest = Digest::of(&artifact.manifest);
        format!("registry.example.com/team/meta@{digest}")
            .parse()
            .unwrap()
    }

    fn found(reference: &Reference, folder: &Path) -> Option<Vec<u8>> {
        let found = find(reference, MOST, folder, Signatures::Unneeded).unwrap();
        found.map(|artifact| artifact.bytes)
    }

    #[test]
    fn what_was_kept_is_found_by_its_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let honest = artifact(b"honest");
        keep(&honest, folder.path()).unwrap();
        let reference = reference(&honest);
        assert_eq!(found(&reference, folder.path()).unwrap(), b"honest");
        // Without the documents that a key would be asked for, it has to be pulled.
        let signed = find(&reference, MOST, folder.path(), Signatures::Needed);
        assert!(signed.unwrap().is_none());
    }

    #[test]
    fn another_manifest_layer_or_size_is_not_used() {
        let (honest, evil) = (artifact(b"honest"), artifact(b"evil"));
        let (digest, other) = (Digest::of(&honest.manifest), Digest::of(&evil.manifest));
        let layer = Digest::of(b"honest");
        let replace = |file: &Digest, bytes: &[u8]| {
            let folder = tempfile::tempdir().unwrap();
            keep(&honest, folder.path()).unwrap();
            keep(&evil, folder.path()).unwrap();
            files::write_private(&folder.path().join(file.hex()), bytes).unwrap();
            found(&reference(&honest), folder.path())
        };
        assert_eq!(replace(&digest, &evil.manifest), None);
        assert_eq!(replace(&layer, b"evil"), None);
        assert_eq!(replace(&layer, b"honest, and more"), None);
        assert_eq!(replace(&layer, &[0; MOST + 1]), None);
        assert_eq!(replace(&other, b"another").unwrap(), b"honest");
    }

    #[test]
    fn a_file_or_folder_that_others_can_write_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let honest = artifact(b"honest");
        keep(&honest, folder.path()).unwrap();
        let layer = folder.path().join(Digest::of(b"honest").hex());
        std::fs::set_permissions(&layer, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(found(&reference(&honest), folder.path()), None);
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let refused = find(
            &reference(&honest),
            MOST,
            folder.path(),
            Signatures::Unneeded,
        );
        assert!(matches!(refused, Err(LoadError::Kept { .. })));
        assert!(matches!(
            keep(&honest, folder.path()),
            Err(LoadError::Kept { .. })
        ));
    }
}
