//! Reads and follows the log of a replica's pod across interruptions: the API server and kubelets
//! may close streams at any time, containers restart, and pods may start late.

mod attempts;
mod lines;

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::LogParams;
use tracing::debug;

use super::calls::Calls;
use super::error::CallError;
use super::owner::{self, Controller};
use super::pods::trainer;
use super::resume::{SeenLines, text_of, time_of};
use crate::cluster::{ClusterError, JobWatch, LogStream};
use crate::job::{LogEnd, LogLines, LogSelection, LogStart, Unfinished};
use crate::job_kind::JobKind;
pub(super) use attempts::open_from;
use lines::{Lines, Piece, Read};

/// The delay before looking again for a missing pod or an interrupted stream.
const AGAIN: Duration = Duration::from_secs(1);
/// A stream that is silent for this long is considered dead. Opening another one is cheap.
const SILENCE: Duration = Duration::from_secs(60);
/// How often a read without following is resumed without any new line.
const MOST_FAILURES: u32 = 5;

/// Identifies a replica of a job.
pub(super) struct Replica {
    pub job: Controller,
    /// Such as `master-0`.
    pub name: String,
}

/// One attempt: the pod, and the restart count of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Instance {
    pod: String,
    uid: String,
    restarts: i32,
}

/// Opens the log of a replica.
///
/// # Errors
///
/// [`ClusterError::NoLog`] when there is none and it is not to be waited for.
pub(super) async fn open(
    calls: Calls,
    replica: Replica,
    selection: LogSelection,
    watch: JobWatch,
) -> Result<LogStream, ClusterError> {
    let no_log = ClusterError::NoLog {
        replica: replica.name.clone(),
        start: selection.start,
    };
    let mut follower = Follower {
        calls,
        replica,
        is_too_old: selection.since.is_some(),
        selection,
        watch,
        instance: None,
        stream: None,
        given: SeenLines::default(),
        is_begun: false,
        is_complete: false,
        failures: 0,
    };
    if follower.selection.end == LogEnd::Now {
        let attached = follower.attach().await;
        match attached.map_err(|error| error.doing("reading a log"))? {
            Attached::Stream => {}
            Attached::NotYet | Attached::End => return Err(no_log),
        }
    }
    Ok(stream::try_unfold(follower, Follower::next).boxed())
}

/// Reads the log of a replica.
struct Follower {
    calls: Calls,
    replica: Replica,
    selection: LogSelection,
    watch: JobWatch,
    /// The attempt whose log is being read.
    instance: Option<Instance>,
    stream: Option<Lines>,
    given: SeenLines,
    /// Whether the current line is older than `since`. Before the first time, it is.
    is_too_old: bool,
    /// Whether a line was returned. `tail` and `since` only apply to the beginning.
    is_begun: bool,
    /// Whether the log of the attempt was returned completely.
    is_complete: bool,
    failures: u32,
}

enum Attached {
    Stream,
    NotYet,
    End,
}

/// What the status of a container implies for its log.
enum Stage {
    NotStarted,
    Running,
    Ended,
}

