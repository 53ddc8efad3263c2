//! Limits large requests: they are checked on separate threads, only a few at a time and per
//! client.

mod background;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use background::Background;

/// Requests with a larger body are large. Checking a smaller one takes less than two milliseconds.
const LARGE_BYTES: usize = 32 * 1024;
/// How many large requests are checked at the same time; others wait.
const AT_ONCE: usize = 2;
/// How many large requests of a client are received and checked at the same time; others wait.
const OF_ONE_CALLER: usize = 4;
/// How long a request may wait for a place, and how long it may then wait for a permit.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Where large requests are checked.
static THREADS: LazyLock<Background> = LazyLock::new(|| Background::start(AT_ONCE));

/// The places of one client.
type Places = Weak<Semaphore>;

/// The large requests of a service.
#[derive(Clone, Debug)]
pub(super) struct LargeRequests {
    permits: Arc<Semaphore>,
    /// By client address. A proxy in front of many clients counts as one client.
    callers: Arc<Mutex<HashMap<Option<IpAddr>, Places>>>,
}

impl Default for LargeRequests {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            callers: Arc::default(),
        }
    }
}

/// How the work for a request is done: inline, or on a thread for large requests with a permit.
#[derive(Debug)]
pub(super) struct Load {
    permit: Option<Turn>,
}

/// The permit to check one large request, until it is dropped.
#[derive(Debug)]
struct Turn {
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

/// The permit to receive one large request of a client, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl LargeRequests {
    /// Waits for a place for a body of this size if it is large; `extensions` are those of the
    /// request. Waiting costs nothing, and slows down a client that sends many large requests.
    ///
    /// # Errors
    ///
    /// If the client has too many large requests for too long.
    pub(super) async fn admit(
        &self,
        bytes: usize,
        extensions: &Extensions,
    ) -> Result<Option<Place>, Problem> {
        if bytes <= LARGE_BYTES {
            return Ok(None);
        }
        let address = extensions.get::<ConnectInfo<SocketAddr>>();
        let places = self.places(address.map(|address| address.0.ip()));
        let permit = wait(places).await.ok_or_else(|| {
            let what =
                format!("{OF_ONE_CALLER} large requests of this client are still in progress");
            Problem::busy(&what)
        })?;
        Ok(Some(Place { _permit: permit }))
    }

    /// Decides how to process a body, and waits for a turn if it is large.
    ///
    /// # Errors
    ///
    /// If the wait is too long.
    pub(super) async fn load(&self, place: Option<Place>) -> Result<Load, Problem> {
        let Some(place) = place else {
            return Ok(Load { permit: None });
        };
        let permit = wait(self.permits.clone()).await;
        let permit = permit.ok_or_else(|| Problem::busy("too many large requests at once"))?;
        let turn = Turn {
            _permit: permit,
            _place: place,
        };
        Ok(Load { permit: Some(turn) })
    }

    fn places(&self, caller: Option<IpAddr>) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = callers.get(&caller).and_then(Weak::upgrade) {
            return places;
        }
        callers.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(OF_ONE_CALLER));
        callers.insert(caller, Arc::downgrade(&places));
        places
    }
}

async fn wait(permits: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let permit = tokio::time::timeout(LONGEST_WAIT, permits.acquire_owned()).await;
    permit.ok()?.ok()
}

impl Load {
    /// Runs the work and waits for it.
    ///
    /// # Errors
    ///
    /// When the work panics, which is a bug of this service.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        match &self.permit {
            None => Ok(work()),
            Some(_) => THREADS.run(work).await.map_err(Problem::internal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Extensions {
        let mut extensions = Extensions::new();
        let address: SocketAddr = address.parse().unwrap();
        extensions.insert(ConnectInfo(address));
        extensions
    }

    #[tokio::test]
    async fn one_caller_has_a_few_large_requests_and_others_still_get_in() {
        let large = LargeRequests::default();
        let (one, other) = (from("192.0.2.1:1000"), from("192.0.2.2:1000"));
        let mut places = Vec::new();
        for _ in 0..OF_ONE_CALLER {
            places.push(large.admit(LARGE_BYTES + 1, &one).await.unwrap());
        }
        assert!(large.admit(LARGE_BYTES + 1, &one).await.is_err());
        assert!(large.admit(LARGE_BYTES, &one).await.unwrap().is_none());
        assert!(large.admit(LARGE_BYTES + 1, &other).await.is_ok());
        let (next, ()) = tokio::join!(large.admit(LARGE_BYTES + 1, &one), async { drop(places) });
        drop(next.unwrap());
        large.admit(LARGE_BYTES + 1, &other).await.unwrap();
        assert_eq!(large.callers.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_large_request_waits_for_its_turn_but_not_for_long() {
        let large = LargeRequests::default();
        let (one, two) = (from("192.0.2.1:1"), from("192.0.2.2:1"));
        let place = async |from: &Extensions| large.admit(LARGE_BYTES + 1, from).await.unwrap();
        let first = large.load(place(&one).await).await.unwrap();
        let _second = large.load(place(&one).await).await.unwrap();
        assert!(large.load(place(&two).await).await.is_err());
        drop(first);
        assert!(large.load(place(&two).await).await.is_ok());
    }
}
