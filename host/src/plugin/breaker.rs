//! Takes a plugin that keeps running into its limits out of service for a while, so that requests
//! for it are answered at once and cost nobody a time limit.
//!
//! A plan depends on its input alone, so a call that fails says something about its input. A plugin
//! counts as broken only when calls with different arguments fail, one after the other, and what a
//! failure costs decides whether it counts: one that traps is over at once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

/// Most arguments that are remembered because calls with them failed.
const MOST_SUSPECTS: usize = 64;
/// Most arguments in a row that are counted, whatever the operator allows.
const MOST_COUNTED: usize = 1000;

/// A hash that distinguishes the arguments of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arguments(u64);

impl Arguments {
    pub(super) fn of(extra_args: &Map<String, Value>) -> Self {
        let mut hasher = DefaultHasher::new();
        for member in extra_args {
            member.hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

/// Counts the arguments in a row with which a plugin ran into its limits.
#[derive(Debug)]
pub(super) struct Breaker {
    failures: usize,
    rest: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    service: Service,
    suspects: Vec<Suspect>,
}

#[derive(Debug)]
enum Service {
    /// Calls are made; those with these arguments failed one after the other.
    On { failed: Vec<Arguments> },
    /// No call is made before this. One is then, as a trial: unless it succeeds the rest continues.
    Resting { until: Instant },
}

impl Default for Service {
    fn default() -> Self {
        Self::On { failed: Vec::new() }
    }
}

/// Arguments that a call has failed with. One call at a time is made with them, so that they never
/// take every turn of the plugin.
#[derive(Debug)]
struct Suspect {
    arguments: Arguments,
    /// When they are forgotten.
    until: Instant,
    is_called: bool,
}

/// Why a call is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// The plugin is out of service. Contains the remaining time.
    Resting(Duration),
    /// A call with these arguments failed, and another one runs.
    Suspect,
}

impl Breaker {
    /// `failures` with different arguments in a row begin a rest.
    pub(super) fn new(failures: u32, rest: Duration) -> Self {
        Self {
            failures: MOST_COUNTED.min(failures as usize),
            rest,
            state: Mutex::default(),
        }
    }

    /// Whether a call may be made at this time. The first one after a rest is the trial.
    pub(super) fn admit(&self, arguments: Arguments, now: Instant) -> Result<(), NotNow> {
        let mut state = self.lock();
        if let Service::Resting { until } = state.service
            && until > now
        {
            return Err(NotNow::Resting(until - now));
        }
        state.suspects.retain(|suspect| suspect.until > now);
        if let Some(suspect) = state.suspect(arguments) {
            if suspect.is_called {
                return Err(NotNow::Suspect);
            }
            suspect.is_called = true;
            suspect.until = now + self.rest;
        }
        if let Service::Resting { until } = &mut state.service {
            *until = now + self.rest;
        }
        Ok(())
    }

    /// How long the plugin is still out of service, if it is.
    pub(super) fn resting(&self, now: Instant) -> Option<Duration> {
        match self.lock().service {
            Service::Resting { until } => Some(until.saturating_duration_since(now)),
            Service::On { .. } => None,
        }
    }

    /// Notes a call that the plugin answered, be it with a refusal.
    pub(super) fn succeeded(&self, arguments: Arguments) {
        let mut state = self.lock();
        state.service = Service::default();
        state.forget(arguments);
    }

    /// Notes a call that failed and cost little.
    pub(super) fn crashed(&self, arguments: Arguments) {
        self.lock().forget(arguments);
    }

    /// Notes a call that ran into a limit with arguments that the plugin's schema refuses.
    pub(super) fn misused(&self, arguments: Arguments, now: Instant) {
        self.lock().suspect_from_now(arguments, now + self.rest);
    }

    /// Notes a call that ran into a limit, and says whether a rest begins with it.
    pub(super) fn exhausted(&self, arguments: Arguments, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let until = now + self.rest;
        state.suspect_from_now(arguments, until);
        let failed = match &mut state.service {
            Service::Resting { until: end } => {
                *end = until;
                return None;
            }
            Service::On { failed } => failed,
        };
        if !failed.contains(&arguments) {
            failed.push(arguments);
        }
        if failed.len() < self.failures {
            return None;
        }
        state.service = Service::Resting { until };
        Some(self.rest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every state is valid, even after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn suspect(&mut self, arguments: Arguments) -> Option<&mut Suspect> {
        let mut suspects = self.suspects.iter_mut();
        suspects.find(|suspect| suspect.arguments == arguments)
    }

    fn forget(&mut self, arguments: Arguments) {
        self.suspects
            .retain(|suspect| suspect.arguments != arguments);
    }

    /// The oldest one makes room.
    fn suspect_from_now(&mut self, arguments: Arguments, until: Instant) {
        self.forget(arguments);
        if self.suspects.len() >= MOST_SUSPECTS {
            self.suspects.remove(0);
        }
        self.suspects.push(Suspect {
            arguments,
            until,
            is_called: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(30);
    const A: Arguments = Arguments(1);
    const B: Arguments = Arguments(2);
    const C: Arguments = Arguments(3);
    const D: Arguments = Arguments(4);

    #[test]
    fn failures_in_a_row_begin_a_rest_and_a_success_between_them_does_not() {
        let (breaker, now) = (Breaker::new(3, REST), Instant::now());
        assert_eq!(breaker.exhausted(A, now), None);
        assert_eq!(breaker.exhausted(B, now), None);
        breaker.succeeded(C);
        assert_eq!(breaker.exhausted(A, now), None);
        assert_eq!(breaker.exhausted(B, now), None);
        assert_eq!(breaker.admit(C, now), Ok(()));
        assert_eq!(breaker.exhausted(C, now), Some(REST));
        assert_eq!(breaker.admit(D, now), Err(NotNow::Resting(REST)));
    }

    #[test]
    fn one_call_is_tried_after_a_rest_and_decides() {
        let (breaker, now) = (Breaker::new(1, REST), Instant::now());
        breaker.exhausted(A, now);
        let later = now + REST;
        assert_eq!(breaker.admit(B, later), Ok(()));
        assert_eq!(breaker.admit(B, later), Err(NotNow::Resting(REST)));
        assert_eq!(breaker.exhausted(B, later), None);
        assert_eq!(breaker.admit(A, later), Err(NotNow::Resting(REST)));
        assert_eq!(breaker.admit(A, later + REST), Ok(()));
        breaker.succeeded(A);
        assert_eq!(breaker.admit(B, later + REST), Ok(()));
        assert_eq!(breaker.resting(later), None);
    }

    #[test]
    fn the_same_arguments_never_begin_a_rest() {
        let (breaker, now) = (Breaker::new(3, REST), Instant::now());
        for _ in 0..100 {
            assert_eq!(breaker.exhausted(A, now), None);
        }
        assert_eq!(breaker.admit(B, now), Ok(()));
    }

    #[test]
    fn calls_that_crash_never_begin_a_rest() {
        let (breaker, now) = (Breaker::new(3, REST), Instant::now());
        for number in 0..100 {
            breaker.crashed(Arguments(number));
        }
        assert_eq!(breaker.admit(A, now), Ok(()));
    }

    #[test]
    fn arguments_that_failed_have_one_call_at_a_time_until_one_succeeds_or_they_are_forgotten() {
        let (breaker, now) = (Breaker::new(3, REST), Instant::now());
        breaker.exhausted(A, now);
        assert_eq!(breaker.admit(A, now), Ok(()));
        assert_eq!(breaker.admit(A, now), Err(NotNow::Suspect));
        assert_eq!(breaker.admit(B, now), Ok(()));
        // A call of which nothing was ever heard does not hold them for ever.
        assert_eq!(breaker.admit(A, now + REST), Ok(()));
        breaker.exhausted(A, now);
        assert_eq!(breaker.admit(A, now), Ok(()));
        breaker.succeeded(A);
        assert_eq!(breaker.admit(A, now), Ok(()));
        assert_eq!(breaker.admit(A, now), Ok(()));
    }

    #[test]
    fn arguments_without_end_take_bounded_memory() {
        let (breaker, now) = (Breaker::new(u32::MAX, REST), Instant::now());
        for number in 0..10_000 {
            breaker.exhausted(Arguments(number), now);
        }
        assert_eq!(breaker.lock().suspects.len(), MOST_SUSPECTS);
        assert!(breaker.resting(now).is_some());
    }

    #[test]
    fn arguments_are_told_apart_by_what_they_say() {
        let of = |text: &str| {
            let value: Value = serde_json::from_str(text).unwrap();
            Arguments::of(value.as_object().unwrap())
        };
        assert_eq!(of(r#"{"a": 1, "b": "x"}"#), of(r#"{"b":"x","a":1}"#));
        assert_ne!(of(r#"{"a": 1}"#), of(r#"{"a": 2}"#));
        assert_ne!(of("{}"), of(r#"{"a": {}}"#));
    }
}
