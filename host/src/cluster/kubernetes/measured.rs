//! One call to the API server: its time limit, its span, and what is measured of it.

use std::time::{Duration, Instant};

use http::{Method, Request};
use metrics::{counter, histogram};
use tracing::{Instrument, Span, info_span};

use super::error::CallError;
use crate::measure;

/// A call that is about to be made.
pub(super) struct MeasuredCall {
    method: Method,
    span: Span,
}

impl MeasuredCall {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let method = request.method();
        // Without the query: selectors hold what callers make up, such as keys of submissions.
        let span = info_span!("kubernetes", %method, path = request.uri().path());
        Self {
            method: method.clone(),
            span,
        }
    }

    /// Waits for the answer, and so long at most.
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

/// The API server's status, or why there is none.
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
