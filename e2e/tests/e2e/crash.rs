//! The service is killed again and again with runs in flight: none is lost, none runs twice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::Site;
use serde_json::{Value, json};

/// How often the service is killed.
const KILLS: u32 = 50;
/// Runs in flight all the while.
const RUNS: u32 = 4;

/// In place of torchrun: makes a step every 100 ms, goes on where it was cut off, and notices when
/// it is not alone. The lock is held by the process itself and by its child.
const LAUNCHER: &str = r#"#!/bin/sh
exec 9>"$RUN_ID-$RANK.lock"
flock --nonblock 9 || { echo "$RUN_ID-$RANK" >> twice; exit 1; }
steps=$(cat "$RUN_ID-$RANK.steps" 2>/dev/null || echo 0)
while [ "$steps" -lt 40 ]; do
  sleep 0.1
  steps=$((steps + 1))
  echo "$steps" > "$RUN_ID-$RANK.steps.new" && mv "$RUN_ID-$RANK.steps.new" "$RUN_ID-$RANK.steps"
done
"#;

fn run(number: u32) -> Value {
    json!({
        "framework": "meta",
        "model_id": "x",
        "run_id": format!("run-{number}"),
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "num_nodes": 1 + number % 2,
    })
}

#[test]
fn fifty_kills_lose_no_run_and_run_none_twice() {
    let site = Site::with_launcher(LAUNCHER)
        .unwrap()
        .set("TRAINER_LOCAL_SLOTS", "16");
    let mut random = Random::new();
    println!("seed {}", random.0);
    let mut server = site.start().unwrap();
    let jobs: Vec<String> = (0..RUNS).map(|n| server.submit(&run(n)).unwrap()).collect();
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.below(300)));
        server.kill().unwrap();
        server = site.start().unwrap();
    }
    for job in jobs {
        server.wait_for(&job, "succeeded").unwrap();
    }
    let twice = std::fs::read_to_string(site.data.path().join("twice")).unwrap_or_default();
    assert!(twice.is_empty(), "ran twice at once: {twice}");
    for number in 0..RUNS {
        let steps = site.data.path().join(format!("run-{number}-0.steps"));
        assert_eq!(std::fs::read_to_string(steps).unwrap().trim(), "40");
    }
}

/// What is answered 201 is there after a crash at the very next moment.
#[test]
fn a_job_that_was_answered_is_never_lost() {
    let site = Site::with_launcher("#!/bin/sh\nexec sleep 600\n").unwrap();
    for number in 0..10 {
        let server = site.start().unwrap();
        let job = server.submit(&run(number)).unwrap();
        server.kill().unwrap();
        let server = site.start().unwrap();
        assert_eq!(server.get(&format!("/train/{job}")).unwrap().0, 200);
        server.kill().unwrap();
    }
}

/// Numbers without a pattern (xorshift), from the clock: another test run kills at other moments.
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
