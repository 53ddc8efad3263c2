//! Looks at the plugins again when their folder changes, when it is replaced by another one, and
//! when the service gets SIGHUP. Asks registries again that could not be reached.
//!
//! The system's notifications are quick and not to be relied on: network file systems send none, a
//! machine has a limit of them, and a watch stays with a folder that is renamed. So the folder is also
//! listed every few seconds and compared with what it was.

mod listing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{info, warn};

use super::{Registry, Reload};
use listing::Listing;

/// How long a folder must be unchanged before a reload, because files are written in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// The maximum wait, because a file may be written continuously.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a listing may take before the folder counts as one that does not answer.
const LISTING: Duration = Duration::from_secs(2);
/// The interval between attempts to reach a registry that is unreachable.
const RETRY: Duration = Duration::from_secs(60);

/// The reason for a reload.
#[derive(Clone, Copy)]
enum Occasion {
    Reload(Reload),
    Retry,
}

/// How changes of the folder are detected. `/readyz?verbose` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Watching {
    #[default]
    NotYet,
    /// The system reports changes, and the folder is listed as well.
    Notified { every: Duration },
    /// The folder is only listed, because the system does not report changes.
    Listed { every: Duration, why: String },
    /// Listing the folder does not come to an end, as on a mount whose server is gone.
    Silent,
}

impl std::fmt::Display for Watching {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotYet => formatter.write_str("not watched yet"),
            Self::Notified { every } => {
                let every = every.as_secs();
                write!(formatter, "watched, and listed every {every} s")
            }
            Self::Listed { every, why } => {
                let every = every.as_secs();
                write!(formatter, "listed every {every} s; not watched: {why}")
            }
            Self::Silent => formatter.write_str("it does not answer: what was loaded is served"),
        }
    }
}

/// The folder that is watched.
struct Folder {
    path: PathBuf,
    every: Duration,
    sender: mpsc::Sender<()>,
    /// Watches for as long as it lives. Else why there is none.
    watcher: Result<RecommendedWatcher, String>,
    /// As it was when the plugins were last looked at.
    known: Listing,
    /// As it was the last time.
    last: Listing,
    /// A listing that is not done yet.
    pending: Option<JoinHandle<Listing>>,
}

/// Keeps a registry up to date for as long as the service runs.
///
/// `every` says how often the folder is listed.
pub async fn keep_current(registry: Arc<Registry>, every: Duration) {
    // The sender lives in the folder, so the channel never ends.
    let (sender, mut changed) = mpsc::channel(1);
    let mut folder = Folder::watched(registry.folder(), every, sender).await;
    registry.note_watching(folder.watching());
    let Ok(mut hang_up) = signal(SignalKind::hangup()) else {
        return;
    };
    let mut rechecks = interval_at(Instant::now() + every, every);
    let mut retries = interval_at(Instant::now() + RETRY, RETRY);
    for turns in [&mut rechecks, &mut retries] {
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        let occasion = tokio::select! {
            _ = hang_up.recv() => {
                info!("received SIGHUP; reloading plugins");
                Occasion::Reload(Reload::RetryRefused)
            }
            _ = changed.recv() => {
                let _ = timeout(LONGEST, quiet(&mut changed)).await;
                Occasion::Reload(Reload::Changed)
            }
            _ = rechecks.tick() => {
                let seen = folder.look().await;
                registry.note_watching(match seen {
                    Seen::Nothing => Watching::Silent,
                    _ => folder.watching(),
                });
                match seen {
                    Seen::Change => Occasion::Reload(Reload::Changed),
                    Seen::Nothing | Seen::NoChange => continue,
                }
            },
            _ = retries.tick() => Occasion::Retry,
        };
        if matches!(occasion, Occasion::Reload(_)) {
            folder.take_note().await;
        }
        let registry = registry.clone();
        // Compiling takes seconds, so it must not block a worker thread.
        let _ = tokio::task::spawn_blocking(move || match occasion {
            Occasion::Reload(look) => registry.reload(look),
            Occasion::Retry => registry.retry(),
        })
        .await;
    }
}

/// Waits until the folder has not changed for a while.
async fn quiet(changed: &mut mpsc::Receiver<()>) {
    while timeout(QUIET, changed.recv()).await.is_ok() {}
}

/// What a look at the folder showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    NoChange,
    /// It is another one than the plugins were loaded from, and the same as the last time.
    Change,
    /// It did not answer.
    Nothing,
}

impl Folder {
    async fn watched(path: &Path, every: Duration, sender: mpsc::Sender<()>) -> Self {
        let mut folder = Self {
            path: path.to_path_buf(),
            every,
            watcher: watcher(path, sender.clone()),
            sender,
            known: Listing::default(),
            last: Listing::default(),
            pending: None,
        };
        if let Err(why) = &folder.watcher {
            let every = every.as_secs();
            warn!(
                why,
                every, "cannot watch the plugins folder; listing it instead"
            );
        }
        folder.take_note().await;
        folder
    }

    fn watching(&self) -> Watching {
        let every = self.every;
        match &self.watcher {
            Ok(_) => Watching::Notified { every },
            Err(why) => Watching::Listed {
                every,
                why: why.clone(),
            },
        }
    }

    /// Lists the folder, unless that takes too long: then a later look has the result.
    async fn list(&mut self) -> Option<Listing> {
        let path = self.path.clone();
        let listing = self
            .pending
            .get_or_insert_with(|| tokio::task::spawn_blocking(move || Listing::of(&path)));
        let listed = timeout(LISTING, listing).await.ok()?;
        self.pending = None;
        listed.ok()
    }

    /// Takes the folder as it is for what the plugins are loaded from.
    async fn take_note(&mut self) {
        if let Some(listing) = self.list().await {
            self.watch_again_if_replaced(&listing);
            self.known = listing.clone();
            self.last = listing;
        }
    }

    async fn look(&mut self) -> Seen {
        let Some(listing) = self.list().await else {
            return Seen::Nothing;
        };
        self.watch_again_if_replaced(&listing);
        // A file that is still being written is another one at each look.
        let is_quiet = listing == self.last;
        let changed = listing != self.known;
        self.last = listing;
        match is_quiet && changed {
            true => Seen::Change,
            false => Seen::NoChange,
        }
    }

    /// A watch stays with a folder that is renamed, and does not see that a symbolic link is switched.
    fn watch_again_if_replaced(&mut self, listing: &Listing) {
        let (before, now) = (self.last.folder(), listing.folder());
        if now.is_none() || before.is_none() || now == before {
            return;
        }
        info!(folder = %self.path.display(), "the plugins folder was replaced");
        self.watcher = watcher(&self.path, self.sender.clone());
    }
}

fn watcher(folder: &Path, sender: mpsc::Sender<()>) -> Result<RecommendedWatcher, String> {
    begin(folder, sender).map_err(|error| error.to_string())
}

fn begin(folder: &Path, sender: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Reads, including those by this service, change nothing. A lost event is always followed
        // by another one.
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            let _ = sender.try_send(());
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
