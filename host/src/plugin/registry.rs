//! The plugins that are currently served. Changes are atomic, and only to tested plugins.
//!
//! An OCI registry can be slow, unavailable or malicious, so nothing waits for one: each is queried
//! on its own thread with a deadline, and its plugin is served once it has arrived. The state is
//! locked only briefly, never during a query or a compilation.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use metrics::gauge;
use tracing::warn;

use super::slots::Slots;
use super::source::{Fetched, Location, Source};
use super::watch::Watching;
use super::{LoadError, Loader, Plugins, Reload, RollbackError};
use crate::measure;

/// How long the service waits for registries at startup. Most respond immediately, so their plugins
/// are available to the first request.
const PATIENCE_AT_START: Duration = Duration::from_secs(2);

/// The served plugins. Each request calls [`Registry::current`] once.
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    loader: Loader,
    current: ArcSwap<Plugins>,
    slots: Mutex<Slots>,
    /// Held while a plugin is compiled and tried: one after the other.
    making: Mutex<()>,
    watching: Mutex<Watching>,
}

/// What a source gave, by its place among those that were looked at.
type Pulled = (usize, Result<Fetched, LoadError>);

impl Registry {
    /// Loads everything that there is, however long registries take.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn open(loader: Loader) -> Result<Self, LoadError> {
        // Each pull has its own deadline.
        Self::begin(loader, Duration::MAX)
    }

    /// Loads everything that is on this machine. What registries do not give at once is served
    /// when it comes.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn start(loader: Loader) -> Result<Self, LoadError> {
        Self::begin(loader, PATIENCE_AT_START)
    }

    fn begin(loader: Loader, patience: Duration) -> Result<Self, LoadError> {
        let sources = loader.sources()?;
        let shared = Arc::new(Shared {
            current: ArcSwap::from_pointee(Slots::default().served(&loader)),
            slots: Mutex::default(),
            making: Mutex::default(),
            watching: Mutex::default(),
            loader,
        });
        shared.slots().configure(&sources);
        shared.look_at(sources, Reload::Changed, patience);
        Ok(Self { shared })
    }

    /// What is served now.
    pub fn current(&self) -> Arc<Plugins> {
        self.shared.current.load_full()
    }

    /// The folder of plugins.
    pub fn folder(&self) -> &Path {
        self.shared.loader.folder()
    }

    /// How changes of the folder are noticed.
    pub fn watching(&self) -> Watching {
        let watching = self.shared.watching.lock();
        watching.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note_watching(&self, watching: Watching) {
        let known = self.shared.watching.lock();
        *known.unwrap_or_else(PoisonError::into_inner) = watching;
    }

    /// Whether some registry has not answered yet.
    pub fn is_pulling(&self) -> bool {
        self.shared.slots().is_pulling()
    }

    /// Looks at every source again. What has changed is compiled and tried, which takes its time on
    /// this thread, and is then served as a whole; what cannot be loaded leaves its last good
    /// version serving. Registries are not waited for.
    pub fn reload(&self, look: Reload) {
        match self.shared.loader.sources() {
            Ok(sources) => {
                self.shared.slots().configure(&sources);
                self.shared.look_at(sources, look, Duration::ZERO);
            }
            Err(error) => {
                let mut slots = self.shared.slots();
                slots.unreadable(error);
                self.shared.publish(&slots);
            }
        }
    }

    /// Retries registries that could not be reached.
    pub fn retry(&self) {
        let sources = self.shared.slots().unreachable();
        self.shared
            .look_at(sources, Reload::Changed, Duration::ZERO);
    }

    /// Serves the version of a framework that was served before the present one, until its source
    /// changes again. Gives the name of that version, which may be another one.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn roll_back(&self, framework: &str) -> Result<String, RollbackError> {
        let mut slots = self.shared.slots();
        let served = slots.roll_back(framework)?;
        self.shared.publish(&slots);
        Ok(served)
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads sources in order, so that conflicts over names are decided in that order at startup.
    /// Registries that take longer than `patience` are loaded on a separate thread.
    fn look_at(self: &Arc<Self>, sources: Vec<Source>, look: Reload, patience: Duration) {
        let (sender, receiver) = channel();
        for (place, source) in sources.iter().enumerate() {
            if matches!(source.location, Location::Registry(_)) && self.slots().begin_pull(source) {
                self.pull(place, source.clone(), sender.clone());
            }
        }
        drop(sender);
        let mut pulled = within(patience, &receiver);
        for (place, source) in sources.iter().enumerate() {
            match source.location {
                Location::File(_) => self.load(source, self.loader.fetch(source), look),
                Location::Registry(_) => {
                    if let Some(fetched) = pulled.remove(&place) {
                        self.load_pulled(source, fetched, look);
                    }
                }
            }
        }
        let slots = self.slots();
        self.publish(&slots);
        if slots.is_pulling() {
            self.clone().load_later(sources, receiver, look);
        }
    }

    fn pull(self: &Arc<Self>, place: usize, source: Source, sender: Sender<Pulled>) {
        let shared = self.clone();
        let name = source.name.clone();
        let thread = std::thread::Builder::new().name("pull".to_string());
        let started = thread.spawn(move || {
            let fetched = shared.loader.fetch(&source);
            // The receiver is gone only when the service is shutting down.
            let _ = sender.send((place, fetched));
        });
        if let Err(error) = started {
            warn!(source = name, %error, "not checking a registry");
            self.slots().end_pull(&name);
        }
    }

    /// Loads plugins as registries respond.
    fn load_later(self: Arc<Self>, sources: Vec<Source>, receiver: Receiver<Pulled>, look: Reload) {
        let started = std::thread::Builder::new()
            .name("pulled".to_string())
            .spawn(move || {
                for (place, fetched) in receiver {
                    self.load_pulled(&sources[place], fetched, look);
                    self.publish(&self.slots());
                }
            });
        if let Err(error) = started {
            warn!(%error, "not loading plugins from registries");
        }
    }

    /// Loads the plugin that a registry returned, and queries the registry again if that was
    /// requested meanwhile.
    fn load_pulled(
        self: &Arc<Self>,
        source: &Source,
        fetched: Result<Fetched, LoadError>,
        look: Reload,
    ) {
        self.load(source, fetched, look);
        let again = self.slots().end_pull(&source.name);
        if let Some(source) = again {
            self.look_at(vec![source], look, Duration::ZERO);
        }
    }

    /// Loads the plugin of a source, if it differs from the one that is served.
    fn load(&self, source: &Source, fetched: Result<Fetched, LoadError>, look: Reload) {
        let _one_at_a_time = self.making.lock();
        let loaded = fetched.and_then(|fetched| {
            let is_known = self.slots().knows(source, &fetched.digest);
            match is_known {
                true => Ok(None),
                false => self.loader.plugin(source, &fetched, look).map(Some),
            }
        });
        let mut slots = self.slots();
        if slots.has(source) {
            slots.note(source, loaded);
        }
    }

    /// Publishes the current state atomically.
    fn publish(&self, slots: &Slots) {
        let served = Arc::new(slots.served(&self.loader));
        gauge!(measure::PLUGINS_SERVED.name).set(served.all().count() as f64);
        let before = self.current.swap(served.clone());
        for plugin in before.all() {
            let framework = &plugin.identity.name;
            if served.get(framework).is_none() {
                let source = &plugin.source;
                warn!(framework, source, "a framework is no longer served");
            }
        }
    }
}

/// Receives messages until a deadline.
fn within(
    patience: Duration,
    receiver: &Receiver<Pulled>,
) -> BTreeMap<usize, Result<Fetched, LoadError>> {
    let begun = Instant::now();
    let next = || {
        receiver
            .recv_timeout(patience.saturating_sub(begun.elapsed()))
            .ok()
    };
    std::iter::from_fn(next).collect()
}
