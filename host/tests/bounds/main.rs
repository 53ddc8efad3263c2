//! What one request may cost: bodies of up to 1 MiB, made with a seed to be as expensive as they can,
//! each measured in processor time, memory of the host and bytes of the answer.
//!
//! `make fuzz` searches for worse ones, guided by coverage. It starts from the requests in
//! `host/tests/data/bounds/bodies`, which are sent here, too: one for every third rule of the plugins,
//! and whatever a campaign finds. `corpus.txt` beside them has recipes of the bodies here.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bodies;
/// What `make fuzz` sends its bodies to. It is compiled here, too, so that it stays up to date.
#[path = "../../../fuzz/src/service.rs"]
#[expect(dead_code, reason = "only the fuzzer sends requests with it")]
mod fuzzed;
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

/// A body, and what it is called where it is over a limit.
struct Body {
    name: String,
    bytes: Vec<u8>,
}

impl From<Recipe> for Body {
    fn from(recipe: Recipe) -> Self {
        Self {
            name: recipe.to_string(),
            bytes: recipe.body(),
        }
    }
}

/// Sends one body, and says what that cost.
async fn send(service: &Service, Body { name, bytes }: &Body) -> Measured {
    assert!(bytes.len() <= MIB, "{name}: {} bytes", bytes.len());
    let (answer, measured) = measured(service.post("/train/preview", bytes.clone())).await;
    let status = answer.status.as_u16();
    assert!(
        matches!(status, 200 | 400),
        "{name}: {status} {:.300}",
        answer.text
    );
    if status == 400 {
        let size = answer.text.len();
        assert!(size <= MOST_ANSWER, "{name}: an answer of {size} bytes");
        let problem = answer.problem(400);
        let errors = problem["errors"].as_array().unwrap();
        assert!((1..=50).contains(&errors.len()), "{name}: {}", errors.len());
    }
    measured
}

/// Sends one body, a second time where the first was over a limit: another thread's work counts too.
async fn check(service: &Service, body: Body) -> Measured {
    let mut measured = send(service, &body).await;
    for _ in 0..3 {
        if measured.time > LONGEST {
            measured.time = measured.time.min(send(service, &body).await.time);
        }
    }
    let (Measured { time, memory }, name) = (measured, body.name);
    assert!(time <= LONGEST, "{name}: {time:?}");
    assert!(memory <= MOST_MEMORY, "{name}: {} KiB", memory / 1024);
    measured
}

/// What `make fuzz` starts from.
fn seeds() -> Vec<Body> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bounds/bodies");
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let body = |file: std::fs::DirEntry| Body {
        name: file.file_name().display().to_string(),
        bytes: std::fs::read(file.path()).unwrap(),
    };
    files.map(body).collect()
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
    let recipes = corpus().into_iter().chain(sampled).map(Body::from);
    for body in seeds().into_iter().chain(recipes) {
        worst = worst.max(check(&service, body).await);
    }
    println!("worst of the sample: {worst}");
}

#[tokio::test]
async fn the_plugins_that_the_sample_asks_are_there() {
    // A framework that is not loaded would make every body cheap.
    for name in ["meta", "hf", "nemo"] {
        assert!(built_plugins().join(format!("{name}.wasm")).exists());
    }
}
