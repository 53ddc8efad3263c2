//! Plugins in OCI registries, as artifacts of one WebAssembly layer (`application/wasm`), which is
//! what other tools for WebAssembly in registries make and take too.

use std::io::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::CredentialRetrievalError::{
    ConfigNotFound, HelperCommunicationError, HelperFailure, MalformedHelperResponse,
    NoCredentialConfigured,
};
use docker_credential::{DockerCredential, get_credential};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::warn;

use super::super::{LoadError, SourceError};
use super::at_most::AtMost;
use super::signature::{Signed, SignedDocument, sign_manifest};
use super::{Digest, read_at_most};

const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
/// What cosign calls its documents, and the annotation that holds a document's signature.
const SIGNED: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Most bytes of a document that is signed.
const MOST_DOCUMENT_BYTES: usize = 64 * 1024;
/// How long a registry may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// Names and passwords for registries, before those of `docker login`.
const USER: &str = "TRAINER_REGISTRY_USER";
const PASSWORD: &str = "TRAINER_REGISTRY_PASSWORD";
/// The name by which docker keeps what belongs to `docker.io`.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Whether signatures are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    Needed,
    Unneeded,
}

/// A plugin from a registry.
#[derive(Debug)]
pub struct Artifact {
    pub manifest: Digest,
    pub bytes: Vec<u8>,
    documents: Vec<SignedDocument>,
}

/// What is kept of an artifact beside its bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    layer: String,
    documents: Vec<SignedDocument>,
}

impl Artifact {
    /// What was signed of it.
    pub(super) fn signed(&self) -> Signed {
        Signed::Manifest {
            digest: self.manifest.clone(),
            documents: self.documents.clone(),
        }
    }
}

/// Gets a plugin. One that is named by its manifest's digest and was got before is read from the
/// folder, without a registry.
///
/// # Errors
///
/// When the registry does not give it, or what it gives is not what was asked for.
pub fn pull(
    reference: &Reference,
    most_bytes: usize,
    kept: &Path,
    signatures: Signatures,
) -> Result<Artifact, LoadError> {
    if let Some(artifact) = kept_artifact(reference, most_bytes, kept, signatures) {
        return Ok(artifact);
    }
    let artifact = blocking(fetch(reference, most_bytes, signatures))??;
    keep(&artifact, kept).map_err(LoadError::Read)?;
    Ok(artifact)
}

/// Puts a plugin into a registry, and its signature beside it, and gives the manifest's digest.
///
/// # Errors
///
/// When the registry does not take it, or the key is none.
pub fn push(
    reference: &Reference,
    bytes: Vec<u8>,
    signing_key: Option<&str>,
) -> Result<Digest, LoadError> {
    blocking(store(reference, bytes, signing_key))?
}

fn kept_artifact(
    reference: &Reference,
    most_bytes: usize,
    folder: &Path,
    signatures: Signatures,
) -> Option<Artifact> {
    let manifest = Digest::parse(reference.digest()?).ok()?;
    let kept: Kept =
        serde_json::from_slice(&std::fs::read(manifest_file(folder, &manifest)).ok()?).ok()?;
    if signatures == Signatures::Needed && kept.documents.is_empty() {
        return None;
    }
    let layer = Digest::parse(&kept.layer).ok()?;
    let bytes = read_at_most(&layer_file(folder, &layer), most_bytes).ok()?;
    (Digest::of(&bytes) == layer).then_some(Artifact {
        manifest,
        bytes,
        documents: kept.documents,
    })
}

fn keep(artifact: &Artifact, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let layer = Digest::of(&artifact.bytes);
    let kept = Kept {
        layer: layer.to_string(),
        documents: artifact.documents.clone(),
    };
    write_whole(&layer_file(folder, &layer), &artifact.bytes)?;
    write_whole(
        &manifest_file(folder, &artifact.manifest),
        &serde_json::to_vec(&kept)?,
    )
}

fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&unfinished, bytes)?;
    std::fs::rename(unfinished, file)
}

fn manifest_file(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(format!("{}.json", digest.hex()))
}

fn layer_file(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(format!("{}.wasm", digest.hex()))
}

async fn fetch(
    reference: &Reference,
    most_bytes: usize,
    signatures: Signatures,
) -> Result<Artifact, LoadError> {
    let client = client(reference)?;
    let (manifest, digest) = manifest(&client, reference).await.map_err(failed)?;
    if let Some(expected) = reference.digest()
        && expected != digest.to_string()
    {
        return Err(LoadError::Source(SourceError::Digest {
            found: digest.to_string(),
            expected: expected.to_string(),
        }));
    }
    let [layer] = manifest.layers.as_slice() else {
        let why = format!("{} layers, a plugin has one", manifest.layers.len());
        return Err(SourceError::Registry(why).into());
    };
    let bytes = blob(&client, reference, layer, most_bytes).await?;
    let documents = match signatures {
        Signatures::Needed => documents(&client, reference, &digest).await?,
        Signatures::Unneeded => Vec::new(),
    };
    Ok(Artifact {
        manifest: digest,
        bytes,
        documents,
    })
}

async fn manifest(
    client: &Client,
    reference: &Reference,
) -> Result<(OciImageManifest, Digest), OciDistributionError> {
    let (bytes, _) = client
        .pull_manifest_raw(reference, &auth(reference), &[OCI_IMAGE_MEDIA_TYPE])
        .await?;
    Ok((serde_json::from_slice(&bytes)?, Digest::of(&bytes)))
}

