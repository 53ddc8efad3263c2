//! An API server that answers at once, for measurements of the service alone. It has as many jobs as it
//! is asked for, and answers a creation with the job as it came and what an API server adds.
//!
//! It serves one kind of jobs in one namespace, in plain HTTP through a kubeconfig that it writes.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Error, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use trainer_host::job_kind::JobKind;

type Body = UnsyncBoxBody<Bytes, Error>;

/// The creations that a slow watch may lag behind.
const BACKLOG: usize = 4096;
/// What stands for the number of a job in the text of all of them.
const NUMBER: &str = "@number@";

/// A running stand-in. It ends when this is dropped.
pub struct StandIn {
    folder: TempDir,
    // None once it is dropped.
    runtime: Option<Runtime>,
}

/// The jobs that exist from the start.
pub struct Jobs {
    pub count: usize,
    /// One of them. Each gets a name and a uid of its own.
    pub manifest: Value,
}

struct Shared {
    kind: JobKind,
    count: usize,
    /// The text of a job, in the parts between its number.
    parts: Vec<String>,
    created: AtomicUsize,
    events: broadcast::Sender<Bytes>,
}

impl StandIn {
    /// Starts a stand-in that has jobs of a kind.
    ///
    /// # Errors
    ///
    /// When nothing can be listened on.
    pub fn start(kind: JobKind, jobs: Jobs) -> Result<Self> {
        let runtime = Runtime::new()?;
        let (sender, receiver) = std::sync::mpsc::channel();
        let shared = Arc::new(Shared::new(kind, jobs));
        runtime.spawn(async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
            let address = listener.as_ref().map(TcpListener::local_addr);
            let _ = sender.send(address.map_err(|error| error.to_string()).map(Result::ok));
            if let Ok(listener) = listener {
                accept(&listener, &shared).await;
            }
        });
        let address = receiver.recv()?.map_err(Error::msg)?;
        let address = address.ok_or_else(|| Error::msg("no address"))?;
        let folder = tempfile::tempdir()?;
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "stand-in", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "service", "user": {}}],
            "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "service"}}],
            "current-context": "stand-in",
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string())?;
        Ok(Self {
            folder,
            runtime: Some(runtime),
        })
    }

    /// The kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        let answer = service_fn(move |request| {
            let shared = shared.clone();
            async move { shared.answer(request).await }
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            let _ = connection.await;
        });
    }
}

/// The name of a job that exists from the start.
pub fn name_of(number: usize) -> String {
    format!("job-{number}")
}

impl Shared {
    fn new(kind: JobKind, jobs: Jobs) -> Self {
        let Jobs { count, manifest } = jobs;
        let mut job = stored(manifest, NUMBER);
        job["metadata"]["name"] = json!(format!("job-{NUMBER}"));
        let text = job.to_string();
        Self {
            kind,
            count,
            parts: text.split(NUMBER).map(str::to_string).collect(),
            created: AtomicUsize::new(count),
            events: broadcast::Sender::new(BACKLOG),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default().to_string();
        let jobs = path.ends_with(self.kind.plural());
        let api = path == format!("/apis/{}", self.kind.api_version());
        let watches = query.contains("watch=");
        match *request.method() {
            Method::POST if jobs => self.create(request.into_body()).await,
            Method::GET if jobs && watches => Ok(self.watch()),
            Method::GET if jobs => self.page(&query),
            Method::GET if watches => Ok(events(stream::pending().boxed())),
            Method::GET if path.ends_with("/pods") => answer(200, list("PodList", "v1", "[]", "")),
            Method::GET if api => answer(200, self.resources().to_string()),
            Method::GET if path == "/version" => answer(200, json!({"major": "1"}).to_string()),
            Method::GET if path.contains("/clustertrainingruntimes/") => {
                answer(200, "{}".to_string())
            }
            Method::POST if path.ends_with("/selfsubjectaccessreviews") => {
                let review = json!({"spec": {}, "status": {"allowed": true}});
                answer(201, review.to_string())
            }
            _ => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "reason": "NotFound", "message": "not found", "code": 404});
                answer(404, status.to_string())
            }
        }
    }

    fn resources(&self) -> Value {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": self.kind.api_version(),
            "resources": [{
                "name": self.kind.plural(), "singularName": "", "namespaced": true,
                "kind": self.kind.name(), "verbs": ["create", "delete", "get", "list", "patch", "watch"],
            }],
        })
    }

    async fn create(&self, body: Incoming) -> Result<Response<Body>> {
        let manifest: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        let number = self.created.fetch_add(1, Ordering::Relaxed).to_string();
        let job = stored(manifest, &number).to_string();
        // Nobody may watch.
        let event = format!("{{\"type\":\"ADDED\",\"object\":{job}}}\n");
        let _ = self.events.send(Bytes::from(event));
        answer(201, job)
    }

    fn watch(&self) -> Response<Body> {
        let created = stream::unfold(self.events.subscribe(), |mut events| async {
            let event = events.recv().await.ok()?;
            Some((event, events))
        });
        events(created.boxed())
    }

    /// A page of the jobs that exist from the start.
    fn page(&self, query: &str) -> Result<Response<Body>> {
        let number = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(key, _)| *key == name);
            found.and_then(|(_, value)| value.parse::<usize>().ok())
        };
        let first = number("continue").unwrap_or(0);
        let limit = number("limit").unwrap_or(self.count);
        let end = self.count.min(first.saturating_add(limit));
        let jobs: Vec<String> = (first..end)
            .map(|number| self.parts.join(&number.to_string()))
            .collect();
        let more = match end < self.count {
            true => end.to_string(),
            false => String::new(),
        };
        let kind = format!("{}List", self.kind.name());
        let items = format!("[{}]", jobs.join(","));
        answer(200, list(&kind, self.kind.api_version(), &items, &more))
    }
}

fn list(kind: &str, api: &str, items: &str, more: &str) -> String {
    format!(
        r#"{{"kind":"{kind}","apiVersion":"{api}","metadata":{{"resourceVersion":"1000000","continue":"{more}"}},"items":{items}}}"#
    )
}

/// A job as an API server stores it.
fn stored(mut job: Value, number: &str) -> Value {
    let (fields, api) = (fields(&job), job["apiVersion"].clone());
    let metadata = &mut job["metadata"];
    metadata["uid"] = json!(format!("00000000-0000-4000-8000-{number}"));
    metadata["creationTimestamp"] = json!("2026-11-28T10:00:00Z");
    metadata["generation"] = json!(1);
    metadata["resourceVersion"] = json!(number);
    metadata["managedFields"] = json!([{
        "manager": "trainer", "operation": "Update", "apiVersion": api,
        "time": "2026-11-28T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields,
    }]);
    job
}

/// The fields of an object, as an API server notes who has written them.
fn fields(value: &Value) -> Value {
    let Value::Object(members) = value else {
        return json!({});
    };
    let members = members.iter();
    let members = members.map(|(name, value)| (format!("f:{name}"), fields(value)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn answer(code: u16, text: String) -> Result<Response<Body>> {
    let answer = Response::builder().status(code);
    let answer = answer.header(CONTENT_TYPE, "application/json");
    let body = Full::from(text).map_err(|never| match never {});
    Ok(answer.body(body.boxed_unsync())?)
}

/// A response that stays open for a time and sends what comes.
fn events(lines: stream::BoxStream<'static, Bytes>) -> Response<Body> {
    let end = tokio::time::sleep(Duration::from_secs(600));
    let lines = lines.take_until(end).map(Ok::<_, Error>);
    Response::new(StreamBody::new(lines.map_ok(Frame::data)).boxed_unsync())
}
