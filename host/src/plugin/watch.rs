//! Looks at the plugins again when their folder changes, or when the service gets SIGHUP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Look, Registry};

/// How long a folder has to be quiet: a file is written in many pieces.
const QUIET: Duration = Duration::from_millis(100);

/// Keeps a registry up to date for as long as the service runs.
pub async fn keep_current(registry: Arc<Registry>) {
    let (tell, mut changed) = mpsc::channel(1);
    let watcher = watch(registry.folder(), tell.clone());
    if let Err(error) = &watcher {
        warn!(%error, "the folder of plugins is not watched: send SIGHUP after a change");
    }
    let Ok(mut hang_up) = signal(SignalKind::hangup()) else {
        return;
    };
    loop {
        let look = tokio::select! {
            _ = hang_up.recv() => {
                info!("SIGHUP: looking at the plugins again");
                Look::AtRefused
            }
            // `tell` lives here, so the channel never ends.
            _ = changed.recv() => {
                quiet(&mut changed).await;
                Look::AtNews
            }
        };
        let registry = registry.clone();
        // Compiling takes seconds: not on a thread that serves requests.
        let _ = tokio::task::spawn_blocking(move || registry.reload(look)).await;
    }
}

/// Waits until nothing has changed for a while.
async fn quiet(changed: &mut mpsc::Receiver<()>) {
    while tokio::time::timeout(QUIET, changed.recv()).await.is_ok() {}
}

fn watch(folder: &Path, tell: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
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
