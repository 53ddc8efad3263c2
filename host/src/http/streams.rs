//! Limits the number of open logs and event streams. Clients can keep each open, with its
//! connection and file handles, as long as they like.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use futures_util::{Stream, StreamExt};

use super::problem::Problem;

/// The client address of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Caller(IpAddr);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = connection.map(|ConnectInfo(address)| address.ip());
        Ok(Self(address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())))
    }
}

/// The open streams of one kind.
#[derive(Debug)]
pub(super) struct Streams {
    /// The name in messages, such as `logs`.
    kind: &'static str,
    /// The maximum in total. A client may have half of them, so that others are not blocked.
    most: usize,
    open: Mutex<HashMap<Caller, usize>>,
}

impl Streams {
    pub(super) fn new(kind: &'static str, most: usize) -> Arc<Self> {
        let open = Mutex::default();
        Arc::new(Self { kind, most, open })
    }

    /// Reserves streams for a client, until the reservation is dropped.
    pub(super) fn enter(self: &Arc<Self>, caller: Caller, count: usize) -> Result<Place, Problem> {
        let mut open = self.open();
        let all: usize = open.values().sum();
        let own = open.get(&caller).copied().unwrap_or_default();
        let (kind, most) = (self.kind, self.most);
        if own + count > most / 2 {
            let detail = format!(
                "your address has {own} open {kind}, at most {} are allowed; close some of them \
                 first",
                most / 2
            );
            return Err(Problem::too_many_streams(detail));
        }
        if all + count > most {
            let detail = format!(
                "this service has {all} open {kind}, at most {most} are allowed; try again later"
            );
            return Err(Problem::too_many_streams(detail));
        }
        open.insert(caller, own + count);
        drop(open);
        let streams = self.clone();
        Ok(Place {
            streams,
            caller,
            count,
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Caller, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reservation of open streams.
#[derive(Debug)]
pub(super) struct Place {
    streams: Arc<Streams>,
    caller: Caller,
    count: usize,
}

impl Place {
    /// Keeps the reservation until the stream ends.
    pub(super) fn hold<T>(self, stream: impl Stream<Item = T>) -> impl Stream<Item = T> {
        stream.map(move |item| {
            let _held = &self;
            item
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        let left = open.get(&self.caller).copied().unwrap_or_default();
        match left.saturating_sub(self.count) {
            0 => open.remove(&self.caller),
            left => open.insert(self.caller, left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(last: u8) -> Caller {
        Caller(Ipv4Addr::new(127, 0, 0, last).into())
    }

    #[test]
    fn a_caller_has_half_of_the_streams_and_gives_them_back() {
        let streams = Streams::new("logs", 8);
        let one = streams.enter(caller(1), 3).unwrap();
        let two = streams.enter(caller(1), 1).unwrap();
        assert!(streams.enter(caller(1), 1).is_err());
        let other = streams.enter(caller(2), 4).unwrap();
        assert!(streams.enter(caller(3), 1).is_err());
        drop(one);
        assert!(streams.enter(caller(1), 3).is_ok());
        drop((two, other));
        assert!(streams.open().is_empty());
    }
}
