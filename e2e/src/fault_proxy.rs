//! A proxy between the service and the API server that injects faults of a network and of an API server.
//!
//! The service speaks plain HTTP to it, through a kubeconfig that it writes; it speaks TLS to the API
//! server with the token of the service's account. Without a fault, it passes everything unchanged.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

type Body = UnsyncBoxBody<Bytes, Error>;

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The API server hears of the call only after this time.
    Slow(Duration),
    /// The API server executes the request, and its response breaks off in the middle.
    Cut,
    /// The API server executes the request, and the connection closes without a response.
    LoseAnswer,
    /// This is answered, and the API server hears nothing.
    Answer(Refusal),
}

/// An answer in the API server's place, in its words.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: u16,
    /// As in the `Status` of the API server, such as `AlreadyExists`.
    pub reason: &'static str,
    pub message: String,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u32>,
}

/// A call of the service.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
}

impl Call {
    fn of(request: &Request<Incoming>) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_string(),
            query: request.uri().query().unwrap_or_default().to_string(),
        }
    }

    /// Whether it creates a job for good.
    pub fn creates_job(&self) -> bool {
        self.method == Method::POST
            && ["/pytorchjobs", "/trainjobs"]
                .iter()
                .any(|jobs| self.path.ends_with(jobs))
            && !self.query.contains("dryRun")
    }

    /// Whether it watches rather than reads.
    pub fn watches(&self) -> bool {
        self.query.contains("watch=true") || self.query.contains("watch=1")
    }
}

type Which = Box<dyn Fn(&Call) -> bool + Send>;

struct Rule {
    which: Which,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    calls: Vec<Call>,
    /// Cancelled: every watch that is open breaks off.
    watches: CancellationToken,
}

/// A running proxy. It ends when this is dropped.
pub struct FaultProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Cancelled: nobody listens, and no connection stays open.
    open: Mutex<CancellationToken>,
    folder: TempDir,
    // Its threads are its own, so a test may block while it works. None once it is dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    upstream: Client,
    state: Mutex<State>,
}

impl FaultProxy {
    /// Starts a proxy in front of the API server that a kubeconfig names, with its rights.
    ///
    /// # Errors
    ///
    /// When the kubeconfig cannot be read, or nothing can be listened on.
    pub fn start(kubeconfig: &Path) -> Result<Self> {
        let runtime = Runtime::new()?;
        let upstream = on(&runtime, {
            let kubeconfig = kubeconfig.to_path_buf();
            async move { crate::control_plane::client(&kubeconfig).await }
        })?;
        let listener = on(&runtime, async {
            Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
        })?;
        let address = listener.local_addr()?;
        let folder = tempfile::tempdir()?;
        let namespace = upstream.default_namespace().to_string();
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "service", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "service", "namespace": namespace}}],
            "current-context": "proxy",
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string())?;
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::default(),
        });
        let open = CancellationToken::new();
        runtime.spawn(accept(listener, shared.clone(), open.clone()));
        Ok(Self {
            shared,
            address,
            open: Mutex::new(open),
            folder,
            runtime: Some(runtime),
        })
    }

    /// The kubeconfig that leads through this proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Breaks the next `times` calls of a kind.
    pub fn inject(
        &self,
        which: impl Fn(&Call) -> bool + Send + 'static,
        times: usize,
        fault: Fault,
    ) {
        self.shared.state().rules.push(Rule {
            which: Box::new(which),
            fault,
            left: times,
        });
    }

    /// Breaks nothing from here on.
    pub fn heal(&self) {
        self.shared.state().rules.clear();
    }

    /// Refuses connections, and closes those that are open.
    pub fn refuse(&self) {
        lock(&self.open).cancel();
    }

    /// Takes connections again.
    ///
    /// # Errors
    ///
    /// When somebody else listens there by now.
    pub fn accept(&self) -> Result<()> {
        let address = self.address;
        // A connection that closes may keep the port for a moment.
        let runtime = self.runtime.as_ref().context("a running proxy")?;
        let listener = on(runtime, async move {
            let mut tried = 0;
            loop {
                match TcpListener::bind(address).await {
                    Err(_) if tried < 100 => tokio::time::sleep(Duration::from_millis(20)).await,
                    bound => return bound.context("listening again"),
                }
                tried += 1;
            }
        })?;
        let open = CancellationToken::new();
        *lock(&self.open) = open.clone();
        runtime.spawn(accept(listener, self.shared.clone(), open));
        Ok(())
    }

    /// Breaks off every watch that is open.
    pub fn drop_watches(&self) {
        let broken = std::mem::take(&mut self.shared.state().watches);
        broken.cancel();
    }

    /// The calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // In an asynchronous test nobody may wait for its threads.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs a future on the proxy's own threads, so that a test that is asynchronous may call it too.
