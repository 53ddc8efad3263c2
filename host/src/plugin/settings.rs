//! `plugins.toml` in the plugins folder: sources, requirements and limits of plugins. Without the
//! file, every `*.wasm` in the folder is a plugin.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::limits::{CallLimits, KIB, Limits, MIB, MOST_MEMORY_BYTES};
use super::source::oci::Registries;
use super::source::{Digest, KeySet, Location, SignedAs, Source};
use super::{SourceError, check_name, files};
use crate::document;

/// The file's name.
pub const FILE: &str = "plugins.toml";
/// The maximum size of the file.
const MOST_BYTES: usize = 1 << 20;

/// The contents of the file.
#[derive(Debug)]
pub struct PluginSettings {
    pub limits: Limits,
    require: Require,
    listed: Vec<Source>,
}

/// Requirements for every plugin, listed or not.
#[derive(Debug, Default)]
struct Require {
    digest: bool,
    keys: Option<KeySet>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Wire {
    host: HostWire,
    defaults: CallWire,
    require: RequireWire,
    plugin: Vec<PluginWire>,
}

/// All plugins together.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct HostWire {
    concurrency: Option<u64>,
    queue_ms: Option<u64>,
    file_mib: Option<u64>,
    compile_seconds: Option<u64>,
    compile_memory_mib: Option<u64>,
    pull_seconds: Option<u64>,
}

/// One plugin, or those that say nothing else.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CallWire {
    time_ms: Option<u64>,
    memory_mib: Option<u64>,
    output_kib: Option<u64>,
    concurrency: Option<u64>,
    failures: Option<u64>,
    rest_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RequireWire {
    digest: bool,
    keys: Vec<PathBuf>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PluginWire {
    source: String,
    name: Option<String>,
    digest: Option<String>,
    #[serde(default)]
    keys: Vec<PathBuf>,
    signed_as: Option<String>,
    #[serde(default)]
    limits: CallWire,
}

impl PluginSettings {
    /// Reads the file in a folder. `defaults` are the limits that it does not set.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(folder: &Path, defaults: Limits) -> Result<Self, SourceError> {
        let file = folder.join(FILE);
        let text = match files::read_text(&file, MOST_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(wrong(&file, error)),
        };
        let wire: Wire =
            document::from_toml(&text).map_err(|found| wrong(&file, found.join("; ")))?;
        Self::check(wire, folder, defaults).map_err(|why| wrong(&file, why))
    }

    fn check(wire: Wire, folder: &Path, defaults: Limits) -> Result<Self, String> {
        let mut limits = wire.host.over(defaults)?;
        limits.call = wire.defaults.over(limits.call, "defaults")?;
        let require = Require {
            digest: wire.require.digest,
            keys: KeySet::read(folder, &wire.require.keys)?,
        };
        let mut listed: Vec<Source> = Vec::new();
        for plugin in wire.plugin {
            let name = plugin.source.clone();
            if listed.iter().any(|other| other.name == name) {
                return Err(format!("plugin {name}: listed twice"));
            }
            let source = plugin.source(folder, &limits.call);
            let source = source.map_err(|why| format!("plugin {name}: {why}"))?;
            let same_name =
                |other: &&Source| source.framework.is_some() && other.framework == source.framework;
            if let Some(other) = listed.iter().find(same_name) {
                return Err(format!(
                    "plugin {name}: the name is also used by {}",
                    other.name
                ));
            }
            listed.push(source);
        }
        let registries = registries(&listed);
        for source in &mut listed {
            source.registries = registries;
        }
        Ok(Self {
            limits,
            require,
            listed,
        })
    }

    /// All sources: those listed in the file, in order, then the other files of the folder.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn sources(self, folder: &Path) -> std::io::Result<Vec<Source>> {
        let mut sources = self.listed;
        for file in wasm_files(folder)? {
            let listed = |source: &Source| matches!(&source.location, Location::File(known) if *known == file);
            if !sources.iter().any(listed) {
                let name = file.file_name().unwrap_or_default().display().to_string();
                let location = Location::File(file);
                sources.push(Source::new(name, location, self.limits.call));
            }
        }
        for source in &mut sources {
            source.needs_digest |= self.require.digest;
            source.keys.extend(self.require.keys.clone());
        }
        Ok(sources)
    }
}

impl PluginWire {
    fn source(self, folder: &Path, defaults: &CallLimits) -> Result<Source, String> {
        let location = Location::parse(&self.source, folder)?;
        let limits = self.limits.over(*defaults, "limits")?;
        let mut source = Source::new(self.source, location, limits);
        source.digest = self.digest.as_deref().map(Digest::parse).transpose()?;
        source.keys.extend(KeySet::read(folder, &self.keys)?);
        source.signed_as = self.signed_as.as_deref().map(SignedAs::parse).transpose()?;
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        source.framework = self.name;
        Ok(source)
    }
}

impl HostWire {
    fn over(self, mut limits: Limits) -> Result<Limits, String> {
        let within = |name: &str, value, range| within("host", name, value, range);
        if let Some(value) = within("concurrency", self.concurrency, 1..=1024)? {
            limits.concurrent_calls = u32::try_from(value).unwrap_or(u32::MAX);
        }
        if let Some(value) = within("queue_ms", self.queue_ms, 0..=30_000)? {
            limits.queue = Duration::from_millis(value);
        }
        if let Some(value) = within("file_mib", self.file_mib, 1..=1024)? {
            limits.file_bytes = bytes(value, MIB);
        }
        if let Some(value) = within("compile_seconds", self.compile_seconds, 1..=3600)? {
            limits.compile_time = Duration::from_secs(value);
        }
        if let Some(value) = within("compile_memory_mib", self.compile_memory_mib, 64..=65_536)? {
            limits.compile_memory_bytes = bytes(value, MIB);
        }
        if let Some(value) = within("pull_seconds", self.pull_seconds, 1..=3600)? {
            limits.pull_time = Duration::from_secs(value);
        }
        Ok(limits)
    }
}

