//! What one request may cost: bodies of up to 1 MiB, made with a seed to be as expensive as they can,
//! each measured in processor time, memory of the host and bytes of the answer.
//!
//! `make fuzz` runs the same generator for 30 minutes of processor time. It has no feedback from
//! coverage, since libFuzzer needs a nightly compiler. The worst bodies that it found are in
//! `host/tests/data/bounds/corpus.txt`, as the family, seed and size that they are made of.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bodies;
mod measure;
#[path = "../integration/service.rs"]
#[expect(dead_code, reason = "these tests need less of the service than others")]
mod service;

use std::time::Duration;

use bodies::{FAMILIES, Recipe};
use measure::{CountingAllocator, Measured, measured};
use service::{Service, built_plugins};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: usize = 1024 * 1024;
/// Limits for one request.
const LONGEST: Duration = Duration::from_millis(100);
const MOST_MEMORY: usize = 32 * MIB;
const MOST_ANSWER: usize = 256 * 1024;
/// Bodies of each family in an ordinary run.
const SAMPLE: u64 = 12;
/// Seconds of processor time that a campaign takes.
const CAMPAIGN: &str = "TRAINER_FUZZ_SECONDS";

/// Sends one body, and says what that cost.
async fn send(service: &Service, recipe: Recipe) -> Measured {
    let body = recipe.body();
    assert!(body.len() <= MIB, "{recipe}: {} bytes", body.len());
    let (answer, measured) = measured(service.post("/train/preview", body)).await;
    let status = answer.status.as_u16();
    assert!(
        matches!(status, 200 | 400),
        "{recipe}: {status} {:.300}",
        answer.text
    );
    if status == 400 {
        let size = answer.text.len();
        assert!(size <= MOST_ANSWER, "{recipe}: an answer of {size} bytes");
        let problem = answer.problem(400);
        let errors = problem["errors"].as_array().unwrap();
        assert!(
            (1..=50).contains(&errors.len()),
            "{recipe}: {}",
            errors.len()
        );
    }
    measured
}

/// Sends one body, a second time where the first was over a limit: another thread's work counts too.
async fn check(service: &Service, recipe: Recipe) -> Measured {
    let mut measured = send(service, recipe).await;
    for _ in 0..3 {
        if measured.time > LONGEST {
            measured.time = measured.time.min(send(service, recipe).await.time);
        }
    }
    let Measured { time, memory } = measured;
    assert!(time <= LONGEST, "{recipe}: {time:?}");
    assert!(memory <= MOST_MEMORY, "{recipe}: {} KiB", memory / 1024);
    measured
}

fn corpus() -> Vec<Recipe> {
    let text = include_str!("../data/bounds/corpus.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.parse().unwrap()).collect()
}

#[tokio::test]
async fn no_body_costs_more_than_a_tenth_of_a_second_and_32_mib() {
    let service = Service::start().await;
    let mut worst = Measured::default();
    let sampled = (0..SAMPLE).flat_map(|seed| FAMILIES.map(|family| Recipe::sampled(family, seed)));
    for recipe in corpus().into_iter().chain(sampled) {
        worst = worst.max(check(&service, recipe).await);
    }
    println!("worst of the sample: {worst}");
}

#[tokio::test]
#[ignore = "30 minutes: make fuzz"]
async fn campaign() {
    let seconds = std::env::var(CAMPAIGN).map_or(1800, |text| text.parse().unwrap());
    let service = Service::start().await;
    let begun = measure::process_time();
    let mut worst = Measured::default();
    let mut count = 0;
    for seed in SAMPLE.. {
        for recipe in FAMILIES.map(|family| Recipe::sampled(family, seed)) {
            let measured = check(&service, recipe).await;
            if measured.time > worst.time || measured.memory > worst.memory {
                println!("{recipe} # {measured}");
            }
            worst = worst.max(measured);
            count += 1;
        }
        let used = measure::process_time() - begun;
        if used >= Duration::from_secs(seconds) {
            println!("{count} bodies in {used:?} of processor time; worst: {worst}");
            return;
        }
    }
}

#[tokio::test]
async fn the_plugins_that_the_sample_asks_are_there() {
    // A framework that is not loaded would make every body cheap.
    for name in ["meta", "hf", "nemo"] {
        assert!(built_plugins().join(format!("{name}.wasm")).exists());
    }
}
