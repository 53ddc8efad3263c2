//! Plugins in OCI registries: artifacts with one WebAssembly layer (`application/wasm`), compatible
//! with other tools for WebAssembly in registries.

mod download;
mod kept;
mod login;

use std::io::Error;
use std::path::Path;
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use oci_client::{Client, Reference};
use serde_json::json;

use super::super::{LoadError, SourceError, error_chain};
use super::Digest;
use super::signature::{Signed, SignedAs, SignedDocument, sign, sign_manifest};
use download::{Access, Repository};
pub use login::Registries;

const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
/// The media type of cosign's documents, and the annotation with a document's signature.
const SIGNED: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The maximum size of a signed document.
const MOST_DOCUMENT_BYTES: usize = 64 * 1024;
/// The maximum number of documents read per manifest.
const MOST_DOCUMENTS: usize = 512;
/// Timeouts for connecting and for inactivity while pushing.
const SILENCE: Duration = Duration::from_secs(30);

/// Whether to fetch signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    Needed,
    Unneeded,
}

/// What to pull from a registry.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub reference: &'a Reference,
    /// Largest plugin.
    pub most_bytes: usize,
    pub signatures: Signatures,
    pub registries: Registries,
}

/// A plugin from a registry.
#[derive(Debug)]
pub struct Artifact {
    manifest: Vec<u8>,
    pub bytes: Vec<u8>,
    documents: Vec<SignedDocument>,
}

impl Artifact {
    /// Its signed documents.
    pub(super) fn signed(&self, signed_as: SignedAs) -> Signed {
        Signed::Manifest {
            digest: Digest::of(&self.manifest),
            signed_as,
            documents: self.documents.clone(),
        }
    }
}

/// Finds a cached plugin by the digest of its manifest.
///
/// # Errors
///
/// If other users can write to the folder.
pub fn kept(wanted: Wanted<'_>, folder: &Path) -> Result<Option<Artifact>, LoadError> {
    let Wanted {
        reference,
        most_bytes,
        signatures,
        ..
    } = wanted;
    kept::find(reference, most_bytes, folder, signatures)
}

/// Pulls a plugin with a time limit, and caches it in a folder.
///
/// # Errors
///
/// If the registry does not respond in time, or the response is invalid.
pub fn pull(wanted: Wanted<'_>, within: Duration, folder: &Path) -> Result<Artifact, LoadError> {
    let late = |_| {
        let seconds = within.as_secs();
        SourceError::Registry(format!(
            "it took more than {seconds} s (limit pull_seconds)"
        ))
    };
    let artifact = blocking(async {
        let fetched = tokio::time::timeout(within, fetch(wanted)).await;
        fetched.map_err(late)?
    })??;
    // If it cannot be cached, it is pulled again next time.
    if wanted.reference.digest().is_some() {
        kept::keep(&artifact, folder)?;
    }
    Ok(artifact)
}

/// Pushes a plugin and its signature, and returns the manifest's digest.
///
/// # Errors
///
/// If the registry rejects it, or the key is invalid.
pub fn push(
    reference: &Reference,
    bytes: Vec<u8>,
    signing_key: Option<&str>,
) -> Result<Digest, LoadError> {
    blocking(store(reference, bytes, signing_key))?
}

async fn fetch(wanted: Wanted<'_>) -> Result<Artifact, LoadError> {
    let reference = wanted.reference;
    let login = login::login(reference, wanted.registries);
    let mut repository = Repository::new(reference, login, Access::Pull)?;
    let which = reference.digest().or(reference.tag()).unwrap_or("latest");
    let manifest = repository.manifest(which).await?;
    let digest = Digest::of(&manifest);
    if let Some(expected) = reference.digest()
        && expected != digest.to_string()
    {
        return Err(other_digest(&digest, expected));
    }
    let layer = layer(&manifest)?;
    let bytes = blob(&mut repository, &layer, wanted.most_bytes).await?;
    let documents = match wanted.signatures {
        Signatures::Needed => documents(&mut repository, &digest).await?,
        Signatures::Unneeded => Vec::new(),
    };
    Ok(Artifact {
        manifest,
        bytes,
        documents,
    })
}

/// The only layer of a plugin's manifest.
fn layer(manifest: &[u8]) -> Result<OciDescriptor, LoadError> {
    let manifest = parsed(manifest)?;
    let count = manifest.layers.len();
    let wrong = |_| SourceError::Registry(format!("expected exactly one layer, found {count}"));
    let one: Result<[OciDescriptor; 1], _> = manifest.layers.try_into();
    let [layer] = one.map_err(wrong)?;
    Ok(layer)
}

fn parsed(manifest: &[u8]) -> Result<OciImageManifest, SourceError> {
    serde_json::from_slice(manifest)
        .map_err(|error| SourceError::Registry(format!("invalid manifest: {error}")))
}

async fn blob(
    repository: &mut Repository,
    layer: &OciDescriptor,
    most: usize,
) -> Result<Vec<u8>, LoadError> {
    let size = usize::try_from(layer.size).unwrap_or(usize::MAX);
    if size > most {
        let allowed = most;
        return Err(LoadError::Size { size, allowed });
    }
    // Only by digest: the URLs of a descriptor could send the client anywhere.
    let digest = Digest::parse(&layer.digest).map_err(SourceError::Registry)?;
    let bytes = repository.blob(&layer.digest, most).await?;
    let found = Digest::of(&bytes);
    match found == digest {
        true => Ok(bytes),
        false => Err(other_digest(&found, &layer.digest)),
    }
}

