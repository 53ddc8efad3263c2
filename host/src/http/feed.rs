//! `GET /events`: every change of every job that the caller may see, as server-sent events
//! (HTML, 9.2).
//!
//! A client that does not say how far it has read, or has missed more than is kept, gets `reset`,
//! then all jobs, then `synced`. From then on each change is an event with an id.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use tokio::sync::watch;

use super::app::App;
use super::authorized::Authorized;
use super::events::{KEEP_ALIVE, LAST_EVENT_ID};
use super::problem::Problem;
use super::streams::{Caller, Streams};
use crate::cluster::{Change, ClusterError, Feed, FeedPosition, Follower, News};
use crate::job::ObservedJob;

/// How long a client waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);

pub(super) async fn feed(
    State(app): State<App>,
    Extension(streams): Extension<Arc<Streams>>,
    authorized: Authorized,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let known: Option<FeedPosition> = known.and_then(|id| id.parse().ok());
    let is_new = known.is_none();
    let place = streams.enter(caller, 1)?;
    let feed = app.cluster.feed().clone();
    let mut reader = FeedReader {
        newest: feed.newest(),
        _follower: feed.follow(&app.cluster),
        position: known.unwrap_or_else(|| feed.end()),
        stage: Stage::Live(Vec::new().into_iter()),
        feed,
        draining: app.draining.clone(),
        app,
        authorized,
    };
    if is_new || reader.catch_up().is_none() {
        // An error here is an answer of its own, later it can only end the stream.
        reader.start_over()?;
    }
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let events = Sse::new(place.hold(reader.events())).keep_alive(keep_alive);
    // A proxy that buffers the answer would hold the events back.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    let fresh = [(header::CACHE_CONTROL, "no-cache")];
    Ok((unbuffered, fresh, events).into_response())
}

/// One client that reads the feed.
struct FeedReader {
    app: App,
    draining: watch::Receiver<bool>,
    authorized: Authorized,
    feed: Arc<Feed>,
    newest: watch::Receiver<u64>,
    _follower: Follower,
    /// After the last change that was taken from the feed.
    position: FeedPosition,
    stage: Stage,
}

/// What a client gets next.
enum Stage {
    Reset(Vec<Arc<ObservedJob>>),
    /// All jobs, one after the other.
    Jobs(vec::IntoIter<Arc<ObservedJob>>),
    /// Changes that were taken from the feed.
    Live(vec::IntoIter<Arc<Change>>),
}

impl FeedReader {
    /// Reads the changes since the position, or returns `None` if some have been discarded.
    fn catch_up(&mut self) -> Option<()> {
        let changes = self.feed.advance(&mut self.position)?;
        self.stage = Stage::Live(changes.into_iter());
        Some(())
    }

    fn start_over(&mut self) -> Result<(), ClusterError> {
        // Before the list, so that a change in between comes twice and never not at all.
        self.position = self.feed.end();
        let mut jobs = self.app.cluster.list()?;
        jobs.retain(|job| self.may_see(job.namespace()));
        self.stage = Stage::Reset(jobs);
        Ok(())
    }

    fn may_see(&self, namespace: &str) -> bool {
        self.authorized.may_see(&self.app, namespace)
    }

    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut reader| async {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        })
    }

    /// The next event; nothing when the service is about to end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if *self.draining.borrow() {
                return None;
            }
            match &mut self.stage {
                Stage::Reset(jobs) => {
                    self.stage = Stage::Jobs(std::mem::take(jobs).into_iter());
                    return Some(Event::default().event("reset").retry(RECONNECT).data("{}"));
                }
                Stage::Jobs(jobs) => {
                    let Some(job) = jobs.next() else {
                        self.stage = Stage::Live(Vec::new().into_iter());
                        let synced = Event::default().event("synced");
                        return Some(synced.id(self.position.to_string()).data("{}"));
                    };
                    let update = self.feed.update(&job);
                    return Event::default().event("status").json_data(update).ok();
                }
                Stage::Live(changes) => match changes.next() {
                    Some(change) if self.may_see(&change.namespace) => {
                        return self.event(&change);
                    }
                    Some(_) => {}
                    None => self.wait().await?,
                },
            }
        }
    }

    /// Waits for changes and takes them.
    async fn wait(&mut self) -> Option<()> {
        tokio::select! {
            changed = self.newest.changed() => changed.ok()?,
            _ = self.draining.wait_for(|draining| *draining) => return None,
        }
        match self.catch_up() {
            Some(()) => Some(()),
            None => self.start_over().ok(),
        }
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let id = self.feed.position(change.number).to_string();
        let event = Event::default().id(id);
        match &change.news {
            News::Status(job) => event.event("status").json_data(job).ok(),
            News::Progress(job) => event.event("progress").json_data(job).ok(),
            News::Deleted(job) => event.event("deleted").json_data(job).ok(),
        }
    }
}
