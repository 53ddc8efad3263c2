//! Loads plugins from their sources: fetches, verifies, and compiles them or takes them from the
//! cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::Engine;

use super::cache::{Cache, Made};
use super::compiler::Compiler;
use super::golden::SelfTests;
use super::limits::Limits;
use super::settings::PluginSettings;
use super::source::{Fetched, Location, Source};
use super::{LoadError, Plugin, UnknownArguments, engine};

/// The settings of a loader.
#[derive(Clone, Debug)]
pub struct LoaderSettings {
    /// The folder with the plugins and `plugins.toml`.
    pub folder: PathBuf,
    /// The data folder for compiled and pulled plugins.
    pub data: PathBuf,
    /// The default limits, if `plugins.toml` sets none.
    pub limits: Limits,
    pub unknown: UnknownArguments,
    pub compiler: Compiler,
    pub own_tests: SelfTests,
}

/// What to reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Only new or changed plugins.
    Changed,
    /// Also plugins that were refused before.
    RetryRefused,
}

/// Loads plugins. All of them run in one engine.
pub struct Loader {
    settings: LoaderSettings,
    engine: Engine,
    cache: Cache,
    calls: Arc<Semaphore>,
}

impl Loader {
    /// Sets up the engine with the shared limits of `plugins.toml`. Changing these requires a
    /// restart.
    ///
    /// # Errors
    ///
    /// If the settings are invalid, the cache cannot be used, or the engine cannot be set up.
    pub fn open(mut settings: LoaderSettings) -> Result<Self, LoadError> {
        settings.limits = PluginSettings::read(&settings.folder, settings.limits)?.limits;
        let engine = engine::running(&settings.limits)
            .map_err(|error| LoadError::Engine(format!("{error:#}")))?;
        Ok(Self {
            cache: Cache::open(&settings.data.join("compiled-plugins"), &engine)?,
            calls: Arc::new(Semaphore::new(settings.limits.concurrent_calls as usize)),
            settings,
            engine,
        })
    }

    /// The folder of plugins.
    pub fn folder(&self) -> &Path {
        &self.settings.folder
    }

    /// The shared limits.
    pub fn limits(&self) -> Limits {
        self.settings.limits
    }

    pub(super) fn calls(&self) -> Arc<Semaphore> {
        self.calls.clone()
    }

    pub(super) fn unknown(&self) -> UnknownArguments {
        self.settings.unknown
    }

    /// All current sources.
    pub(super) fn sources(&self) -> Result<Vec<Source>, LoadError> {
        let folder = self.folder();
        let settings = PluginSettings::read(folder, self.settings.limits)?;
        settings.sources(folder).map_err(LoadError::Read)
    }

    /// Loads one plugin file, for its author.
    ///
    /// # Errors
    ///
    /// The reason why the file is not a valid plugin.
    pub fn file(&self, file: &Path) -> Result<Plugin, LoadError> {
        let name = file.file_name().unwrap_or_default();
        let here = Location::File(self.folder().join(name));
        let mut sources = self.sources()?.into_iter();
        let listed = sources.find(|source| source.location == here);
        let source = listed.unwrap_or_else(|| {
            Source::new(name.display().to_string(), here, self.settings.limits.call)
        });
        let fetched = self.fetch(&source)?;
        self.plugin(&source, &fetched, Reload::RetryRefused)
    }

    pub(super) fn fetch(&self, source: &Source) -> Result<Fetched, LoadError> {
        let pulled = self.settings.data.join("pulled-plugins");
        source.fetch(&self.settings.limits, &pulled)
    }

    /// Returns a plugin from the cache, or compiles, tests and caches it.
    pub(super) fn plugin(
        &self,
        source: &Source,
        fetched: &Fetched,
        look: Reload,
    ) -> Result<Plugin, LoadError> {
        let digest = fetched.digest.hex();
        let made = match self.cache.get(digest, &self.engine) {
            Some(made) => made,
            None => self.make(source, fetched, look)?,
        };
        let identity = (source.name.clone(), digest.to_string());
        let limits = &self.settings.limits;
        Plugin::new(made, identity, &self.engine, source.limits, limits)
    }

    fn make(&self, source: &Source, fetched: &Fetched, look: Reload) -> Result<Made, LoadError> {
        let digest = fetched.digest.hex();
        let limits = (self.settings.limits, source.limits);
        if let (Reload::Changed, Some(why)) = (look, self.cache.refusal(digest, &limits)) {
            return Err(LoadError::Tried(why));
        }
        let made = self.settings.compiler.make(
            &fetched.bytes,
            &self.cache.unfinished(digest),
            &self.settings.limits,
            source.limits,
            self.settings.own_tests,
        );
        let (compiled, description) = made.inspect_err(|error| {
            if error.is_about_the_plugin() {
                let why = super::compiler::error_chain(error);
                self.cache.put_refusal(digest, &limits, why);
            }
        })?;
        self.cache.put(digest, &compiled, &description)?;
        let lost = || LoadError::Compile("cannot read the compiled code".to_string());
        self.cache.get(digest, &self.engine).ok_or_else(lost)
    }
}
