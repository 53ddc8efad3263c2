//! Accepts connections, limits them, and closes them when the service stops.
//!
//! Clients must send requests and read responses in limited time. If there are too many
//! connections, idle ones are closed, the oldest first. A reserve of connections remains for health
//! checks.

mod connections;
mod fair;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use connections::{Busy, Connections, Place, Room};
pub use connections::{Limits, owner};
use fair::Fair;

use crate::measure::{self, ClosedBy};

/// The time limit for the request headers on a new connection.
const FIRST_REQUEST: Duration = Duration::from_secs(15);
/// The time limit for the headers of the next request on a kept-alive connection. It is longer than
/// the idle timeout of load balancers, so that none sends a request while this service closes the
/// connection.
const NEXT_REQUEST: Duration = Duration::from_secs(75);
/// The time limit for a client that reads nothing of a pending response.
const UNREAD: Duration = Duration::from_secs(30);
/// The size of the kernel's send buffer, of which Linux allocates twice as much. Without a limit, it
/// grows to megabytes for a client that reads nothing.
const SEND_BUFFER: usize = 128 * 1024;
/// How long a connection is idle before TCP keepalive probes start.
const SILENCE: Duration = Duration::from_secs(60);
/// The maximum size of request headers.
const MAX_HEADERS: usize = 16 * 1024;
/// The maximum number of response bytes buffered per connection.
const MAX_BUFFER: usize = 64 * 1024;
/// How long idle connections stay open when the service stops, because a request may be on its way.
const LAST_REQUESTS: Duration = Duration::from_millis(500);
/// The delay after a failed accept, for example for lack of file descriptors.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How many connections may wait until they are accepted; Linux limits it to `net.core.somaxconn`. A
/// client that finds no room tries again only after a second.
const BACKLOG: u32 = 4096;

/// Marks a request on a reserve connection: only health checks are allowed.
#[derive(Clone, Copy, Debug)]
pub struct InReserve;

/// Listens on an address.
///
/// # Errors
///
/// If the address is in use, or not one of this machine.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted service gets its port although connections of the last one linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves a router until the service stops, and then until requests in flight have completed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    mut draining: watch::Receiver<bool>,
) {
    let server = Server {
        router,
        connections: Arc::new(Connections::new(limits)),
        draining: draining.clone(),
    };
    let tasks = TaskTracker::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    server.admit(stream, peer, &tasks);
                    // Gives existing connections a chance to send requests before new ones displace
                    // them.
                    tokio::task::yield_now().await;
                }
                Err(error) => server.recover(&error).await,
            },
            _ = draining.wait_for(|draining| *draining) => break,
        }
    }
    drop(listener);
    tasks.close();
    let _ = tokio::time::timeout(LAST_REQUESTS, tasks.wait()).await;
    server.connections.close_waiting();
    tasks.wait().await;
}

struct Server {
    router: Router,
    connections: Arc<Connections>,
    draining: watch::Receiver<bool>,
}

impl Server {
    /// Serves a connection, unless even the reserve is full.
    fn admit(&self, stream: TcpStream, peer: SocketAddr, tasks: &TaskTracker) {
        let Some(place) = self.connections.admit(peer.ip()) else {
            return measure::connection_closed(ClosedBy::Refusal);
        };
        let connection = Connection {
            router: self.router.clone(),
            peer,
            place: Arc::new(place),
            draining: self.draining.clone(),
        };
        tasks.spawn(connection.serve(stream));
    }

    async fn recover(&self, error: &io::Error) {
        // Whether the client closed the connection before it was accepted.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        warn!(%error, "cannot accept connections");
        self.connections.close_oldest();
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

struct Connection {
    router: Router,
    peer: SocketAddr,
    place: Arc<Place>,
    draining: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        prepare(&stream);
        let Self {
            router,
            peer,
            place,
            mut draining,
        } = self;
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(UNREAD));
        let stream = TokioIo::new(Fair::new(Box::pin(stream)));
        let service = service_fn(|request| answer(&router, peer, &place, request));
        let mut connection = pin!(protocol().serve_connection(stream, service));
        let mut first_request = pin!(tokio::time::sleep(FIRST_REQUEST));
        let (mut is_watched, mut is_ending) = (true, false);
        loop {
            tokio::select! {
                served = connection.as_mut() => return ended(served),
                () = place.evicted() => return measure::connection_closed(ClosedBy::Crowd),
                () = &mut first_request, if is_watched => {
                    if !place.has_begun() {
                        return measure::connection_closed(ClosedBy::Slowness);
                    }
                    is_watched = false;
                }
                _ = draining.wait_for(|draining| *draining), if !is_ending => {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_REQUEST)
        .max_header_size(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER);
    protocol
}

/// Sends small pieces of events and logs immediately, limits what waits for a slow client, and detects
/// clients that disappeared.
fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(SILENCE);
    let socket = SockRef::from(stream);
    let prepared = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive))
        .and_then(|()| socket.set_send_buffer_size(SEND_BUFFER));
    if let Err(error) = prepared {
        debug!(%error, "a connection closed during setup");
    }
}

async fn answer(
    router: &Router,
    peer: SocketAddr,
    place: &Arc<Place>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let busy = place.begin();
    request.extensions_mut().insert(ConnectInfo(peer));
    let is_in_reserve = place.room() == Room::Reserve;
    if is_in_reserve {
        request.extensions_mut().insert(InReserve);
    }
    let mut response = router.clone().oneshot(request.map(Body::new)).await?;
    if is_in_reserve {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    Ok(response.map(|body| Answer { body, _busy: busy }))
}

/// Counts a connection that was closed by a limit.
fn ended(served: hyper::Result<()>) {
    let Err(error) = served else { return };
    let source = std::error::Error::source(&error);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    let is_unread = source.is_some_and(|source| source.kind() == io::ErrorKind::TimedOut);
    if error.is_timeout() || is_unread {
        measure::connection_closed(ClosedBy::Slowness);
    }
    debug!(%error, "a connection was interrupted");
}

/// The body of a response. The connection is busy until it has been sent.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
