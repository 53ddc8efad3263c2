//! Looks for bodies of `POST /train/preview` that cost more than a request may, guided by the
//! coverage that they reach. `make fuzz` builds and runs it.
//!
//! The service is in this process, without a network. Each body is measured as
//! `host/tests/bounds` measures it, which replays the corpus in `make test`.

#![no_main]
#![expect(
    clippy::unwrap_used,
    reason = "what fails here ends the campaign, as it should"
)]

#[path = "../../host/tests/bounds/bodies.rs"]
mod bodies;
#[path = "../../host/tests/bounds/measure.rs"]
mod measure;
mod mutate;
mod service;

use std::path::Path;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

use measure::{CountingAllocator, Measured, process_time};
use service::Service;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: usize = 1024 * 1024;
const LONGEST: Duration = Duration::from_millis(100);
const MOST_MEMORY: usize = 32 * MIB;
const MOST_ANSWER: usize = 256 * 1024;
/// Seconds of processor time that a campaign takes.
const CAMPAIGN: &str = "TRAINER_FUZZ_SECONDS";
/// A folder for the worst bodies.
const WORST: &str = "TRAINER_FUZZ_WORST";

static SERVICE: LazyLock<Service> = LazyLock::new(Service::open);
static CAMPAIGN_SO_FAR: Mutex<Campaign> = Mutex::new(Campaign::new());

/// What was seen so far.
struct Campaign {
    bodies: u64,
    worst: Measured,
    most_answer: usize,
}

fuzz_target!(|body: &[u8]| {
    if body.len() > MIB {
        return;
    }
    let (answer, mut measured) = SERVICE.preview(body);
    for _ in 0..3 {
        if measured.time > LONGEST {
            measured.time = measured.time.min(SERVICE.preview(body).1.time);
        }
    }
    let Measured { time, memory } = measured;
    let mut campaign = CAMPAIGN_SO_FAR.lock().unwrap();
    campaign.note(body, measured, answer.bytes);
    assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
    assert!(time <= LONGEST, "{time:?}");
    assert!(memory <= MOST_MEMORY, "{} KiB", memory / 1024);
    assert!(
        answer.bytes <= MOST_ANSWER || answer.status == 200,
        "an answer of {} bytes",
        answer.bytes
    );
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::mutate(data, size, max_size, seed.into())
});

impl Campaign {
    const fn new() -> Self {
        let worst = Measured {
            time: Duration::ZERO,
            memory: 0,
        };
        Self {
            bodies: 0,
            worst,
            most_answer: 0,
        }
    }

    fn note(&mut self, body: &[u8], measured: Measured, answer: usize) {
        self.bodies += 1;
        let Self { worst, .. } = self;
        for (is_worse, what) in [
            (measured.time > worst.time, "time"),
            (measured.memory > worst.memory, "memory"),
            (answer > self.most_answer, "answer"),
        ] {
            if is_worse {
                keep(what, body);
            }
        }
        self.worst = self.worst.max(measured);
        self.most_answer = self.most_answer.max(answer);
        if self.bodies.is_multiple_of(64) && process_time() >= campaign_length() {
            let Self { bodies, worst, .. } = self;
            let (time, answer) = (process_time(), self.most_answer / 1024);
            println!("{bodies} bodies in {time:.0?} of processor time");
            println!("worst: {worst}, an answer of {answer} KiB");
            exit();
        }
    }
}

fn campaign_length() -> Duration {
    static SECONDS: LazyLock<u64> =
        LazyLock::new(|| std::env::var(CAMPAIGN).map_or(1800, |text| text.parse().unwrap()));
    Duration::from_secs(*SECONDS)
}

fn keep(what: &str, body: &[u8]) {
    if let Ok(folder) = std::env::var(WORST) {
        std::fs::write(Path::new(&folder).join(what), body).unwrap();
    }
}

/// Ends without the handlers of libFuzzer, which would take it for a crash.
fn exit() -> ! {
    #[expect(unsafe_code, reason = "the standard library runs the handlers")]
    // SAFETY: it takes a number and does not return.
    unsafe {
        libc::_exit(0)
    }
}
