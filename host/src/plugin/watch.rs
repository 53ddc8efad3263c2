//! Looks at the plugins again when their folder changes, when it is replaced by another one, and
//! when the service gets SIGHUP. Asks registries again that could not be reached.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{info, warn};

use super::{Registry, Reload};

/// How long a folder has to be quiet: a file is written in many pieces.
const QUIET: Duration = Duration::from_millis(100);
/// The longest wait for quiet: a file may be written without end.
const LONGEST: Duration = Duration::from_secs(5);
/// How often it is checked that the folder is still the one that is watched.
const RECHECK: Duration = Duration::from_secs(2);
/// How often registries are asked again that could not be reached.
const RETRY: Duration = Duration::from_secs(60);

/// Why the registry has something to do.
#[derive(Clone, Copy)]
enum Occasion {
    Reload(Reload),
    Retry,
}

/// The folder that is watched.
struct Folder {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
    tell: mpsc::Sender<()>,
    /// Watches for as long as it lives.
    watcher: Option<RecommendedWatcher>,
}

/// Keeps a registry up to date for as long as the service runs.
pub async fn keep_current(registry: Arc<Registry>) {
    // The sender lives in the folder, so the channel never ends.
    let (tell, mut changed) = mpsc::channel(1);
    let mut folder = Folder::watched(registry.folder(), tell);
    let Ok(mut hang_up) = signal(SignalKind::hangup()) else {
        return;
    };
    let mut rechecks = interval_at(Instant::now() + RECHECK, RECHECK);
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
            _ = rechecks.tick() => match folder.was_replaced() {
                true => Occasion::Reload(Reload::Changed),
                false => continue,
            },
            _ = retries.tick() => Occasion::Retry,
        };
        let registry = registry.clone();
        // Compiling takes seconds: not on a thread that serves requests.
        let _ = tokio::task::spawn_blocking(move || match occasion {
            Occasion::Reload(look) => registry.reload(look),
            Occasion::Retry => registry.retry(),
        })
        .await;
    }
}

/// Waits until nothing has changed for a while.
async fn quiet(changed: &mut mpsc::Receiver<()>) {
    while timeout(QUIET, changed.recv()).await.is_ok() {}
}

impl Folder {
    fn watched(path: &Path, tell: mpsc::Sender<()>) -> Self {
        let mut folder = Self {
            path: path.to_path_buf(),
            identity: None,
            tell,
            watcher: None,
        };
        folder.watch();
        folder
    }

    fn watch(&mut self) {
        self.identity = identity(&self.path);
        match watcher(&self.path, self.tell.clone()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                warn!(%error, "cannot watch the plugins folder; send SIGHUP after a change");
                self.watcher = None;
            }
        }
    }

    /// Whether the path leads to another folder than before, which is then watched. A watch stays
    /// with a folder that is renamed, and does not see that a symbolic link is switched.
    fn was_replaced(&mut self) -> bool {
        let now = identity(&self.path);
        if now.is_none() || now == self.identity {
            return false;
        }
        info!(folder = %self.path.display(), "the plugins folder was replaced");
        self.watch();
        true
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn watcher(folder: &Path, tell: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // What reads the files, this service for one, changes nothing. An event that is lost was
        // followed by one that is not.
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            let _ = tell.try_send(());
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
