//! The token that clients send with every request.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::App;
use super::problem::Problem;

/// The specification's header.
pub(super) const HEADER: &str = "x-trainer-token";

/// A token that clients have to send. Its hash is kept, so nothing can print it.
#[derive(Clone)]
pub struct Token {
    hash: [u8; 32],
}

impl Token {
    pub fn new(token: &str) -> Self {
        Self {
            hash: Sha256::digest(token.as_bytes()).into(),
        }
    }

    /// Compares in constant time. Hashes have one length, so not even that shows.
    fn is(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.hash.ct_eq(&given).into()
    }
}

/// Lets a request through that carries the token, if one is asked for.
pub(super) async fn check(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(token) = &app.token else {
        return Ok(next.run(request).await);
    };
    match request.headers().get(HEADER) {
        Some(given) if token.is(given.as_bytes()) => Ok(next.run(request).await),
        Some(_) => Err(Problem::unauthorized("the X-TRAINER-TOKEN header is wrong")),
        None => Err(Problem::unauthorized(
            "the X-TRAINER-TOKEN header is missing",
        )),
    }
}
