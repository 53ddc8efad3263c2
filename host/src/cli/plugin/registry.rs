//! `trainer plugin push` and `pull`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::print;
use crate::plugin::inspect;
use crate::plugin::source::{Digest, KeySet, Location, SignedAs, Source, oci};
use crate::plugin::{CallLimits, Limits};

/// The arguments of `trainer plugin push`.
#[derive(Debug, Args)]
pub struct PushSettings {
    /// The plugin.
    file: PathBuf,
    /// Target: oci://registry/name:tag
    to: String,
    /// Sign the plugin with this private key (P-256, PKCS #8 in PEM).
    #[arg(long)]
    sign: Option<PathBuf>,
}

/// The arguments of `trainer plugin pull`.
#[derive(Debug, Args)]
pub struct PullSettings {
    /// Source: oci://registry/name:tag, or @sha256:… instead of the tag.
    from: String,
    /// File to write.
    #[arg(long, short)]
    output: PathBuf,
    /// Expected digest of the file.
    #[arg(long)]
    digest: Option<String>,
    /// Public key to verify the signature with.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Repository in the signature, if the plugin is a copy: registry/name, or * for any.
    #[arg(long)]
    signed_as: Option<String>,
}

pub(super) fn push(settings: &PushSettings) -> anyhow::Result<()> {
    let Location::Registry(reference) = location(&settings.to)? else {
        bail!(
            "{} is not a registry address; expected oci://registry/name:tag",
            settings.to
        );
    };
    let bytes = std::fs::read(&settings.file)
        .with_context(|| format!("cannot read {}", settings.file.display()))?;
    inspect::check(&inspect::inspect(&bytes)?)?;
    let key = settings.sign.as_ref().map(|file| {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    });
    let (digest, key) = (Digest::of(&bytes), key.transpose()?);
    let manifest = oci::push(&reference, bytes, key.as_deref())?;
    let (registry, name) = (reference.registry(), reference.repository());
    print(&format!(
        "oci://{registry}/{name}@{manifest}\ndigest = \"{digest}\"\n"
    ))
}

pub(super) fn pull(settings: &PullSettings) -> anyhow::Result<()> {
    let location = location(&settings.from)?;
    let mut source = Source::new(settings.from.clone(), location, CallLimits::default());
    let wrong = |why: String| anyhow::anyhow!(why);
    let digest = settings.digest.as_deref().map(Digest::parse);
    source.digest = digest.transpose().map_err(wrong)?;
    let keys: Vec<PathBuf> = settings.key.iter().cloned().collect();
    let keys = KeySet::read(Path::new(""), &keys).map_err(wrong)?;
    source.keys.extend(keys);
    let signed_as = settings.signed_as.as_deref().map(SignedAs::parse);
    source.signed_as = signed_as.transpose().map_err(wrong)?;
    // Private, with an unpredictable name, and removed afterwards.
    let kept = tempfile::tempdir().context("cannot create a temporary folder")?;
    let fetched = source.fetch(&Limits::default(), kept.path())?;
    std::fs::write(&settings.output, &fetched.bytes)
        .with_context(|| format!("cannot write {}", settings.output.display()))?;
    print(&format!(
        "{} {}\n",
        settings.output.display(),
        fetched.digest
    ))
}

fn location(text: &str) -> anyhow::Result<Location> {
    Location::parse(text, Path::new("")).map_err(|why| anyhow::anyhow!("{text}: {why}"))
}
