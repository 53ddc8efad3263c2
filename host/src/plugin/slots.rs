//! The state of each source, and which source serves which framework.
//!
//! A served framework keeps its source. Another source gets the name only if `plugins.toml` assigns
//! the name to it, which is logged and counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{counter, gauge};
use tracing::{info, warn};

use super::source::{Digest, Source};
use super::{LoadError, Loader, Plugin, Plugins, Refused, RollbackError, SourceError, settings};
use crate::measure;

/// The state of every source.
#[derive(Default)]
pub(super) struct Slots {
    /// In the order of the settings.
    sources: Vec<Source>,
    by_source: BTreeMap<String, Slot>,
    /// Why `plugins.toml` or the folder cannot be read, if so.
    unreadable: Option<Arc<LoadError>>,
    /// Sources whose registry has not answered yet.
    pulling: BTreeMap<String, Pull>,
}

/// A registry that is being queried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pull {
    Begun,
    /// Another query was requested after it had started.
    Outdated,
}

/// The state of one source.
#[derive(Default)]
struct Slot {
    serving: Option<Arc<Plugin>>,
    /// The previous version.
    previous: Option<Arc<Plugin>>,
    /// The digest that was rolled back; it is not loaded again.
    held_back: Option<String>,
    refused: Option<Arc<LoadError>>,
}

impl Slots {
    /// Sets the current sources. Plugins of other sources are no longer served.
    pub(super) fn configure(&mut self, sources: &[Source]) {
        self.unreadable = None;
        self.sources = sources.to_vec();
        self.by_source.retain(|name, slot| {
            let stays = sources.iter().any(|source| source.name == *name);
            if let (false, Some(plugin)) = (stays, &slot.serving) {
                let framework = &plugin.identity.name;
                info!(source = name, framework, "a plugin was removed");
            }
            if !stays {
                gauge!(measure::PLUGIN_REFUSED.name, "source" => name.clone()).set(0.0);
            }
            stays
        });
    }

    /// Keeps the current plugins, because the sources are unknown.
    pub(super) fn unreadable(&mut self, error: LoadError) {
        let why = super::error_chain(&error);
        warn!(why, "reload failed; keeping the current plugins");
        self.unreadable = Some(Arc::new(error));
    }

    /// Requests a query of a source's registry, and returns whether to start it: a registry is
    /// never queried twice at the same time.
    pub(super) fn begin_pull(&mut self, source: &Source) -> bool {
        let begun = self.pulling.get_mut(&source.name);
        let begins = begun.is_none();
        match begun {
            Some(pull) => *pull = Pull::Outdated,
            None => drop(self.pulling.insert(source.name.clone(), Pull::Begun)),
        }
        begins
    }

    /// Records that a source's registry has responded, and returns the source if it must be queried
    /// again.
    pub(super) fn end_pull(&mut self, source: &str) -> Option<Source> {
        let pull = self.pulling.remove(source)?;
        let mut sources = self.sources.iter();
        let configured = sources.find(|configured| configured.name == source)?;
        (pull == Pull::Outdated).then(|| configured.clone())
    }

    /// Whether the configuration of a source is still the same.
    pub(super) fn has(&self, source: &Source) -> bool {
        self.sources.contains(source)
    }

    /// Whether a registry has not responded yet.
    pub(super) fn is_pulling(&self) -> bool {
        !self.pulling.is_empty()
    }

    /// The sources whose registry failed.
    pub(super) fn unreachable(&self) -> Vec<Source> {
        let failed = |source: &&Source| {
            let slot = self.by_source.get(&source.name);
            let refused = slot.and_then(|slot| slot.refused.as_deref());
            matches!(refused, Some(LoadError::Source(SourceError::Registry(_))))
        };
        self.sources.iter().filter(failed).cloned().collect()
    }

    /// Whether a source's bytes are already served or were rolled back.
    pub(super) fn knows(&mut self, source: &Source, digest: &Digest) -> bool {
        let digest = digest.to_string();
        let slot = self.by_source.entry(source.name.clone()).or_default();
        if slot.held_back.as_ref() == Some(&digest) {
            return true;
        }
        slot.held_back = None;
        let is_the_same = |plugin: &Arc<Plugin>| {
            plugin.identity.digest == digest && *plugin.limits() == source.limits
        };
        slot.serving.as_ref().is_some_and(is_the_same)
    }

    /// Serves the plugin of a source, or records why not.
    pub(super) fn note(&mut self, source: &Source, loaded: Result<Option<Plugin>, LoadError>) {
        let outcome = match &loaded {
            Ok(None) => None,
            Ok(Some(_)) => Some("loaded"),
            Err(_) => Some("refused"),
        };
        let noted = loaded.and_then(|plugin| match plugin {
            Some(plugin) => self.serve(source, plugin),
            None => self.check_served(source),
        });
        let outcome = noted.as_ref().map_or(Some("refused"), |()| outcome);
        if let Some(outcome) = outcome {
            let name = source.name.clone();
            counter!(measure::PLUGIN_LOADS.name, "source" => name, "outcome" => outcome)
                .increment(1);
        }
        self.set_refused(&source.name, noted.err());
    }