fn other_digest(found: &Digest, expected: &str) -> LoadError {
    LoadError::Source(SourceError::Digest {
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

/// The signed documents about a manifest. cosign stores them under a tag derived from its digest.
async fn documents(
    repository: &mut Repository,
    digest: &Digest,
) -> Result<Vec<SignedDocument>, LoadError> {
    let tag = signature_tag(digest);
    let none = |error| SourceError::NoSignature(format!("{tag}: {error}"));
    let manifest = parsed(&repository.manifest(&tag).await.map_err(none)?)?;
    let mut documents = Vec::new();
    for layer in manifest.layers.iter().take(MOST_DOCUMENTS) {
        let annotations = layer.annotations.as_ref();
        let Some(signature) = annotations.and_then(|known| known.get(SIGNATURE)) else {
            continue;
        };
        let payload = blob(repository, layer, MOST_DOCUMENT_BYTES).await?;
        documents.push(SignedDocument {
            payload: String::from_utf8_lossy(&payload).into_owned(),
            signature: signature.clone(),
        });
    }
    Ok(documents)
}

async fn store(
    reference: &Reference,
    bytes: Vec<u8>,
    signing_key: Option<&str>,
) -> Result<Digest, LoadError> {
    let wrong = |why: String| SourceError::NoSignature(why);
    if let Some(key) = signing_key {
        // A key of the wrong kind must not leave an artifact without a signature.
        sign(key, &bytes).map_err(wrong)?;
    }
    let client = client(reference).await?;
    let digest = Digest::of(&bytes).to_string();
    let config = json!({
        "architecture": "wasm",
        "os": "unknown",
        "layerDigests": [digest],
    });
    let layer = Layer::new(LAYER, bytes);
    let manifest = upload(&client, reference, CONFIG, config.to_string(), layer).await?;
    if let Some(key) = signing_key {
        let document = sign_manifest(key, reference, &manifest).map_err(wrong)?;
        let mut layer = Layer::new(SIGNED, document.payload.into_bytes());
        layer.annotations = json!({ SIGNATURE: document.signature });
        let beside = Reference::with_tag(
            reference.registry().to_string(),
            reference.repository().to_string(),
            signature_tag(&manifest),
        );
        let config = "application/vnd.oci.image.config.v1+json";
        upload(&client, &beside, config, "{}".to_string(), layer).await?;
    }
    Ok(manifest)
}

struct Layer {
    media_type: &'static str,
    bytes: Vec<u8>,
    annotations: serde_json::Value,
}

impl Layer {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            media_type,
            bytes,
            annotations: json!({}),
        }
    }
}

/// Pushes an artifact with one layer. The manifest is serialized here, so that its digest is known.
async fn upload(
    client: &Client,
    reference: &Reference,
    config_type: &str,
    config: String,
    layer: Layer,
) -> Result<Digest, LoadError> {
    let (config, of_layer) = (config.into_bytes(), Digest::of(&layer.bytes));
    let of_config = Digest::of(&config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE_MEDIA_TYPE,
        "config": {
            "mediaType": config_type,
            "digest": of_config.to_string(),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": layer.media_type,
            "digest": of_layer.to_string(),
            "size": layer.bytes.len(),
            "annotations": layer.annotations,
        }],
    })
    .to_string()
    .into_bytes();
    for (bytes, digest) in [(layer.bytes, of_layer), (config, of_config)] {
        client
            .push_blob(reference, bytes, &digest.to_string())
            .await
            .map_err(failed)?;
    }
    let digest = Digest::of(&manifest);
    let media_type = OCI_IMAGE_MEDIA_TYPE.parse();
    let media_type = media_type.map_err(|_| SourceError::Registry("media type".to_string()))?;
    let pushed = client.push_manifest_raw(reference, manifest, media_type);
    pushed.await.map_err(failed)?;
    Ok(digest)
}

/// The tag under which cosign stores the signatures of a manifest.
fn signature_tag(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// An authenticated client. A token server that may not receive the password is never contacted.
async fn client(reference: &Reference) -> Result<Client, LoadError> {
    let login = login::login(reference, Registries::One);
    let auth = Repository::new(reference, login, Access::Push)?
        .login()
        .await?;
    let registry = reference.resolve_registry();
    let client = Client::try_from(ClientConfig {
        protocol: match login::address(reference)?.scheme() {
            "http" => ClientProtocol::HttpsExcept(vec![registry.to_string()]),
            _ => ClientProtocol::Https,
        },
        read_timeout: Some(SILENCE),
        connect_timeout: Some(SILENCE),
        ..ClientConfig::default()
    })
    .map_err(failed)?;
    client.store_auth_if_needed(registry, &auth).await;
    Ok(client)
}

fn failed(error: OciDistributionError) -> LoadError {
    SourceError::Registry(error_chain(&error)).into()
}

/// Runs on a separate thread, because the caller may be a runtime worker.
fn blocking<T: Send>(work: impl Future<Output = T> + Send) -> Result<T, LoadError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let done = runtime.block_on(work);
            // A name lookup cannot be cancelled; nothing waits for it.
            runtime.shutdown_background();
            Ok(done)
        });
        let lost = || Err(Error::other("the download task ended unexpectedly"));
        thread.join().unwrap_or_else(|_| lost())
    })
    .map_err(LoadError::Read)
}
