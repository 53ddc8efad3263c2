//! What tokens and policies cost: a benchmark that compares two services in one run, one with 10,000
//! named tokens and a policy, and one without an access file. `make access-speed` runs it.
//!
//! Each round sends the same requests to both services, and the median of the rounds' ratios counts, so
//! that another process that disturbs some rounds does not change the result.

use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::Value;
use trainer_host::request::RequestPolicy;

use crate::access::{ask, submit, teams, token, waiting};
use crate::service::Service;

const TOKENS: usize = 10_000;
const ROUNDS: usize = 101;
/// Requests to each service in a round: few, so that both meet the same conditions.
const REQUESTS: usize = 100;
/// The least ratio of the throughput with tokens and a policy to the throughput without.
const LEAST: f64 = 0.9;
const POLICY: &str = r#"
[namespaces.team-a]
images = ["ghcr.io/*"]
datasets = ["s3://"]
checkpoints = ["s3://team-a/"]
models = ["*"]
max_gpus = 1024

[roles.submitter]
profiles = ["a100"]
max_nodes = 64
"#;

/// How long some requests take, on the clock and on the processor.
#[derive(Clone, Copy)]
struct Taken {
    wall: Duration,
    processor: Duration,
}

/// The time that all threads of this process have spent on a processor.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[expect(unsafe_code, reason = "no library has a safe function for it")]
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0);
    let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap());
    seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap())
}

async fn measure(service: &Service, method: &Method, path: &str, body: Option<&Value>) -> Taken {
    let (begun, processor) = (Instant::now(), processor_time());
    for _ in 0..REQUESTS {
        let answer = service.send(ask("alice", method.clone(), path, body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    Taken {
        wall: begun.elapsed(),
        processor: processor_time() - processor,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test]
#[ignore = "a benchmark: make access-speed"]
async fn tokens_and_policies_take_at_most_a_tenth_of_the_throughput() {
    let others = (0..TOKENS).map(|number| token(&format!("caller-{number}"), "viewer", &["other"]));
    let access = teams() + &others.collect::<String>() + POLICY;
    let with = Service::with_access(&access, RequestPolicy::default()).await;
    let without = Service::in_memory().await;
    let body = waiting("speed", "team-a");
    for service in [&with, &without] {
        assert_eq!(submit(service, "alice", &body).await.status, 201);
    }
    let preview = waiting("next", "team-a");
    for (method, path, body) in [
        (Method::POST, "/train/preview", Some(&preview)),
        (Method::GET, "/train/meta-speed?namespace=team-a", None),
    ] {
        let (mut slow, mut fast) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Neither service is always the first.
            if round % 2 == 0 {
                fast.push(measure(&without, &method, path, body).await);
            }
            slow.push(measure(&with, &method, path, body).await);
            if round % 2 == 1 {
                fast.push(measure(&without, &method, path, body).await);
            }
        }
        let ratio = |time: fn(&Taken) -> Duration| {
            let pairs = fast.iter().zip(&slow);
            let ratios = pairs.map(|(fast, slow)| time(fast).div_duration_f64(time(slow)));
            median(ratios.collect())
        };
        let each = |taken: &[Taken]| {
            let times = taken.iter().map(|taken| taken.processor.as_secs_f64());
            median(times.collect()) / REQUESTS as f64 * 1e6
        };
        let (wall, processor) = (ratio(|taken| taken.wall), ratio(|taken| taken.processor));
        println!(
            "{method} {path}: {wall:.3} of the throughput, {processor:.3} by processor time \
             ({:.1} and {:.1} microseconds for each request without and with)",
            each(&fast),
            each(&slow)
        );
        assert!(wall >= LEAST && processor >= LEAST, "{method} {path}");
    }
    with.stop().await;
    without.stop().await;
}
