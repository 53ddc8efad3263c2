//! Middleware that protects every request and response.

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use super::REQUEST_ID;
use super::problem::Problem;
use crate::listen::InReserve;

/// The maximum length of an accepted request id.
const MAX_ID: usize = 128;

/// Removes an invalid request id, because ids are sent back and logged.
pub(super) async fn check_id(mut request: Request) -> Request {
    let mut given = request.headers().get_all(REQUEST_ID).iter();
    let is_one = match (given.next(), given.next()) {
        (Some(id), None) => is_id(id.as_bytes()),
        _ => false,
    };
    if !is_one {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

fn is_id(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=MAX_ID).contains(&id.len()) && id.iter().all(is_plain)
}

/// Prevents browsers from guessing another content type.
pub(super) async fn never_sniffed(mut response: Response) -> Response {
    let nosniff = HeaderValue::from_static("nosniff");
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Refuses requests of reserve connections.
pub(super) async fn check_room(request: Request, next: Next) -> Result<Response, Problem> {
    match request.extensions().get::<InReserve>() {
        Some(InReserve) => Err(Problem::crowded()),
        None => Ok(next.run(request).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain() {
        for id in [
            "a",
            "0af76519-16cd-43dd-8448-eb211c80319c",
            "Root=1-67891233-abcdef012345678912345678",
            &"x".repeat(MAX_ID),
        ] {
            assert!(is_id(id.as_bytes()), "{id}");
        }
        for id in [
            "",
            "a b",
            "a\tb",
            "<script>",
            "a\u{1b}[31m",
            "\u{e9}",
            "{}",
            "a\"b",
        ] {
            assert!(!is_id(id.as_bytes()), "{id:?}");
        }
        assert!(!is_id("x".repeat(MAX_ID + 1).as_bytes()));
    }
}
