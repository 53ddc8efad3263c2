//! `GET /train/{job_name}/metrics`: the curves of a run, from the log of its first replica.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::app::App;
use super::problem::Problem;
use super::query::Query;
use super::reference::FoundJob;
use super::streams::{Caller, Streams};
use crate::cluster::{ClusterError, LogStream};
use crate::http::openapi::operations::DEFAULT_POINTS;
use crate::job::{LogEnd, LogSelection, Metrics, ObservedJob, Recorder, replica_names};

/// How long a follower collects points before it sends them.
const BATCH: Duration = Duration::from_millis(200);
/// How often a comment shows proxies that the connection is alive: half of nginx's timeout.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
pub(super) struct MetricsQuery {
    #[serde(default = "default_points")]
    points: usize,
    #[serde(default)]
    follow: bool,
}

/// The table of parameters has the bounds, which are checked before a handler runs.
fn default_points() -> usize {
    DEFAULT_POINTS as usize
}

impl MetricsQuery {
    fn end(&self) -> LogEnd {
        match self.follow {
            true => LogEnd::WithJob,
            false => LogEnd::Now,
        }
    }
}

pub(super) async fn metrics(
    State(app): State<App>,
    Extension(streams): Extension<Arc<Streams>>,
    caller: Caller,
    found: FoundJob,
    Query(query): Query<MetricsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = app.cluster.get(&found.namespace, &found.name).await?;
    let place = streams.enter(caller, 1)?;
    let mut recorder = Recorder::new(query.points);
    recorder.add(app.cluster.kept_metrics(&job).await?);
    let log = place.hold(open(&app, &job, query.end()).await?).boxed();
    match query.follow {
        true => Ok(found.answer(followed(log, recorder, app.draining.clone()))),
        false => Ok(found.answer(represented(recorded(log, recorder).await?, &headers))),
    }
}

/// The log of the replica that reports progress, from its first attempt. Empty if there is none
/// yet.
async fn open(app: &App, job: &ObservedJob, end: LogEnd) -> Result<LogStream, ClusterError> {
    let Some(first) = replica_names(job).into_iter().next() else {
        return Ok(stream::empty().boxed());
    };
    match app
        .cluster
        .log(job, &first, &LogSelection::whole(end))
        .await
    {
        Err(ClusterError::NoLog { .. }) => Ok(stream::empty().boxed()),
        log => log,
    }
}

async fn recorded(mut log: LogStream, mut recorder: Recorder) -> Result<Metrics, Problem> {
    while let Some(lines) = log.next().await {
        recorder.read(&lines.map_err(Problem::internal)?);
    }
    Ok(recorder.take())
}

fn represented(metrics: Metrics, headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let wants_csv = accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/csv"));
    if !wants_csv {
        return Json(metrics).into_response();
    }
    let csv = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
    (csv, comma_separated(&metrics)).into_response()
}

/// One row per point or evaluation, in ascending order of steps. Numbers and times need no quotes.
fn comma_separated(metrics: &Metrics) -> String {
    let mut rows: Vec<(u64, String)> = Vec::new();
    for point in &metrics.points {
        let (time, loss) = (cell(point.time.as_ref()), cell(point.loss.as_ref()));
        let tokens = cell(point.tokens_per_second.as_ref());
        let (rate, norm) = (
            cell(point.learning_rate.as_ref()),
            cell(point.grad_norm.as_ref()),
        );
        let row = format!("{},{time},{loss},{tokens},{rate},{norm},\n", point.step);
        rows.push((point.step, row));
    }
    for evaluation in &metrics.evaluations {
        let (time, loss) = (
            cell(evaluation.time.as_ref()),
            cell(evaluation.eval_loss.as_ref()),
        );
        rows.push((
            evaluation.step,
            format!("{},{time},,,,,{loss}\n", evaluation.step),
        ));
    }
    rows.sort_by_key(|(step, _)| *step);
    let header = "step,time,loss,tokens_per_second,learning_rate,grad_norm,eval_loss\n";
    let mut csv = header.to_string();
    for (_, row) in rows {
        let _ = csv.write_str(&row);
    }
    csv
}

fn cell(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// Sends `metrics` events, first with the existing points, then with new ones, and finally `end`.
fn followed(log: LogStream, recorder: Recorder, draining: watch::Receiver<bool>) -> Response {
    let follower = Follower {
        log,
        recorder,
        draining,
        // The job may have kept points although its log is gone.
        due: Some(Instant::now() + BATCH),
        stage: Stage::Open,
    };
    let events = Sse::new(follower.events()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // A proxy that buffers the response would hold the events back.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    let fresh = [(header::CACHE_CONTROL, "no-cache")];
    (unbuffered, fresh, events).into_response()
}

struct Follower {
    log: LogStream,
    recorder: Recorder,
    draining: watch::Receiver<bool>,
    /// When what was read is to be sent: lines that keep coming must not put that off.
    due: Option<Instant>,
    stage: Stage,
}

/// The state of an event stream.
enum Stage {
    Open,
    /// The job has finished, but the client was not notified yet.
    Ending,
    Done,
}

/// What a follower received.
enum Next {
    Lines,
    Due,
    End,
    /// The rest is missing, so the client has to reconnect.
    CutOff,
}

impl Follower {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut follower| async {
            let event = follower.event().await?;
            Some((Ok(event), follower))
        })
    }

    async fn event(&mut self) -> Option<Event> {
        loop {
            match self.stage {
                Stage::Open => {}
                Stage::Ending => {
                    self.stage = Stage::Done;
                    return Some(Event::default().event("end").data("{}"));
                }
                Stage::Done => return None,
            }
            match self.next().await {
                Next::Lines => continue,
                Next::Due => self.due = None,
                Next::End => self.stage = Stage::Ending,
                Next::CutOff => return None,
            }
            if let Some(event) = self.new_points() {
                return Some(event);
            }
        }
    }

    async fn next(&mut self) -> Next {
        let due = self.due;
        tokio::select! {
            lines = self.log.next() => match lines {
                Some(Ok(lines)) => {
                    self.recorder.read(&lines);
                    self.due.get_or_insert_with(|| Instant::now() + BATCH);
                    Next::Lines
                }
                Some(Err(_)) => Next::CutOff,
                None => Next::End,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Next::Due,
            _ = self.draining.wait_for(|draining| *draining) => Next::CutOff,
        }
    }

    fn new_points(&mut self) -> Option<Event> {
        let metrics = self.recorder.take();
        if metrics.points.is_empty() && metrics.evaluations.is_empty() {
            return None;
        }
        Event::default().event("metrics").json_data(metrics).ok()
    }
}