    fn set_refused(&mut self, source: &str, error: Option<LoadError>) {
        let slot = self.by_source.entry(source.to_string()).or_default();
        let value = f64::from(u8::from(error.is_some()));
        gauge!(measure::PLUGIN_REFUSED.name, "source" => source.to_string()).set(value);
        if let Some(error) = &error {
            let serving = slot.serving.as_ref().map(|p| p.identity.digest.as_str());
            let why = super::error_chain(error);
            warn!(source, why, serving, "a plugin was refused");
        }
        slot.refused = error.map(Arc::new);
    }

    fn serve(&mut self, source: &Source, plugin: Plugin) -> Result<(), LoadError> {
        let identity = plugin.identity.clone();
        if let Some(holder) = self.may_serve(source, &identity.name)? {
            self.displace(&holder, source, &identity.name);
        }
        info!(
            source = source.name,
            framework = identity.name,
            version = identity.version,
            digest = identity.digest,
            "a plugin is served"
        );
        let slot = self.by_source.entry(source.name.clone()).or_default();
        slot.serve(plugin);
        Ok(())
    }

    /// The assignment of names may have changed since.
    fn check_served(&self, source: &Source) -> Result<(), LoadError> {
        let slot = self.by_source.get(&source.name);
        let serving = slot.and_then(|slot| slot.serving.as_ref());
        match serving {
            Some(plugin) => self.may_serve(source, &plugin.identity.name).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Whether a source may serve a name, and which other source then loses it.
    fn may_serve(&self, source: &Source, name: &str) -> Result<Option<String>, LoadError> {
        let is_bound_to = |source: &&Source| source.framework.as_deref() == Some(name);
        if let Some(expected) = source.framework.clone().filter(|bound| bound != name) {
            let found = name.to_string();
            return Err(LoadError::OtherName { found, expected });
        }
        if let Some(bound) = self.sources.iter().find(is_bound_to)
            && bound.name != source.name
        {
            return Err(LoadError::NameBound {
                name: name.to_string(),
                holder: bound.name.clone(),
            });
        }
        let holder = self.holder(name).filter(|holder| *holder != source.name);
        match holder {
            Some(holder) if source.framework.is_none() => Err(LoadError::NameTaken {
                name: name.to_string(),
                holder: holder.to_string(),
            }),
            holder => Ok(holder.map(str::to_string)),
        }
    }

    fn displace(&mut self, holder: &str, source: &Source, name: &str) {
        warn!(
            framework = name,
            from = holder,
            to = source.name,
            "a framework is now served from another source, as set in plugins.toml"
        );
        counter!(measure::PLUGINS_DISPLACED.name, "framework" => name.to_string()).increment(1);
        if let Some(slot) = self.by_source.get_mut(holder) {
            *slot = Slot::default();
        }
        let bound = LoadError::NameBound {
            name: name.to_string(),
            holder: source.name.clone(),
        };
        self.set_refused(holder, Some(bound));
    }

    /// The source of a served framework.
    fn holder(&self, name: &str) -> Option<&str> {
        let serves = |slot: &Slot| {
            let serving = slot.serving.as_ref();
            serving.is_some_and(|plugin| plugin.identity.name == name)
        };
        let mut slots = self.by_source.iter();
        slots
            .find(|(_, slot)| serves(slot))
            .map(|(source, _)| source.as_str())
    }

    /// A snapshot of everything that is served.
    pub(super) fn served(&self, loader: &Loader) -> Plugins {
        let slots = self
            .sources
            .iter()
            .filter_map(|source| Some((&source.name, self.by_source.get(&source.name)?)));
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
        let plugins = slots.filter_map(|(_, slot)| slot.serving.clone());
        let pulling = self.pulling.keys().cloned().collect();
        Plugins::new(plugins, refused, pulling, loader)
    }

    /// Rolls back a framework to its previous version.
    ///
    /// # Errors
    ///
    /// When there is none, or its name is another one that is taken.
    pub(super) fn roll_back(&mut self, framework: &str) -> Result<String, RollbackError> {
        let not_loaded = || RollbackError::NotLoaded(framework.to_string());
        let none = || RollbackError::NoEarlierVersion(framework.to_string());
        let holder = self.holder(framework).ok_or_else(not_loaded)?.to_string();
        let previous = self
            .by_source
            .get(&holder)
            .and_then(|slot| slot.previous.clone());
        let previous = previous.ok_or_else(none)?;
        let name = previous.identity.name.clone();
        let source = self.sources.iter().find(|source| source.name == holder);
        let source = source.ok_or_else(not_loaded)?;
        match self.may_serve(source, &name) {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Err(RollbackError::NameTaken(name)),
        }
        info!(
            framework,
            to = previous.identity.digest,
            "a framework was rolled back"
        );
        let slot = self.by_source.entry(holder).or_default();
        slot.previous = None;
        let bad = slot.serving.replace(previous);
        slot.held_back = bad.map(|plugin| plugin.identity.digest.clone());
        Ok(name)
    }
}

impl Slot {
    fn serve(&mut self, plugin: Plugin) {
        let digest = plugin.identity.digest.clone();
        let replaced = self.serving.replace(Arc::new(plugin));
        // Changed limits do not count as a different version.
        if let Some(replaced) = replaced.filter(|old| old.identity.digest != digest) {
            self.previous = Some(replaced);
        }
        self.held_back = None;
    }
}