fn on<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = std::sync::mpsc::channel();
    runtime.spawn(async move { sender.send(future.await) });
    receiver.recv()?
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, open: CancellationToken) {
    let connections = async {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = serve(stream, shared.clone());
            let open = open.clone();
            tokio::spawn(async move { open.run_until_cancelled(connection).await });
        }
    };
    open.run_until_cancelled(connections).await;
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let answer = service_fn(move |request| {
        let shared = shared.clone();
        async move { shared.answer(request).await }
    });
    // An error of the service is what closes a connection without an answer.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let call = Call::of(&request);
        let fault = self.state().next_fault(&call);
        match fault {
            None => self.pass(&call, request).await,
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                self.pass(&call, request).await
            }
            Some(Fault::Cut) => cut(self.pass(&call, request).await?).await,
            Some(Fault::LoseAnswer) => {
                let answer = self.pass(&call, request).await?;
                answer.into_body().collect().await?;
                Err(anyhow!("the answer is lost"))
            }
            Some(Fault::Answer(refusal)) => refusal.answer(),
        }
    }

    async fn pass(&self, call: &Call, request: Request<Incoming>) -> Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        for own in [HOST, AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            parts.headers.remove(own);
        }
        let body = kube::client::Body::from(body.collect().await?.to_bytes());
        let answer = self.upstream.send(Request::from_parts(parts, body)).await?;
        let (mut parts, body) = answer.into_parts();
        parts.headers.remove(TRANSFER_ENCODING);
        let body = body.map_err(|error| anyhow!(error));
        if !call.watches() {
            return Ok(Response::from_parts(parts, body.boxed_unsync()));
        }
        let broken = self.state().watches.clone().cancelled_owned();
        let frames = body.into_data_stream().map(|data| data.map(Frame::data));
        let end = stream::once(async { Err(anyhow!("the watch is dropped")) });
        let frames = frames.take_until(broken).chain(end);
        Ok(Response::from_parts(
            parts,
            StreamBody::new(frames).boxed_unsync(),
        ))
    }
}

impl State {
    fn next_fault(&mut self, call: &Call) -> Option<Fault> {
        self.calls.push(call.clone());
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.left > 0 && (rule.which)(call))?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }
}

impl Refusal {
    fn answer(&self) -> Result<Response<Body>> {
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        let mut answer = Response::builder()
            .status(StatusCode::from_u16(self.code)?)
            .header(CONTENT_TYPE, "application/json");
        if let Some(seconds) = self.retry_after {
            answer = answer.header(RETRY_AFTER, seconds);
        }
        let body = Full::from(status.to_string()).map_err(|never| match never {});
        Ok(answer.body(body.boxed_unsync())?)
    }
}

/// The first half of an answer, and then the connection breaks.
async fn cut(answer: Response<Body>) -> Result<Response<Body>> {
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let whole = body.collect().await?.to_bytes();
    let half = whole.slice(..whole.len() / 2);
    let frames = [Ok(Frame::data(half)), Err(anyhow!("the answer is cut"))];
    Ok(Response::from_parts(
        parts,
        StreamBody::new(stream::iter(frames)).boxed_unsync(),
    ))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
