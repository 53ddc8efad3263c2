//! `GET /train/{job_name}/events`: status changes of a job as server-sent events (HTML, 9.2), until
//! the job finishes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::app::App;
use super::problem::Problem;
use super::reference::FoundJob;
use super::streams::{Caller, Streams};
use crate::cluster::JobWatch;
use crate::job::{JobState, ListedJob, ObservedJob};

pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How often a comment keeps the connection alive in proxies: half of nginx's timeout.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long clients wait before they reconnect.
const RECONNECT: Duration = Duration::from_secs(1);

pub(super) async fn events(
    State(app): State<App>,
    Extension(streams): Extension<Arc<Streams>>,
    caller: Caller,
    job: FoundJob,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let watch = app.cluster.follow(&job.namespace, &job.name).await?;
    let known = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let followed = EventStream {
        uid: None,
        watch,
        known: known.map(str::to_string),
        draining: app.draining.clone(),
        begun: false,
        ended: false,
    };
    if followed.knows_the_end() {
        // The only response after which browsers do not reconnect.
        return Ok(job.answer(StatusCode::NO_CONTENT));
    }
    let place = streams.enter(caller, 1)?;
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let events = Sse::new(place.hold(followed.events())).keep_alive(keep_alive);
    // A proxy that buffers the response would hold the events back.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    let fresh = [(header::CACHE_CONTROL, "no-cache")];
    Ok(job.answer((unbuffered, fresh, events)))
}

/// The stream of a followed job.
struct EventStream {
    /// The uid of the job, once it was seen. Another job with the same name is not followed.
    uid: Option<String>,
    watch: JobWatch,
    /// The id of the last event that the client received.
    known: Option<String>,
    draining: watch::Receiver<bool>,
    begun: bool,
    ended: bool,
}

impl EventStream {
    fn knows_the_end(&self) -> bool {
        let job = self.watch.borrow().clone();
        let ended = job.filter(|job| JobState::of(job).is_final());
        ended.is_some_and(|job| Some(id(&job)) == self.known)
    }

    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut followed| async {
            let event = followed.next().await?;
            Some((Ok(event), followed))
        })
    }

    /// The next event; None after the end of the job, or when the service is shutting down.
    async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            if self.begun {
                tokio::select! {
                    changed = self.watch.changed() => changed.ok()?,
                    _ = self.draining.wait_for(|draining| *draining) => return None,
                }
            }
            self.begun = true;
            let job = self.watch.borrow_and_update().clone();
            let job = job.filter(|job| self.is_followed(job));
            let Some(job) = job else {
                self.ended = true;
                return Some(Event::default().event("deleted").data("{}"));
            };
            self.ended = JobState::of(&job).is_final();
            let id = id(&job);
            if self.known.as_ref() != Some(&id) {
                self.known = Some(id);
                return status(&job, self.known.as_deref().unwrap_or_default());
            }
        }
        None
    }

    fn is_followed(&mut self, job: &Arc<ObservedJob>) -> bool {
        let uid = job.metadata.uid.clone();
        *self
            .uid
            .get_or_insert_with(|| uid.clone().unwrap_or_default())
            == uid.unwrap_or_default()
    }
}

fn status(job: &ObservedJob, id: &str) -> Option<Event> {
    let event = Event::default().event("status").id(id).retry(RECONNECT);
    event.json_data(ListedJob::from(job)).ok()
}

/// Identifies the state of a job. It is the same on every host and changes with each status change.
fn id(job: &ObservedJob) -> String {
    let message = serde_json::to_vec(&(
        &job.metadata.uid,
        ListedJob::from(job),
        &job.status.conditions,
    ));
    let hash = Sha256::digest(message.unwrap_or_default());
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
