//! Ends streams of logs and events whose caller has lost access since they began.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::Response;
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::access::AccessControl;
use crate::access_rules::Principal;

/// How often a token is checked again, besides each change of the access file.
const AGAIN: Duration = Duration::from_secs(30);

/// Who gets a stream, and by which token.
pub(super) struct Listener {
    pub(super) control: Arc<AccessControl>,
    pub(super) token: Vec<u8>,
    pub(super) principal: Arc<Principal>,
    /// Notices what changes from the authentication on, even if the stream is read later.
    pub(super) versions: watch::Receiver<u64>,
}

impl Listener {
    /// The answer, which ends as soon as the token no longer means the same caller.
    pub(super) fn bound(self, answer: Response) -> Response {
        let kind = answer.headers().get(header::CONTENT_TYPE);
        let kind = kind.map(|kind| kind.as_bytes()).unwrap_or_default();
        let can_last = [&b"text/event-stream"[..], b"text/plain"];
        if !can_last.iter().any(|lasting| kind.starts_with(lasting)) {
            return answer;
        }
        answer.map(|body| {
            let pieces = body.into_data_stream();
            Body::from_stream(pieces.take_until(Box::pin(self.lost())))
        })
    }

    async fn lost(mut self) {
        loop {
            // The sender lives in the control.
            let _ = tokio::time::timeout(AGAIN, self.versions.changed()).await;
            let caller = self
                .control
                .authenticate(&self.token, Timestamp::now())
                .await;
            if caller.as_deref() != Some(&*self.principal) {
                return;
            }
        }
    }
}
