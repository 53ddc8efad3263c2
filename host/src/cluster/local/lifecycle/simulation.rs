//! The state machine under every order of what can happen: starts, ends, failures, suspends,
//! resumes, deletions, kills of replicas, shims and the service, disk errors and restarts.
//!
//! The jobs, the slots and the status are the service's own code. The world around them (disk,
//! processes, time) is simulated, and looked at after each step.
//!
//! `TRAINER_SIMULATION_SEED` sets the first seed, `TRAINER_SIMULATION_SEQUENCES` how many there are.

mod checks;
mod jobs;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::fixes::{Fix, take_out};
use world::World;

/// What happens in a sequence before everything is let go to its end.
const STEPS: u32 = 40;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one sequence. Gives what went wrong.
fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            world.step()?;
        }
        world.end()
    }));
    let result = ran.unwrap_or_else(|_| Err("panicked".to_string()));
    result.map_err(|wrong| format!("{wrong}\nseed {seed}:\n{}", world.trace()))
}

#[test]
fn every_order_of_events_ends_in_a_state_that_is_true() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = setting("TRAINER_SIMULATION_SEED").unwrap_or(now.as_secs() << 20);
    let count = setting("TRAINER_SIMULATION_SEQUENCES").unwrap_or(100_000);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let begun = Instant::now();
    println!("TRAINER_SIMULATION_SEED={first}");
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (first..first + count)
                    .skip(thread as usize)
                    .step_by(threads as usize)
                {
                    if let Err(wrong) = run(seed) {
                        panic!("{wrong}");
                    }
                }
            });
        }
    });
    println!(
        "{count} sequences in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}

#[test]
fn the_simulation_finds_each_fault_whose_fix_is_taken_out() {
    let fixes = [
        Fix::LateStart,
        Fix::LostShim,
        Fix::Successor,
        Fix::Unstored,
        Fix::HeldLock,
        Fix::OldReplicas,
    ];
    for fix in fixes {
        take_out(Some(fix));
        let found = (0..2000).find_map(|seed| Some((seed, run(seed).err()?)));
        take_out(None);
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{fix:?} is not missed"));
        let what = wrong.lines().next().unwrap_or_default();
        println!("without {fix:?}, seed {seed}: {what}");
        assert_eq!(run(seed), Ok(()), "with {fix:?}");
    }
}
