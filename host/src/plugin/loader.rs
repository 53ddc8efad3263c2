//! From a source to a plugin that can be called: fetched, checked, made or taken out of the cache.

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

/// What a loader is to do.
#[derive(Clone, Debug)]
pub struct LoaderSettings {
    /// The folder of plugins and of `plugins.toml`.
    pub folder: PathBuf,
    /// The folder for what is kept: compiled plugins, and what came from registries.
    pub data: PathBuf,
    /// The limits where `plugins.toml` gives none.
    pub limits: Limits,
    pub unknown: UnknownArguments,
    pub compiler: Compiler,
    pub own_tests: SelfTests,
}

/// What is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// What was not seen before.
    Changed,
    /// What was refused before too.
    RetryRefused,
}

/// Loads plugins. All of them run in one engine, which lives as long as this.
pub struct Loader {
    settings: LoaderSettings,
    engine: Engine,
    cache: Cache,
    calls: Arc<Semaphore>,
}

impl Loader {
    /// Sets up the engine with what `plugins.toml` gives all plugins together; later changes of
    /// that take a restart.
    ///
    /// # Errors
    ///
    /// When the settings are wrong, the cache cannot be used, or no engine can be set up.
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

    /// What all plugins may use together, and each of them.
    pub fn limits(&self) -> Limits {
        self.settings.limits
    }

    pub(super) fn calls(&self) -> Arc<Semaphore> {
        self.calls.clone()
    }

    pub(super) fn unknown(&self) -> UnknownArguments {
        self.settings.unknown
    }

    /// Every source that there is now.
    pub(super) fn sources(&self) -> Result<Vec<Source>, LoadError> {
        let folder = self.folder();
        let settings = PluginSettings::read(folder, self.settings.limits)?;
        settings.sources(folder).map_err(LoadError::Read)
    }

    /// The plugin of one file, for its author.
    ///
    /// # Errors
    ///
    /// Why it is none.
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

    /// A plugin out of the cache, or compiled and tried and put there.
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