impl Follower {
    /// The next lines, as soon as there are some; None at the end.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        loop {
            if let Some(given) = self.read().await? {
                return Ok(Some((given, self)));
            }
            if self.stream.is_some() {
                continue;
            }
            if self.is_complete && self.selection.end == LogEnd::Now {
                return Ok(None);
            }
            match self.attach().await {
                Ok(Attached::Stream) => {}
                Ok(Attached::NotYet) => tokio::time::sleep(AGAIN).await,
                Ok(Attached::End) => return Ok(None),
                Err(error) => {
                    let _nothing_open = self.interrupted(io::Error::other(error))?;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Reads once from the open stream. None if that yields no lines.
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let patience = stream.waits_for().unwrap_or(SILENCE);
        let given = match tokio::time::timeout(patience, stream.read()).await {
            Ok(Ok(Read::Lines(piece))) => {
                let given = self.fresh(&piece);
                if !given.is_empty() {
                    self.failures = 0;
                }
                given
            }
            Ok(Ok(Read::Unfinished)) => return Ok(None),
            Ok(Ok(Read::End)) => self.ended(),
            Ok(Err(error)) => self.interrupted(error)?,
            Err(_) if stream.waits_for().is_some() => self.late(),
            Err(_) => self.interrupted(io::ErrorKind::TimedOut.into())?,
        };
        Ok(Some(given).filter(|given| !given.is_empty()))
    }

    /// The partial line whose end has not arrived.
    fn late(&mut self) -> Bytes {
        // Lines may be received again after an interruption, and a partial one could not be
        // recognized.
        let is_fresh = self.selection.end == LogEnd::WithJob && !self.given.overlaps();
        let Some(piece) = self
            .stream
            .as_mut()
            .and_then(|stream| stream.late(is_fresh))
        else {
            return Bytes::new();
        };
        let mut given = BytesMut::new();
        self.write(&mut given, &piece.lines, piece.begun);
        if self.selection.unfinished == Unfinished::Split {
            given.extend_from_slice(b"\n");
        }
        given.freeze()
    }

    /// Handles the regular end of a stream. Only without following does it mean that the container
    /// has ended.
    fn ended(&mut self) -> Bytes {
        match self.stream.take() {
            Some(stream) if stream.is_whole() => {
                self.is_complete = true;
                self.fresh(&stream.rest())
            }
            Some(stream) => self.broken_off(&stream),
            None => Bytes::new(),
        }
    }

    /// Ends a partially returned line, which will be received again completely.
    fn broken_off(&self, stream: &Lines) -> Bytes {
        let is_open = stream.is_begun() && self.selection.unfinished == Unfinished::Continued;
        Bytes::from_static(if is_open { b"\n" } else { b"" })
    }

    /// Handles an interrupted stream, or one that could not be opened. Followers retry until the
    /// job finishes.
    fn interrupted(&mut self, error: io::Error) -> io::Result<Bytes> {
        debug!(replica = self.replica.name, %error, "a log was interrupted");
        let stream = self.stream.take();
        self.failures += 1;
        match self.selection.end {
            LogEnd::Now if self.failures > MOST_FAILURES => Err(error),
            LogEnd::Now | LogEnd::WithJob => {
                Ok(stream.map_or_else(Bytes::new, |stream| self.broken_off(&stream)))
            }
        }
    }

    /// Opens the next stream.
    async fn attach(&mut self) -> Result<Attached, CallError> {
        // The job is read before the pod, so that the state of the pod is final if the job has
        // finished.
        let job_is_over = self.job_is_over();
        let Some((instance, stage)) = self.look().await? else {
            // The rest of its log is lost.
            return Ok(nothing(job_is_over));
        };
        let start = match self.selection.start {
            LogStart::Latest if self.is_unread_before(&instance) => LogStart::Previous,
            start => start,
        };
        if start == LogStart::Latest && self.instance.as_ref() != Some(&instance) {
            self.instance = Some(instance.clone());
            self.is_complete = false;
            self.given = SeenLines::default();
        }
        let is_there = match stage {
            Stage::NotStarted => start == LogStart::Previous && !self.has_own_pods(),
            Stage::Ended => !self.is_complete || start == LogStart::Previous,
            Stage::Running => true,
        };
        if !is_there {
            return Ok(nothing(job_is_over));
        }
        let follows = matches!(stage, Stage::Running)
            && start == LogStart::Latest
            && self.selection.end == LogEnd::WithJob;
        let opened = self.lines(&instance.pod, start, follows).await;
        let lines = match opened {
            // The kubelet has removed it, for example for lack of disk space.
            Err(error) if start == LogStart::Previous && is_refusal(&error) => {
                self.is_complete = true;
                return Ok(Attached::NotYet);
            }
            opened => opened?,
        };
        // The container may have been restarted before the stream was opened, so that this is the
        // log of another attempt.
        if self
            .look()
            .await?
            .is_some_and(|(still, _)| still == instance)
        {
            self.stream = Some(lines);
            return Ok(Attached::Stream);
        }
        Ok(Attached::NotYet)
    }

    /// Whether the previous attempt has unread log lines.
    fn is_unread_before(&self, instance: &Instance) -> bool {
        self.instance.as_ref().is_some_and(|read| {
            !self.is_complete && read.uid == instance.uid && read.restarts + 1 == instance.restarts
        })
    }

    fn job_is_over(&self) -> bool {
        let job = self.watch.borrow();
        job.as_ref().is_none_or(|job| job.status.has_ended())
    }

    /// The current state of the container.
    async fn look(&mut self) -> Result<Option<(Instance, Stage)>, CallError> {
        let Replica { job, name } = &self.replica;
        let pods = self.calls.pods_of(job, name).await?;
        let before = self.selection.start == LogStart::Previous && self.has_own_pods();
        Ok(pods.get(usize::from(before)).map(instance))
    }

    /// Whether each attempt has a pod of its own, rather than being a restart of the container. Those
    /// of earlier attempts are deleted, so there may be none.
    fn has_own_pods(&self) -> bool {
        self.replica.job.kind == JobKind::TrainJob
    }

    async fn lines(
        &mut self,
        pod: &str,
        start: LogStart,
        follows: bool,
    ) -> Result<Lines, CallError> {
        let resumed = self.given.resume();
        let asked = &self.selection;
        let is_first = resumed.is_none() && !self.is_begun;
        let asked_since = asked.since.filter(|_| is_first);
        let parameters = LogParams {
            container: Some(owner::container_name(self.replica.job.kind).to_string()),
            follow: follows,
            previous: start == LogStart::Previous && !self.has_own_pods(),
            // The client would round to the nearest second and could skip lines.
            since_time: resumed.or(asked_since.and_then(floor)),
            tail_lines: asked
                .tail
                .filter(|_| is_first)
                .map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
            timestamps: true,
            ..LogParams::default()
        };
        let namespace = &self.replica.job.namespace;
        let stream = self.calls.log(namespace, pod, &parameters).await?;
        let cut = asked.tail.filter(|_| is_first).unwrap_or_default();
        Ok(Lines::of(stream, cut, !follows))
    }

    /// Formats those lines that were not returned yet.
    fn fresh(&mut self, piece: &Piece) -> Bytes {
        let mut fresh = BytesMut::with_capacity(piece.lines.len());
        let mut begun = piece.begun;
        for line in piece.lines.split_inclusive(|byte| *byte == b'\n') {
            let begun = std::mem::take(&mut begun);
            self.note_age(line);
            let is_new = self.given.is_new(line) && !self.is_too_old;
            if is_new || begun > 0 {
                self.write(&mut fresh, line, begun);
            }
        }
        fresh.freeze()
    }

    /// Writes a line, or its rest after this many bytes.
    fn write(&mut self, fresh: &mut BytesMut, line: &[u8], begun: usize) {
        self.is_begun = true;
        let text = line.len() - text_of(line).len();
        let is_timed = self.selection.lines == LogLines::WithTime;
        let begins_line = begun == 0 || self.selection.unfinished == Unfinished::Split;
        if is_timed && begins_line {
            fresh.extend_from_slice(&line[..text]);
        }
        fresh.extend_from_slice(&line[begun.max(text)..]);
    }

    /// Compares a line with `since`. A piece without a time continues the line before it.
    fn note_age(&mut self, line: &[u8]) {
        if let (Some(since), Some(time)) = (self.selection.since, time_of(line)) {
            self.is_too_old = time < since;
        }
    }
}

fn nothing(job_is_over: bool) -> Attached {
    match job_is_over {
        true => Attached::End,
        false => Attached::NotYet,
    }
}

fn is_refusal(error: &CallError) -> bool {
    error
        .status()
        .is_some_and(|status| matches!(status.code, 400 | 404))
}

fn floor(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second()).ok()
}

fn instance(pod: &Pod) -> (Instance, Stage) {
    let container = pod.status.as_ref().and_then(trainer);
    let instance = Instance {
        pod: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        restarts: container.map_or(0, |container| container.restart_count),
    };
    (instance, container.map_or(Stage::NotStarted, stage))
}

fn stage(container: &ContainerStatus) -> Stage {
    let state = container.state.as_ref();
    let before = container.last_state.as_ref();
    let ended = [state, before].into_iter().flatten();
    let ended = ended.filter_map(|state| state.terminated.as_ref()).next();
    match state.and_then(|state| state.running.as_ref()) {
        Some(_) => Stage::Running,
        // A container that waits for a restart still has the log of the previous attempt.
        None if ended.is_some() => Stage::Ended,
        None => Stage::NotStarted,
    }
}
