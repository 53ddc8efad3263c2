//! The service is killed again and again with runs in flight: none is lost, none runs twice.

use std::time::Duration;

use e2e::Site;

use crate::alone::{self, request};
use crate::random::Random;

/// How often the service is killed.
const KILLS: u32 = 50;
/// Runs in flight all the while.
const RUNS: u64 = 4;

/// Makes a step every 100 ms, and continues where it was cut off.
const STEPS: &str = r#"
steps=$(cat "$RUN_ID-$RANK.steps" 2>/dev/null || echo 0)
while [ "$steps" -lt 40 ]; do
  sleep 0.1
  steps=$((steps + 1))
  echo "$steps" > "$RUN_ID-$RANK.steps.new" && mv "$RUN_ID-$RANK.steps.new" "$RUN_ID-$RANK.steps"
done
"#;

#[test]
fn fifty_kills_lose_no_run_and_run_none_twice() {
    let site = alone::site(STEPS, 16);
    let mut random = Random::new();
    let mut server = site.start().unwrap();
    let jobs: Vec<String> = (0..RUNS)
        .map(|n| server.submit(&request(n)).unwrap())
        .collect();
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.below(300)));
        server.kill().unwrap();
        server = site.start().unwrap();
    }
    for job in jobs {
        server.wait_for(&job, "succeeded").unwrap();
    }
    alone::check(&site);
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
        let job = server.submit(&request(number)).unwrap();
        server.kill().unwrap();
        let server = site.start().unwrap();
        assert_eq!(server.get(&format!("/train/{job}")).unwrap().0, 200);
        server.kill().unwrap();
    }
}
