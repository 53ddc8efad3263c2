//! The thread of the watches. The list of ten thousand jobs takes a second to read, and no request is to
//! wait for that.

use std::sync::Arc;

use kube::Client;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::cache::{Cache, Scope};
use super::calls::Calls;
use super::failures;
use crate::cluster::ClusterError;

/// The watches of a cluster. They end when this is dropped.
pub(super) struct Watches {
    _stop: oneshot::Sender<()>,
}

impl Watches {
    /// Begins to watch some scopes. The clients are made on the runtime of the watches, which then
    /// drives their connections.
    pub(super) fn start(
        scopes: Vec<Scope>,
        clients: impl FnOnce() -> Result<(Client, Calls), ClusterError>,
    ) -> Result<(Arc<Cache>, Self), ClusterError> {
        let failed = |error| ClusterError::internal("starting the thread of the watches", error);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let entered = runtime.enter();
        let (client, calls) = clients()?;
        let (cache, mut tasks) = Cache::watch(&client, &scopes);
        for scope in scopes {
            let (client, calls) = (client.clone(), calls.clone());
            tasks.spawn(failures::keep(client, calls, cache.clone(), scope));
        }
        drop(entered);
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new()
            .name("cluster-watch".to_string())
            .spawn(move || run(&runtime, stopped, tasks))
            .map_err(failed)?;
        Ok((cache, Self { _stop: stop }))
    }
}

fn run(runtime: &Runtime, stopped: oneshot::Receiver<()>, tasks: JoinSet<()>) {
    // It ends when the sender is dropped, without a word.
    let _ = runtime.block_on(stopped);
    drop(tasks);
}
