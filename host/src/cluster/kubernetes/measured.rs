//! Adds a time limit, a span and metrics to calls to the API server.

use std::time::{Duration, Instant};

use http::{Method, Request};
use metrics::{counter, histogram};
use tracing::{Instrument, Span, info_span};

use super::error::CallError;
use crate::measure;

/// A call to be measured.
pub(super) struct MeasuredCall {
    method: Method,
    span: Span,
}

impl MeasuredCall {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let method = request.method();
        // Without the query, because selectors contain values that clients choose, such as
        // idempotency keys.
        let span = info_span!("kubernetes", %method, path = request.uri().path());
        Self {
            method: method.clone(),
            span,
        }
    }

    /// Waits for the response with a time limit.
    pub(super) async fn within<T>(
        self,
        time: Duration,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        let begun = Instant::now();
        let answered = tokio::time::timeout(time, answer.instrument(self.span)).await;
        let answered = match answered {
            Ok(answered) => answered.map_err(CallError::from),
            Err(_) => Err(CallError::TimedOut(time)),
        };
        let method = self.method.to_string();
        histogram!(measure::KUBERNETES_REQUEST_DURATION.name, "method" => method.clone())
            .record(begun.elapsed());
        let outcome = outcome(&answered);
        counter!(measure::KUBERNETES_REQUESTS.name, "method" => method, "outcome" => outcome)
            .increment(1);
        answered
    }
}

/// The status of the response, or why there is none.
fn outcome<T>(answered: &Result<T, CallError>) -> String {
    match answered {
        Ok(_) => "ok".to_string(),
        Err(CallError::Status(status)) => status.code.to_string(),
        Err(CallError::TimedOut(_)) => "timed-out".to_string(),
        Err(CallError::NotSent(_)) => "unreachable".to_string(),
        Err(CallError::CutOff(_) | CallError::Nonsense(_) | CallError::NoRequest(_)) => {
            "cut-off".to_string()
        }
    }
}
