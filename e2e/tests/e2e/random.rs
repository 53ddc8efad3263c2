//! Chance, and how often something is done: what tests of random moments share.

/// Random choices: other ones in each run, or those of the seed in `TRAINER_SEED`.
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new() -> Self {
        let seed = setting("TRAINER_SEED", fastrand::u64(..));
        println!("TRAINER_SEED={seed}");
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Other numbers, for another thread.
    pub fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(..bound)
    }
}

/// A number that the environment may set.
pub fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|count| count.parse().ok()).unwrap_or(default)
}
