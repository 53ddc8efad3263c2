//! Reads request bodies. All handlers use it, so that invalid bodies always get the same response.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde_json::Value;

use super::heavy::{LargeRequests, Load};
use super::problem::Problem;
use crate::request::json;

/// The maximum size of a body.
const MAX_BYTES: usize = 1024 * 1024;
/// The time limit for receiving a body.
const LONGEST_READ: Duration = Duration::from_secs(20);
/// How much of a body that is too large is read and discarded, because a client that is still
/// sending does not read the response.
const MAX_DISCARDED_BYTES: usize = 32 * 1024 * 1024;

/// A JSON body.
pub(super) struct JsonBody {
    pub(super) value: Value,
    /// How further work for the request is done.
    pub(super) load: Load,
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_type(request.headers())?;
        let (parts, body) = request.into_parts();
        let large = parts.extensions.get::<LargeRequests>();
        let large = large.cloned().unwrap_or_default();
        // Before the body is read, so that a client with too many large requests costs no memory.
        let declared = declared_length(&parts.headers);
        let place = match large.admit(declared, &parts.extensions).await {
            Ok(place) => place,
            Err(busy) => {
                discard(body).await;
                return Err(busy);
            }
        };
        let bytes = tokio::time::timeout(LONGEST_READ, read(body)).await;
        let bytes = bytes.map_err(|_| Problem::slow_body(LONGEST_READ))??;
        let place = match place {
            None => large.admit(bytes.len(), &parts.extensions).await?,
            place => place,
        };
        let load = large.load(place).await?;
        let value = load.run(move || json::parse(&bytes)).await??;
        Ok(Self { value, load })
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    match media.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Problem::media_type(given)),
    }
}

/// The length in the headers, or zero for a body that is sent in pieces.
fn declared_length(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or_default()
}

/// Reads a body that is not needed, because a client that is still sending does not read the response.
async fn discard(mut body: Body) {
    let frames = async {
        let mut size = 0;
        while let Some(Ok(frame)) = body.frame().await {
            size += frame.data_ref().map_or(0, Bytes::len);
            if size > MAX_DISCARDED_BYTES {
                break;
            }
        }
    };
    // A slow one is closed.
    let _ = tokio::time::timeout(LONGEST_READ, frames).await;
}

async fn read(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::body_cut_off())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        size += data.len();
        if size > MAX_DISCARDED_BYTES {
            break;
        }
        if size <= MAX_BYTES {
            bytes.extend_from_slice(&data);
        }
    }
    match size > MAX_BYTES {
        true => Err(Problem::too_large(MAX_BYTES)),
        false => Ok(bytes),
    }
}