async fn blob(
    client: &Client,
    reference: &Reference,
    layer: &OciDescriptor,
    most: usize,
) -> Result<Vec<u8>, LoadError> {
    let size = usize::try_from(layer.size).unwrap_or(usize::MAX);
    if size > most {
        let allowed = most;
        return Err(LoadError::Size { size, allowed });
    }
    let mut got = AtMost {
        bytes: Vec::with_capacity(size),
        most,
    };
    // By its digest alone: a descriptor may send the client anywhere.
    let pulled = client.pull_blob(reference, layer.digest.as_str(), &mut got);
    pulled.await.map_err(failed)?;
    let found = Digest::of(&got.bytes);
    match found.to_string() == layer.digest {
        true => Ok(got.bytes),
        false => Err(LoadError::Source(SourceError::Digest {
            found: found.to_string(),
            expected: layer.digest.clone(),
        })),
    }
}

/// The documents that were signed about a manifest: cosign keeps them under a tag that is made of
/// its digest.
async fn documents(
    client: &Client,
    reference: &Reference,
    digest: &Digest,
) -> Result<Vec<SignedDocument>, LoadError> {
    let reference = signatures_of(reference, digest);
    let none = |error| SourceError::NoSignature(format!("{reference}: {error}"));
    let (manifest, _) = manifest(client, &reference).await.map_err(none)?;
    let mut documents = Vec::new();
    for layer in &manifest.layers {
        let annotations = layer.annotations.as_ref();
        let Some(signature) = annotations.and_then(|known| known.get(SIGNATURE)) else {
            continue;
        };
        let payload = blob(client, &reference, layer, MOST_DOCUMENT_BYTES).await?;
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
    let client = client(reference)?;
    let digest = Digest::of(&bytes).to_string();
    let config = json!({
        "architecture": "wasm",
        "os": "unknown",
        "layerDigests": [digest],
    });
    let layer = Layer::new(LAYER, bytes);
    let manifest = upload(&client, reference, CONFIG, config.to_string(), layer).await?;
    if let Some(key) = signing_key {
        let wrong = |why: String| SourceError::NoSignature(why);
        let document = sign_manifest(key, reference.repository(), &manifest).map_err(wrong)?;
        let mut layer = Layer::new(SIGNED, document.payload.into_bytes());
        layer.annotations = json!({ SIGNATURE: document.signature });
        let beside = signatures_of(reference, &manifest);
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

/// Stores an artifact of one layer. The manifest is written here, so that its digest is known.
async fn upload(
    client: &Client,
    reference: &Reference,
    config_type: &str,
    config: String,
    layer: Layer,
) -> Result<Digest, LoadError> {
    client
        .store_auth_if_needed(reference.resolve_registry(), &auth(reference))
        .await;
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

fn signatures_of(reference: &Reference, digest: &Digest) -> Reference {
    Reference::with_tag(
        reference.registry().to_string(),
        reference.repository().to_string(),
        format!("sha256-{}.sig", digest.hex()),
    )
}

/// A registry on this very machine is spoken to in clear, as other clients do.
fn client(reference: &Reference) -> Result<Client, SourceError> {
    let registry = reference.resolve_registry().to_string();
    let host = registry
        .rsplit_once(':')
        .map_or(&*registry, |(host, _)| host);
    let is_here = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    // Whoever asks first decides, and everybody asks for the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(ClientConfig {
        protocol: match is_here {
            true => ClientProtocol::HttpsExcept(vec![registry]),
            false => ClientProtocol::Https,
        },
        read_timeout: Some(SILENCE),
        connect_timeout: Some(SILENCE),
        ..ClientConfig::default()
    })
    .map_err(|error| SourceError::Registry(error.to_string()))
}

/// The operator's name and password, else those of `docker login`, else none.
fn auth(reference: &Reference) -> RegistryAuth {
    if let (Ok(user), Ok(password)) = (std::env::var(USER), std::env::var(PASSWORD)) {
        return RegistryAuth::Basic(user, password);
    }
    let registry = match reference.resolve_registry() {
        "index.docker.io" => DOCKER_HUB,
        registry => registry,
    };
    // Not the error's own text: it repeats what a helper printed, and that may be a password.
    let cannot = match get_credential(registry) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            return RegistryAuth::Basic(user, password);
        }
        Err(NoCredentialConfigured | ConfigNotFound) => return RegistryAuth::Anonymous,
        Ok(DockerCredential::IdentityToken(_)) => "an identity token is none that it can use",
        Err(HelperCommunicationError | MalformedHelperResponse | HelperFailure { .. }) => {
            "the credential helper gave none"
        }
        Err(_) => "docker's config.json cannot be read",
    };
    warn!(
        registry,
        cannot, "the registry is asked without credentials"
    );
    RegistryAuth::Anonymous
}

fn failed(error: OciDistributionError) -> LoadError {
    SourceError::Registry(super::super::workshop::told(&error)).into()
}

/// Runs on a thread of its own, whatever thread this is: the caller may be a worker of a runtime.
fn blocking<T: Send>(work: impl Future<Output = T> + Send) -> Result<T, LoadError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(work))
        });
        let lost = || Err(Error::other("the download was lost"));
        thread.join().unwrap_or_else(|_| lost())
    })
    .map_err(LoadError::Read)
}
