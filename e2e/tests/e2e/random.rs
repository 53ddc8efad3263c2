//! Chance, and how often something is done: what tests of random moments share.

use std::time::{SystemTime, UNIX_EPOCH};

/// Numbers without a pattern (xorshift), from the clock: another test run takes other moments.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self(now.as_nanos() as u64 | 1)
    }

    /// Other numbers, for another thread.
    pub fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A number that the environment may set.
pub fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|count| count.parse().ok()).unwrap_or(default)
}
