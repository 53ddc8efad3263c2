//! Runs the watches on a separate thread. Parsing a list of ten thousand jobs takes a second, which
//! must not delay requests.

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

/// The watches of a cluster, until this is dropped.
pub(super) struct Watches {
    _stop: oneshot::Sender<()>,
}

impl Watches {
    /// Starts watching scopes. The clients are created on the runtime of the watches, which then
    /// drives their connections. `once` is for calls that must not be retried.
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

/// A client for the watch of a scope that notifies the cache of every response of the API server.
/// Events alone cannot distinguish a quiet cluster from an unreachable one.
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
    // Each created job is also received here while the response to its creation is still on its
    // way.
    yield_to_others();
    // The receiver ends when the sender is dropped.
    let _ = runtime.block_on(stopped);
    drop(tasks);
}
