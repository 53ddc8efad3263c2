//! Takes a plugin that keeps failing out of service for a while, so that requests for it are
//! answered at once and cost nobody a time limit.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts a plugin's failures in a row.
#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    rest: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Calls are made; so many failed one after the other.
    InService { failed: u32 },
    /// No call is made before this. One is then, as a trial: unless it succeeds the rest goes on.
    Resting { until: Instant },
}

/// How long a plugin is still out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resting(pub(super) Duration);

impl Breaker {
    /// `failures` in a row begin a rest.
    pub(super) fn new(failures: u32, rest: Duration) -> Self {
        Self {
            failures,
            rest,
            state: Mutex::new(State::InService { failed: 0 }),
        }
    }

    /// Whether a call may be made at this time. The first one after a rest is the trial.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Resting> {
        let mut state = self.lock();
        match *state {
            State::InService { .. } => Ok(()),
            State::Resting { until } if until > now => Err(Resting(until - now)),
            State::Resting { .. } => {
                *state = State::Resting {
                    until: now + self.rest,
                };
                Ok(())
            }
        }
    }

    /// How long the plugin is still out of service, if it is.
    pub(super) fn resting(&self, now: Instant) -> Option<Duration> {
        match *self.lock() {
            State::Resting { until } => Some(until.saturating_duration_since(now)),
            State::InService { .. } => None,
        }
    }

    /// Notes a call that the plugin answered, be it with a refusal.
    pub(super) fn succeeded(&self) {
        *self.lock() = State::InService { failed: 0 };
    }

    /// Notes a call that the plugin failed, and says whether a rest begins with it.
    pub(super) fn failed(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let failed = match *state {
            State::InService { failed } => failed + 1,
            State::Resting { .. } => self.failures,
        };
        let begins = failed == self.failures && matches!(*state, State::InService { .. });
        *state = match failed >= self.failures {
            true => State::Resting {
                until: now + self.rest,
            },
            false => State::InService { failed },
        };
        begins.then_some(self.rest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every state is sound, whatever a panic interrupted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(30);

    #[test]
    fn failures_in_a_row_begin_a_rest_and_a_success_between_them_does_not() {
        let (breaker, now) = (Breaker::new(3, REST), Instant::now());
        assert_eq!(breaker.failed(now), None);
        assert_eq!(breaker.failed(now), None);
        breaker.succeeded();
        assert_eq!(breaker.failed(now), None);
        assert_eq!(breaker.failed(now), None);
        assert_eq!(breaker.admit(now), Ok(()));
        assert_eq!(breaker.failed(now), Some(REST));
        assert_eq!(breaker.admit(now), Err(Resting(REST)));
    }

    #[test]
    fn one_call_is_tried_after_a_rest_and_decides() {
        let (breaker, now) = (Breaker::new(1, REST), Instant::now());
        breaker.failed(now);
        let later = now + REST;
        assert_eq!(breaker.admit(later), Ok(()));
        assert_eq!(breaker.admit(later), Err(Resting(REST)));
        assert_eq!(breaker.failed(later), None);
        assert_eq!(breaker.admit(later), Err(Resting(REST)));
        assert_eq!(breaker.admit(later + REST), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.admit(later + REST), Ok(()));
        assert_eq!(breaker.resting(later), None);
    }
}
