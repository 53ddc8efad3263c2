//! Loads plugins for commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use tracing::warn;

use crate::config::PlanningSettings;
use crate::plugin::golden::SelfTests;
use crate::plugin::{Compiler, Limits, LoadError, Loader, LoaderSettings, Plugins, Registry};

/// The priority of compiling plugins while requests are served.
const COMPILING_STEPS_BACK: i32 = 10;

/// The plugins of a service. Each is compiled in a separate process.
pub(super) fn registry(settings: &PlanningSettings) -> anyhow::Result<Registry> {
    let compiler = Compiler::Child {
        program: std::env::current_exe()?,
        niceness: COMPILING_STEPS_BACK,
    };
    let data = settings.data_folder();
    let folder = settings.plugins_folder()?;
    let registry = open(settings, &folder, data, compiler, Registry::start)?;
    let is_empty = registry.current().all().next().is_none();
    if is_empty && !registry.is_pulling() {
        let folder = folder.display();
        warn!(%folder, "no plugin is loaded: the service is not ready until one is there");
    }
    Ok(registry)
}

/// The plugins of a short-lived command.
pub(super) fn load(settings: &PlanningSettings) -> anyhow::Result<Arc<Plugins>> {
    let data = settings.data_or_cache();
    let folder = settings.plugins_folder()?;
    let plugins = open(settings, &folder, data, Compiler::Here, Registry::open)?.current();
    ensure_any(&plugins, &folder)?;
    Ok(plugins)
}

fn open(
    settings: &PlanningSettings,
    folder: &Path,
    data: PathBuf,
    compiler: Compiler,
    registry: fn(Loader) -> Result<Registry, LoadError>,
) -> anyhow::Result<Registry> {
    if !folder.is_dir() {
        bail!(
            "the plugins folder {} does not exist. In the repository, build the plugins with `make \
             plugins`; elsewhere, set --plugins or TRAINER_PLUGINS. To use a running service \
             instead, run `trainer submit --dry-run -f FILE` or `trainer frameworks`",
            folder.display()
        );
    }
    let loader = Loader::open(LoaderSettings {
        folder: folder.to_path_buf(),
        data,
        limits: Limits::default(),
        unknown: settings.unknown_arguments(),
        compiler,
        own_tests: SelfTests::Run,
    });
    loader
        .and_then(registry)
        .with_context(|| format!("cannot load plugins from {}", folder.display()))
}

fn ensure_any(plugins: &Plugins, folder: &Path) -> anyhow::Result<()> {
    if plugins.all().next().is_none() {
        bail!(
            "no plugin could be loaded from {}; build the plugins with `make plugins`, or set \
             TRAINER_PLUGINS to another folder",
            folder.display()
        );
    }
    Ok(())
}
