//! Content negotiation for reads: YAML on request, entity tags, and HEAD.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// Larger than any buffered response.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// Converts a response to the requested representation.
pub(super) async fn negotiate(mut request: Request, next: Next) -> Result<Response, Problem> {
    let is_head = request.method() == Method::HEAD;
    if !is_head && request.method() != Method::GET {
        return Ok(next.run(request).await);
    }
    // HEAD returns the same headers as GET.
    *request.method_mut() = Method::GET;
    let asked = request.headers().clone();
    let response = next.run(request).await;
    let response = match is_whole(&response) {
        true => present(response, &asked).await?,
        false => response,
    };
    Ok(match is_head {
        true => response.map(|_| Body::empty()),
        false => response,
    })
}

/// Whether the client asks for YAML.
pub(super) fn wants_yaml(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| {
        let mut types = accept.split(',').map(|range| range.split(';').next());
        types.any(|media| matches!(media.map(str::trim), Some("application/yaml")))
    })
}

/// A value as YAML.
pub(super) fn yaml(value: &impl Serialize) -> Result<Response, Problem> {
    let text = serde_saphyr::to_string(value).map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], text).into_response())
}

/// Whether a response is a buffered success. Streams and errors are not changed.
fn is_whole(response: &Response) -> bool {
    use http_body::Body as _;
    response.status() == StatusCode::OK && response.body().size_hint().exact().is_some()
}

async fn present(response: Response, asked: &HeaderMap) -> Result<Response, Problem> {
    let (mut parts, body) = response.into_parts();
    let mut bytes = to_bytes(body, MAX_BYTES).await.map_err(Problem::internal)?;
    let is_json = parts.headers.get(header::CONTENT_TYPE)
        == Some(&HeaderValue::from_static("application/json"));
    if is_json && wants_yaml(asked) {
        bytes = json_to_yaml(&bytes)?;
        let yaml = HeaderValue::from_static("application/yaml");
        parts.headers.insert(header::CONTENT_TYPE, yaml);
    }
    let tag = tag(&bytes);
    parts
        .headers
        .append(header::VARY, HeaderValue::from_static("accept"));
    // Status can change at any time, so caches must revalidate.
    let check = HeaderValue::from_static("private, no-cache");
    parts.headers.entry(header::CACHE_CONTROL).or_insert(check);
    let is_known = knows(asked, &tag);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, tag);
    }
    if is_known {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    parts
        .headers
        .insert(header::CONTENT_LENGTH, bytes.len().into());
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

fn json_to_yaml(json: &Bytes) -> Result<Bytes, Problem> {
    let value: Value = serde_json::from_slice(json).map_err(Problem::internal)?;
    let yaml = serde_saphyr::to_string(&value).map_err(Problem::internal)?;
    Ok(yaml.into())
}

/// A weak tag (RFC 9110, 8.8.1), because compression may change the bytes.
fn tag(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hash: String = hash[..12]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("W/\"{hash}\"")
}

/// Whether `If-None-Match` contains a tag.
fn knows(asked: &HeaderMap, tag: &str) -> bool {
    let given = asked.get_all(header::IF_NONE_MATCH).iter();
    let given = given.filter_map(|value| value.to_str().ok());
    let mut given = given.flat_map(|tags| tags.split(',')).map(str::trim);
    let strong = tag.trim_start_matches("W/");
    given.any(|given| given == "*" || given.trim_start_matches("W/") == strong)
}
