//! Limits large requests: they are checked on separate threads, only a few at a time and per
//! client.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Requests with a larger body are large. Checking a smaller one takes less than two milliseconds.
const LARGE_BYTES: usize = 32 * 1024;
/// How many large requests are checked at the same time; others wait.
const AT_ONCE: usize = 2;
/// How many large requests a client may have, including waiting ones.
const OF_ONE_CALLER: usize = 4;
/// How long a request may wait for a permit.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The large requests of a service.
#[derive(Clone, Debug)]
pub(super) struct LargeRequests {
    permits: Arc<Semaphore>,
    /// By client address. A proxy in front of many clients counts as one client.
    callers: Arc<Mutex<HashMap<Option<IpAddr>, usize>>>,
}

impl Default for LargeRequests {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            callers: Arc::default(),
        }
    }
}

/// How the work for a request is done: inline, or on a blocking thread with a permit.
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

impl LargeRequests {
    /// Takes a place for a body of this size if it is large; `extensions` are those of the request.
    ///
    /// # Errors
    ///
    /// If the client has too many large requests.
    pub(super) fn admit(
        &self,
        bytes: usize,
        extensions: &Extensions,
    ) -> Result<Option<Place>, Problem> {
        if bytes <= LARGE_BYTES {
            return Ok(None);
        }
        let address = extensions.get::<ConnectInfo<SocketAddr>>();
        let place = self.place(address.map(|address| address.0.ip()))?;
        Ok(Some(place))
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
        let permit = self.permits.clone().acquire_owned();
        match tokio::time::timeout(LONGEST_WAIT, permit).await {
            Ok(Ok(permit)) => {
                let permit = Turn {
                    _permit: permit,
                    _place: place,
                };
                Ok(Load {
                    permit: Some(permit),
                })
            }
            _ => Err(Problem::busy("too many large requests at once")),
        }
    }

    fn place(&self, caller: Option<IpAddr>) -> Result<Place, Problem> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = callers.entry(caller).or_default();
        if *count >= OF_ONE_CALLER {
            let what =
                format!("{OF_ONE_CALLER} large requests of this client are still in progress");
            return Err(Problem::busy(&what));
        }
        *count += 1;
        Ok(Place {
            callers: self.callers.clone(),
            caller,
        })
    }
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
            Some(_) => tokio::task::spawn_blocking(work)
                .await
                .map_err(Problem::internal),
        }
    }
}

/// Counts one large request of a client.
#[derive(Debug)]
pub(super) struct Place {
    callers: Arc<Mutex<HashMap<Option<IpAddr>, usize>>>,
    caller: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = callers.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                callers.remove(&self.caller);
            }
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

    #[test]
    fn one_caller_has_a_few_large_requests_and_others_still_get_in() {
        let large = LargeRequests::default();
        let (one, other) = (from("192.0.2.1:1000"), from("192.0.2.2:1000"));
        let places: Vec<_> = (0..OF_ONE_CALLER)
            .map(|_| large.admit(LARGE_BYTES + 1, &one).unwrap())
            .collect();
        assert!(large.admit(LARGE_BYTES + 1, &one).is_err());
        assert!(large.admit(LARGE_BYTES, &one).unwrap().is_none());
        assert!(large.admit(LARGE_BYTES + 1, &other).is_ok());
        drop(places);
        assert!(large.admit(LARGE_BYTES + 1, &one).is_ok());
        assert!(large.callers.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_large_request_waits_for_its_turn_but_not_for_long() {
        let large = LargeRequests::default();
        let (one, two) = (from("192.0.2.1:1"), from("192.0.2.2:1"));
        let place = |from: &Extensions| large.admit(LARGE_BYTES + 1, from).unwrap();
        let first = large.load(place(&one)).await.unwrap();
        let _second = large.load(place(&one)).await.unwrap();
        assert!(large.load(place(&two)).await.is_err());
        drop(first);
        assert!(large.load(place(&two)).await.is_ok());
    }
}