impl CallWire {
    fn over(self, mut limits: CallLimits, table: &str) -> Result<CallLimits, String> {
        let within = |name: &str, value, range| within(table, name, value, range);
        if let Some(value) = within("time_ms", self.time_ms, 10..=30_000)? {
            limits.time = Duration::from_millis(value);
        }
        let most = (MOST_MEMORY_BYTES / MIB) as u64;
        if let Some(value) = within("memory_mib", self.memory_mib, 1..=most)? {
            limits.memory_bytes = bytes(value, MIB);
        }
        if let Some(value) = within("output_kib", self.output_kib, 16..=65_536)? {
            limits.output_bytes = bytes(value, KIB);
        }
        if let Some(value) = within("concurrency", self.concurrency, 1..=1024)? {
            limits.concurrency = u32::try_from(value).unwrap_or(u32::MAX);
        }
        if let Some(value) = within("failures", self.failures, 1..=1000)? {
            limits.failures = u32::try_from(value).unwrap_or(u32::MAX);
        }
        if let Some(value) = within("rest_seconds", self.rest_seconds, 1..=3600)? {
            limits.rest = Duration::from_secs(value);
        }
        Ok(limits)
    }
}

/// Whether one login can apply to all listed registries.
fn registries(listed: &[Source]) -> Registries {
    let of_source = |source: &Source| match &source.location {
        Location::Registry(reference) => Some(reference.registry().to_string()),
        Location::File(_) => None,
    };
    let names: BTreeSet<String> = listed.iter().filter_map(of_source).collect();
    match names.len() {
        0 | 1 => Registries::One,
        _ => Registries::Several,
    }
}

fn within(
    table: &str,
    name: &str,
    value: Option<u64>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, String> {
    match value {
        Some(value) if !range.contains(&value) => Err(format!(
            "{table}.{name} = {value}: must be between {} and {}",
            range.start(),
            range.end()
        )),
        value => Ok(value),
    }
}

fn bytes(count: u64, unit: usize) -> usize {
    usize::try_from(count)
        .unwrap_or(usize::MAX)
        .saturating_mul(unit)
}

fn wrong(file: &Path, why: impl std::fmt::Display) -> SourceError {
    SourceError::Settings {
        file: file.to_path_buf(),
        why: why.to_string().trim().to_string(),
    }
}

fn wasm_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        match PluginSettings::read(folder.path(), Limits::default()) {
            Err(SourceError::Settings { why, .. }) => why,
            read => panic!("{read:?}"),
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_what_would_be_right() {
        assert_eq!(
            wrong("[defaults]\ntime_ms = 0\n"),
            "defaults.time_ms = 0: must be between 10 and 30000"
        );
        assert_eq!(
            wrong("[[plugin]]\nsource = \"a.wasm\"\nlimits = { memory_mib = 4096 }\n"),
            "plugin a.wasm: limits.memory_mib = 4096: must be between 1 and 1024"
        );
        assert_eq!(
            wrong("[[plugin]]\nsource = \"a.wasm\"\ndigest = \"sha256:12\"\n"),
            "plugin a.wasm: digest \"sha256:12\" is not valid; expected sha256: followed by 64 \
             hexadecimal digits"
        );
        assert_eq!(
            wrong("[[plugin]]\nsource = \"http://x\"\n"),
            "plugin http://x: scheme http:// is not supported; use a path or oci://"
        );
        assert_eq!(
            wrong("[[plugin]]\nsource = \"a.wasm\"\nname = \"xn--mta-hdc\"\n"),
            "plugin a.wasm: the name \"xn--mta-hdc\" is an encoded international name (xn--), \
             which could be mistaken for another name"
        );
        assert_eq!(
            wrong("[[plugin]]\nsource = \"a.wasm\"\nname = \"reload\"\n"),
            "plugin a.wasm: the name \"reload\" is reserved, because /frameworks/reload is an \
             operation; choose another name"
        );
        assert_eq!(
            wrong(
                "[[plugin]]\nsource = \"a.wasm\"\nname = \"a\"\n[[plugin]]\nsource = \
                 \"b.wasm\"\nname = \"a\"\n"
            ),
            "plugin b.wasm: the name is also used by a.wasm"
        );
        assert!(wrong("[defaults]\ntime = 1\n").contains("defaults: unknown field \"time\""));
        assert!(wrong("[require]\nkeys = [\"team.pub\"]\n").starts_with("key team.pub:"));
    }

    #[test]
    fn what_is_required_of_all_is_required_of_files_that_nobody_lists() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "[require]\ndigest = true\n").unwrap();
        std::fs::write(folder.path().join("a.wasm"), "").unwrap();
        let settings = PluginSettings::read(folder.path(), Limits::default()).unwrap();
        let sources = settings.sources(folder.path()).unwrap();
        let fetched = sources[0].fetch(&Limits::default(), folder.path());
        assert!(
            fetched
                .unwrap_err()
                .to_string()
                .contains("requires digests")
        );
    }
}
