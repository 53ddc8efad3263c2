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

use super::cache::{Cache, Scope, Watch};
use super::calls::Calls;
use super::curves::Curves;
use super::kinds::{Kinds, Undecided};
use super::{failures, unusable};
use crate::cluster::ClusterError;
use crate::job_kind::JobKind;
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
        kinds: &Kinds,
        configuration: &Config,
        once: &Config,
    ) -> Result<(Arc<Cache>, Self), ClusterError> {
        let failed = |error| ClusterError::internal("starting the watch thread", error);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let entered = runtime.enter();
        let pods = Client::try_from(configuration.clone()).map_err(unusable)?;
        let calls = Calls::new(Client::try_from(once.clone()).map_err(unusable)?);
        let cache = Cache::of(&watches(&scopes, &kinds.read()));
        let mut tasks = JoinSet::new();
        let curves = Curves::new(calls.clone(), cache.clone());
        for scope in &scopes {
            let (pods, calls) = (pods.clone(), calls.clone());
            let curves = curves.clone();
            tasks.spawn(failures::keep(
                pods,
                calls,
                cache.clone(),
                curves,
                scope.clone(),
            ));
        }
        tasks.spawn(curves.follow());
        tasks.spawn(watch(WatchedKinds {
            scopes,
            kinds: kinds.clone(),
            configuration: configuration.clone(),
            calls,
            cache: cache.clone(),
        }));
        drop(entered);
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new()
            .name("cluster-watch".to_string())
            .spawn(move || run(&runtime, stopped, tasks))
            .map_err(failed)?;
        Ok((cache, Self { _stop: stop }))
    }
}

/// What the watches of jobs are made of.
struct WatchedKinds {
    scopes: Vec<Scope>,
    kinds: Kinds,
    configuration: Config,
    calls: Calls,
    cache: Arc<Cache>,
}

/// One watch for each scope and kind.
fn watches(scopes: &[Scope], kinds: &[JobKind]) -> Vec<Watch> {
    let of_scope = |scope: &Scope| {
        let scope = scope.clone();
        kinds.iter().map(move |kind| Watch {
            scope: scope.clone(),
            kind: *kind,
        })
    };
    scopes.iter().flat_map(of_scope).collect()
}

/// Watches the jobs of a kind that was set at once, and those of the others when it is known which
/// ones the API server has.
async fn watch(of: WatchedKinds) {
    let mut tasks = JoinSet::new();
    let first = match of.kinds.created() {
        Some(_) => watches(&of.scopes, &of.kinds.read()),
        None => Vec::new(),
    };
    of.spawn(&mut tasks, &first);
    let expected = watches(&of.scopes, &of.kinds.read());
    let waits = |why: &Undecided| {
        for watch in expected.iter().filter(|_| first.is_empty()) {
            of.cache.waits(watch, why);
        }
    };
    of.kinds.find(&of.calls, &of.scopes, waits).await;
    let all = watches(&of.scopes, &of.kinds.read());
    of.cache.expect(&all);
    let others: Vec<Watch> = all.into_iter().filter(|w| !first.contains(w)).collect();
    of.spawn(&mut tasks, &others);
    // They never end.
    while tasks.join_next().await.is_some() {}
}

impl WatchedKinds {
    fn spawn(&self, tasks: &mut JoinSet<()>, watches: &[Watch]) {
        for watch in watches {
            match client_that_tells(&self.configuration, &self.cache, watch) {
                Ok(client) => {
                    tasks.spawn(self.cache.clone().follow(watch.clone(), client));
                }
                // The same configuration has made the other clients.
                Err(error) => self.cache.waits(watch, &error),
            }
        }
    }
}

/// A client for a watch that notifies the cache of every response of the API server. Events alone
/// cannot distinguish a quiet cluster from an unreachable one.
fn client_that_tells(
    configuration: &Config,
    cache: &Arc<Cache>,
    watch: &Watch,
) -> Result<Client, ClusterError> {
    let (cache, watch) = (cache.clone(), watch.clone());
    let note = move |response: Response<_>| {
        if response.status().is_success() {
            cache.note_contact(&watch);
        }
        response
    };
    let builder = ClientBuilder::try_from(configuration.clone()).map_err(unusable)?;
    Ok(builder.with_layer(&MapResponseLayer::new(note)).build())
}

fn run(runtime: &Runtime, stopped: oneshot::Receiver<()>, tasks: JoinSet<()>) {
    // Each created job is also received here while the response to its creation is still on its
    // way.
    yield_to_others();
    // The receiver ends when the sender is dropped.
    let _ = runtime.block_on(stopped);
    drop(tasks);
}
