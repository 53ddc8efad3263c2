//! What the other callers of a framework notice of one whose arguments are always wrong.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::{Server, Site};
use serde_json::json;

use crate::callers::{
    ATTACKER, HONEST, NICENESS, TOKEN, Times, connect, plugins, post, read_answer,
};

/// Time between two requests of the bad client: 200 a second.
const PAUSE: Duration = Duration::from_millis(5);

/// A preview of the framework that crashes on request.
fn preview(arguments: &serde_json::Value) -> String {
    let body = json!({"framework": "hostile", "model_id": "x", "run_id": "x", "gpus_per_node": 0,
        "checkpoint_base_uri": "s3://bucket/runs", "dataset_uri": "s3://bucket/data/",
        "extra_args": arguments});
    post("/train/preview", &body.to_string())
}

/// Sends arguments that break the schema and arguments that crash the plugin, never the same twice.
fn misbehave(server: &Server, is_over: &AtomicBool, sent: &AtomicU64) {
    let _ = rustix::process::nice(NICENESS);
    let mut stream = connect(ATTACKER, server).unwrap();
    let begun = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        let (arguments, expected): (_, &[u16]) = match number % 2 {
            0 => (json!({"attack": number}), &[400]),
            _ => (json!({"attack": "trap", "number": number}), &[429, 502]),
        };
        stream.write_all(preview(&arguments).as_bytes()).unwrap();
        let status = read_answer(&mut stream).unwrap();
        assert!(expected.contains(&status), "{status} for {arguments}");
        let next = PAUSE * u32::try_from(number + 1).unwrap();
        std::thread::sleep(next.saturating_sub(begun.elapsed()));
    }
}

/// Previews of one caller of the same framework, for a duration.
fn honest(server: &Server, time: Duration) -> Times {
    let mut stream = connect(HONEST, server).unwrap();
    let mut times = Vec::new();
    let begun = Instant::now();
    for number in 0.. {
        if begun.elapsed() > time {
            break;
        }
        let request = preview(&json!({"attack": "none", "number": number}));
        let asked = Instant::now();
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).unwrap(), 200, "request {number}");
        times.push(asked.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    Times(times)
}

/// What the honest caller sees alone and beside the bad one, and how much that one sent.
struct Seen {
    alone: Times,
    beside: Times,
    sent: u64,
}

fn beside_a_bad_client(time: Duration) -> Seen {
    let plugins = plugins("strict");
    let site = Site::with_launcher("#!/bin/sh\n").unwrap();
    let site = site
        .set("TRAINER_PLUGINS", plugins.path().to_str().unwrap())
        .set("TRAINER_LOG", "warn")
        .set("TRAINER_API_TOKEN", TOKEN);
    let server = site.start_with_token().unwrap();
    let alone = honest(&server, time);
    let (is_over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| misbehave(&server, &is_over, &sent));
        let beside = honest(&server, time);
        is_over.store(true, Ordering::Relaxed);
        beside
    });
    let sent = sent.into_inner();
    Seen {
        alone,
        beside,
        sent,
    }
}

#[test]
fn one_bad_client_causes_no_errors_for_the_other_callers_of_a_framework() {
    let Seen { beside, sent, .. } = beside_a_bad_client(Duration::from_secs(2));
    assert!(!beside.0.is_empty() && sent > 20, "{sent} bad requests");
}

#[test]
#[ignore = "measures: make bench-connections"]
fn one_bad_client_hardly_slows_the_other_callers_of_a_framework() {
    let time = Duration::from_secs(20);
    let Seen {
        alone,
        beside,
        sent,
    } = beside_a_bad_client(time);
    println!("previews alone: {alone}");
    println!(
        "previews beside {:.0} bad requests a second: {beside}",
        sent as f64 / time.as_secs_f64()
    );
    assert!(beside.percentile(99) <= 2 * alone.percentile(99));
}
