//! The token in the headers of a request, and what is wrong if it is not valid.

use axum::http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;

use crate::access::AccessControl;

/// The specification's header.
pub(super) const HEADER: &str = "x-trainer-token";
/// How the value of an `Authorization` header with a token begins.
const BEARER: &[u8] = b"bearer ";

/// The token of a request, in the specification's header or as a bearer token (RFC 6750).
pub(super) fn given(headers: &HeaderMap) -> Option<&[u8]> {
    let own = headers.get(HEADER).map(HeaderValue::as_bytes);
    own.or_else(|| bearer(headers.get(header::AUTHORIZATION)?.as_bytes()))
}

/// What is wrong with the token of a request, on a service with an access file. Only the holder of an
/// expired token learns whose it was.
pub(super) fn fault(access: &AccessControl, headers: &HeaderMap, now: Timestamp) -> String {
    let Some(token) = given(headers) else {
        return match headers.contains_key(header::AUTHORIZATION) {
            true => "the Authorization header has no token; write Authorization: Bearer TOKEN",
            false => {
                "the token is missing; send your own as X-TRAINER-TOKEN, or as Authorization: Bearer"
            }
        }
        .to_string();
    };
    if let Some((name, time)) = access.expired(token, now) {
        return format!(
            "the token of {name} expired at {time}; ask the operator of this service for a new one"
        );
    }
    if headers.contains_key(HEADER) && bearer(token).is_some() {
        return "the token is wrong: X-TRAINER-TOKEN takes it alone, without the word Bearer"
            .to_string();
    }
    "the token is wrong or has expired; send your own as X-TRAINER-TOKEN, or as Authorization: Bearer"
        .to_string()
}

/// The token after the word Bearer.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(BEARER.len())?;
    scheme
        .eq_ignore_ascii_case(BEARER)
        .then(|| token.trim_ascii())
}
