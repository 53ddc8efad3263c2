//! What is served now, and how it changes: as a whole, and never to something that was not tried.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use tracing::{info, warn};

use super::source::Source;
use super::{LoadError, Loader, Look, Plugin, Plugins, Refused, RollbackError, settings};
use crate::measure;

/// The plugins that are served. A request takes [`Registry::current`] once and stays with it.
pub struct Registry {
    loader: Loader,
    current: ArcSwap<Plugins>,
    /// By source. The lock is held for the whole of a change, so changes come one after the other.
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// In the order in which names are given away.
    order: Vec<String>,
    by_source: BTreeMap<String, Slot>,
    /// Why `plugins.toml` or the folder cannot be read.
    unreadable: Option<Arc<LoadError>>,
}

/// What one source has given.
#[derive(Default)]
struct Slot {
    serving: Option<Arc<Plugin>>,
    /// The version before.
    previous: Option<Arc<Plugin>>,
    /// The digest that somebody rolled back from: it is not loaded again.
    held_back: Option<String>,
    refused: Option<Arc<LoadError>>,
}

impl Registry {
    /// Loads everything that there is.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn open(loader: Loader) -> Result<Self, LoadError> {
        let mut slots = Slots::default();
        slots.load(&loader, loader.sources()?, Look::AtNews);
        let plugins = slots.served(&loader);
        Ok(Self {
            current: ArcSwap::from_pointee(plugins),
            slots: Mutex::new(slots),
            loader,
        })
    }

    /// What is served now.
    pub fn current(&self) -> Arc<Plugins> {
        self.current.load_full()
    }

    /// The folder of plugins.
    pub fn folder(&self) -> &Path {
        self.loader.folder()
    }

    /// Looks at every source again. What has changed is compiled and tried, which takes its time on
    /// this thread, and is then served as a whole; what cannot be loaded leaves its last good
    /// version serving.
    pub fn reload(&self, look: Look) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match self.loader.sources() {
            Ok(sources) => {
                slots.unreadable = None;
                slots.load(&self.loader, sources, look);
            }
            Err(error) => {
                let why = super::workshop::told(&error);
                warn!(why, "plugins are not looked at again: all stay as they are");
                slots.unreadable = Some(Arc::new(error));
            }
        }
        self.current.store(Arc::new(slots.served(&self.loader)));
    }

    /// Serves the version of a framework that was served before the present one, until its source
    /// changes again.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn roll_back(&self, framework: &str) -> Result<(), RollbackError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.roll_back(framework)?;
        self.current.store(Arc::new(slots.served(&self.loader)));
        Ok(())
    }
}

impl Slots {
    fn load(&mut self, loader: &Loader, sources: Vec<Source>, look: Look) {
        self.order = sources.iter().map(|source| source.name.clone()).collect();
        let order = &self.order;
        self.by_source.retain(|name, slot| {
            let stays = order.contains(name);
            if let (false, Some(plugin)) = (stays, &slot.serving) {
                info!(
                    source = name,
                    framework = plugin.identity.name,
                    "a plugin was removed"
                );
            }
            if !stays {
                gauge!(measure::PLUGIN_REFUSED.name, "source" => name.clone()).set(0.0);
            }
            stays
        });
        for source in sources {
            let slot = self.by_source.entry(source.name.clone()).or_default();
            slot.load(loader, &source, look);
        }
    }

    fn served(&self, loader: &Loader) -> Plugins {
        let slots = self
            .order
            .iter()
            .filter_map(|name| Some((name, self.by_source.get(name)?)));
        let refused = slots.clone().filter_map(|(name, slot)| {
            Some(Refused {
                source: name.clone(),
                error: slot.refused.clone()?,
                serving: slot.serving.as_ref().map(|p| p.identity.digest.clone()),
            })
        });
        let unreadable = self.unreadable.iter().map(|error| Refused {
            source: settings::FILE.to_string(),
            error: error.clone(),
            serving: None,
        });
        let refused = unreadable.chain(refused).collect();
        let candidates = slots.filter_map(|(_, slot)| slot.serving.clone());
        let served = Plugins::new(candidates, refused, loader);
        gauge!(measure::PLUGINS_SERVED.name).set(served.all().count() as f64);
        served
    }

    fn roll_back(&mut self, framework: &str) -> Result<(), RollbackError> {
        let is_it = |plugin: &Arc<Plugin>| plugin.identity.name == framework;
        let mut slots = self.by_source.values_mut();
        let slot = slots.find(|slot| slot.serving.as_ref().is_some_and(is_it));
        let slot = slot.ok_or_else(|| RollbackError::NotLoaded(framework.to_string()))?;
        let none = || RollbackError::NoEarlierVersion(framework.to_string());
        let previous = slot.previous.take().ok_or_else(none)?;
        info!(
            framework,
            to = previous.identity.digest,
            "a framework was rolled back"
        );
        let bad = slot.serving.replace(previous);
        slot.held_back = bad.map(|plugin| plugin.identity.digest.clone());
        Ok(())
    }
}

impl Slot {
    fn load(&mut self, loader: &Loader, source: &Source, look: Look) {
        let loaded = self.changed(loader, source, look);
        let outcome = match &loaded {
            Ok(None) => None,
            Ok(Some(_)) => Some("loaded"),
            Err(_) => Some("refused"),
        };
        if let Some(outcome) = outcome {
            let name = source.name.clone();
            counter!(measure::PLUGIN_LOADS.name, "source" => name, "outcome" => outcome)
                .increment(1);
        }
        let refused = loaded.is_err();
        match loaded {
            Ok(None) => self.refused = None,
            Ok(Some(plugin)) => {
                info!(
                    source = source.name,
                    framework = plugin.identity.name,
                    version = plugin.identity.version,
                    digest = plugin.identity.digest,
                    "a plugin is served"
                );
                self.serve(plugin);
            }
            Err(error) => {
                let serving = self.serving.as_ref().map(|p| p.identity.digest.as_str());
                let why = super::workshop::told(&error);
                warn!(source = source.name, why, serving, "a plugin was refused");
                self.refused = Some(Arc::new(error));
            }
        }
        let name = source.name.clone();
        gauge!(measure::PLUGIN_REFUSED.name, "source" => name).set(f64::from(u8::from(refused)));
    }

    /// The source's plugin, if it is another one than is served.
    fn changed(
        &mut self,
        loader: &Loader,
        source: &Source,
        look: Look,
    ) -> Result<Option<Plugin>, LoadError> {
        let fetched = loader.fetch(source)?;
        let digest = fetched.digest.to_string();
        if self.held_back.as_ref() == Some(&digest) {
            return Ok(None);
        }
        self.held_back = None;
        let is_the_same = |plugin: &Arc<Plugin>| {
            plugin.identity.digest == digest && *plugin.limits() == source.limits
        };
        match self.serving.as_ref().is_some_and(is_the_same) {
            true => Ok(None),
            false => loader.plugin(source, &fetched, look).map(Some),
        }
    }

    fn serve(&mut self, plugin: Plugin) {
        let digest = plugin.identity.digest.clone();
        let replaced = self.serving.replace(Arc::new(plugin));
        // Other limits are no other version.
        if let Some(replaced) = replaced.filter(|old| old.identity.digest != digest) {
            self.previous = Some(replaced);
        }
        self.held_back = None;
        self.refused = None;
    }
}
