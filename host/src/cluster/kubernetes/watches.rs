//! The thread of the watches. The list of ten thousand jobs takes a second to read, and no request is to
//! wait for that.

use std::sync::Arc;

use http::Response;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tower::util::MapResponseLayer;

use super::cache::{Cache, Scope};
use super::calls::Calls;
use super::{failures, unusable};
use crate::cluster::ClusterError;
use crate::scheduling::yield_to_others;

/// The watches of a cluster. They end when this is dropped.
pub(super) struct Watches {
    _stop: oneshot::Sender<()>,
}

impl Watches {
    /// Begins to watch some scopes. The clients are made on the runtime of the watches, which then
    /// drives their connections. `once` is for calls that are not to be repeated.
    pub(super) fn start(
        scopes: Vec<Scope>,
        configuration: &Config,
        once: &Config,
    ) -> Result<(Arc<Cache>, Self), ClusterError> {
        let failed = |error| ClusterError::internal("starting the watch thread", error);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let entered = runtime.enter();
        let pods = Client::try_from(configuration.clone()).map_err(unusable)?;
        let calls = Calls::new(Client::try_from(once.clone()).map_err(unusable)?);
        let cache = Cache::of(&scopes);
        let mut tasks = JoinSet::new();
        for scope in scopes {
            let jobs = client_that_tells(configuration, &cache, &scope)?;
            tasks.spawn(cache.clone().follow(scope.clone(), jobs));
            let (pods, calls) = (pods.clone(), calls.clone());
            tasks.spawn(failures::keep(pods, calls, cache.clone(), scope));
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

/// A client for the watch of a scope that tells the cache whenever the API server answers: from
/// events alone nobody could tell a quiet cluster from one that is away.
fn client_that_tells(
    configuration: &Config,
    cache: &Arc<Cache>,
    scope: &Scope,
) -> Result<Client, ClusterError> {
    let (cache, scope) = (cache.clone(), scope.clone());
    let tell = move |response: Response<_>| {
        if response.status().is_success() {
            cache.heard(&scope);
        }
        response
    };
    let builder = ClientBuilder::try_from(configuration.clone()).map_err(unusable)?;
    Ok(builder.with_layer(&MapResponseLayer::new(tell)).build())
}

fn run(runtime: &Runtime, stopped: oneshot::Receiver<()>, tasks: JoinSet<()>) {
    // Each job that is created comes back here while its own answer is on the way.
    yield_to_others();
    // It ends when the sender is dropped, without a word.
    let _ = runtime.block_on(stopped);
    drop(tasks);
}
