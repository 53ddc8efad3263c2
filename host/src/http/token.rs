//! Authentication by the token that clients send with every request.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use metrics::counter;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::warn;

use super::app::App;
use super::guesses::Guesses;
use super::problem::Problem;
use crate::measure;

/// The specification's header.
pub(super) const HEADER: &str = "x-trainer-token";
/// How often failures of an address are logged.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// The maximum number of addresses whose failures are logged in that time.
const MAX_NOTED: usize = 256;

/// A token that clients must send. Only its hash is stored, so it cannot be printed.
#[derive(Clone)]
pub struct Token {
    hash: [u8; 32],
}

impl Token {
    pub fn new(token: impl AsRef<[u8]>) -> Self {
        Self {
            hash: Sha256::digest(token).into(),
        }
    }

    /// Compares in constant time. All hashes have the same length, so not even the length leaks.
    fn is(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.hash.ct_eq(&given).into()
    }
}

/// Accepts a request with the right token, or any request if no token is required.
pub(super) async fn check(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(token) = &app.token else {
        return Ok(next.run(request).await);
    };
    let reason = match request.headers().get(HEADER) {
        Some(given) if token.is(given.as_bytes()) => return Ok(next.run(request).await),
        Some(_) => "wrong",
        None => "missing",
    };
    counter!(measure::AUTHENTICATION_FAILURES.name, "reason" => reason).increment(1);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = peer.map(|ConnectInfo(peer)| peer.ip());
    app.failures.note(address, reason);
    if reason == "wrong" {
        app.failures.slow_down(address).await;
    }
    let detail = format!("the X-TRAINER-TOKEN header is {reason}; send the token of this service");
    Err(Problem::unauthorized(detail))
}

/// Failed authentications. Of an address the first is logged, and then how many there were, so that
/// whoever guesses tokens does not fill the log.
#[derive(Clone, Default)]
pub struct Failures {
    noted: Arc<Mutex<HashMap<Option<IpAddr>, Noted>>>,
    guesses: Guesses,
}

/// When an address was last logged, and the failures since then.
struct Noted {
    logged: Instant,
    since: u64,
}

impl Failures {
    fn note(&self, address: Option<IpAddr>, reason: &str) {
        if let Some(failures) = self.due(address, Instant::now()) {
            let address = address.map(|address| address.to_canonical().to_string());
            let address = address.as_deref().unwrap_or("unknown");
            warn!(
                address,
                reason, failures, "a request had a missing or wrong token"
            );
        }
    }

    /// Waits before a wrong token is answered, if its address sends many.
    async fn slow_down(&self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        if let Some(wait) = self.guesses.note(address, Instant::now()) {
            tokio::time::sleep(wait.time).await;
        }
    }

    /// How many failures of an address a line is due for, if one is.
    fn due(&self, address: Option<IpAddr>, now: Instant) -> Option<u64> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |known: &Noted| now.duration_since(known.logged) < LOG_EVERY;
        match noted.get_mut(&address) {
            Some(known) if is_recent(known) => {
                known.since += 1;
                return None;
            }
            Some(known) => {
                let failures = known.since + 1;
                *known = Noted {
                    logged: now,
                    since: 0,
                };
                return Some(failures);
            }
            None => {}
        }
        if noted.len() >= MAX_NOTED {
            noted.retain(|_, known| is_recent(known));
        }
        if noted.len() >= MAX_NOTED {
            return None;
        }
        let first = Noted {
            logged: now,
            since: 0,
        };
        noted.insert(address, first);
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_logged_at_once_and_then_now_and_again_with_a_count() {
        let failures = Failures::default();
        let begun = Instant::now();
        let [one, other] = [1, 2].map(|last| Some(IpAddr::from([192, 0, 2, last])));
        assert_eq!(failures.due(one, begun), Some(1));
        assert_eq!(failures.due(one, begun), None);
        assert_eq!(failures.due(one, begun), None);
        assert_eq!(failures.due(other, begun), Some(1));
        assert_eq!(failures.due(one, begun + LOG_EVERY), Some(3));
    }

    #[test]
    fn addresses_without_end_take_bounded_memory_and_lines() {
        let failures = Failures::default();
        let begun = Instant::now();
        let lines = (0..100_000_u32).filter_map(|address| {
            let address = IpAddr::from(address.to_be_bytes());
            failures.due(Some(address), begun)
        });
        assert_eq!(lines.count(), MAX_NOTED);
    }
}
