//! `GET /train/{job_name}/logs`: the logs of a job's replicas, as text.

use std::io;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future, stream};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;

use super::app::App;
use super::problem::Problem;
use super::query::Query;
use super::reference::FoundJob;
use super::streams::{Caller, Streams};
use crate::cluster::{ClusterError, LogStream};
use crate::job::{
    LogEnd, LogLines, LogSelection, LogStart, ObservedJob, Unfinished, replica_names, since,
};

/// The maximum number of replicas per request. Each is a connection to a node.
const MAX_REPLICAS: usize = 64;
/// Selects all replicas instead of one by name.
const ALL: &str = "all";

#[derive(Debug, Deserialize)]
pub(super) struct LogQuery {
    replica: Option<String>,
    #[serde(default)]
    follow: bool,
    tail: Option<u64>,
    since: Option<String>,
    #[serde(default)]
    previous: bool,
    #[serde(default)]
    timestamps: bool,
}

impl LogQuery {
    fn selection(&self) -> Result<LogSelection, Problem> {
        let given = self.since.as_deref();
        let since = given.map(|text| since(text, Timestamp::now()).ok_or(text));
        let since = since.transpose().map_err(|text| {
            let right = "must be a time such as 2026-01-31T12:00:00Z, or a duration such as 10m";
            Problem::parameter("since", format_args!("{right}, not {text:?}"))
        })?;
        if self.follow && self.previous {
            let detail = "cannot be followed: the log before the last restart is complete";
            return Err(Problem::parameter("previous", detail));
        }
        Ok(LogSelection {
            start: match self.previous {
                true => LogStart::Previous,
                false => LogStart::Latest,
            },
            end: match self.follow {
                true => LogEnd::WithJob,
                false => LogEnd::Now,
            },
            lines: match self.timestamps {
                true => LogLines::WithTime,
                false => LogLines::Plain,
            },
            tail: self.tail,
            since,
            unfinished: Unfinished::Continued,
        })
    }

    /// The selected replicas. Default: the first, which reports the progress of the job.
    fn replicas(&self, job: &ObservedJob) -> Result<Vec<String>, Problem> {
        let known = replica_names(job);
        let wrong = |detail: String| Err(Problem::parameter("replica", detail));
        let Some(first) = known.first() else {
            return wrong("this job has no replicas".to_string());
        };
        let asked: Vec<String> = match self.replica.as_deref() {
            None | Some("") => vec![first.clone()],
            Some(ALL) => known.clone(),
            Some(names) => names
                .split(',')
                .map(|name| name.trim().to_string())
                .collect(),
        };
        if let Some(unknown) = asked.iter().find(|name| !known.contains(name)) {
            let last = known.last().unwrap_or(first);
            return wrong(format!(
                "this job has no replica {unknown:?}; it has {first} to {last}; use {ALL} for all \
                 of them"
            ));
        }
        if asked.len() > MAX_REPLICAS {
            return wrong(format!(
                "{} replicas are too many; list at most {MAX_REPLICAS}, separated by commas",
                asked.len()
            ));
        }
        Ok(asked)
    }
}

pub(super) async fn logs(
    State(app): State<App>,
    Extension(streams): Extension<Arc<Streams>>,
    caller: Caller,
    found: FoundJob,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let job = app.cluster.get(&found.namespace, &found.name).await?;
    let replicas = query.replicas(&job)?;
    let selection = query.selection()?;
    let place = streams.enter(caller, replicas.len())?;
    let log = open(&app, &job, &replicas, &selection).await?;
    let log = match selection.end {
        LogEnd::Now => log,
        LogEnd::WithJob => until_drained(log, app.draining.clone()),
    };
    let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok(found.answer((text, Body::from_stream(place.hold(log)))))
}

/// Merges the logs of several replicas. Each line then starts with the name of its replica.
async fn open(
    app: &App,
    job: &ObservedJob,
    replicas: &[String],
    selection: &LogSelection,
) -> Result<LogStream, ClusterError> {
    let several = replicas.len() > 1;
    let selection = &LogSelection {
        unfinished: match several {
            true => Unfinished::Split,
            false => Unfinished::Continued,
        },
        ..selection.clone()
    };
    let opened = replicas.iter().map(|replica| async move {
        let log = app.cluster.log(job, replica, selection).await?;
        let name = replica.clone();
        Ok(match several {
            true => log.map(move |piece| Ok(named(&name, &piece?))).boxed(),
            false => log,
        })
    });
    let opened = future::join_all(opened).await;
    let none_is_there = opened.iter().all(Result::is_err);
    // With several replicas, those without a log are skipped.
    let is_missing = |log: &Result<_, ClusterError>| {
        matches!(log, Err(ClusterError::NoLog { .. })) && !none_is_there
    };
    let there = opened.into_iter().filter(|log| !is_missing(log));
    let logs: Vec<LogStream> = there.collect::<Result<_, _>>()?;
    Ok(stream::select_all(logs).boxed())
}

fn named(replica: &str, lines: &Bytes) -> Bytes {
    let count = memchr::memchr_iter(b'\n', lines).count() + 1;
    let mut named = BytesMut::with_capacity(lines.len() + count * (replica.len() + 3));
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        named.extend_from_slice(b"[");
        named.extend_from_slice(replica.as_bytes());
        named.extend_from_slice(b"] ");
        named.extend_from_slice(line);
    }
    named.freeze()
}

/// Interrupts a log when the service is shutting down, so that followers reconnect instead of
/// assuming that the log has ended.
fn until_drained(log: LogStream, draining: watch::Receiver<bool>) -> LogStream {
    let state = Some((log, draining));
    stream::unfold(state, |state| async {
        let (mut log, mut draining) = state?;
        let piece = tokio::select! {
            piece = log.next() => Some(piece?),
            _ = draining.wait_for(|draining| *draining) => None,
        };
        match piece {
            Some(piece) => Some((piece, Some((log, draining)))),
            None => Some((Err(io::Error::other("the service is shutting down")), None)),
        }
    })
    .boxed()
}
