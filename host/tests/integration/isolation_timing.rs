//! Whether response times distinguish a run of another namespace from one that does not exist: a
//! benchmark. `make isolation-timing` runs it.
//!
//! Both are asked for in turn, in random order. The figure is how often the run that exists takes longer:
//! half of the time, if the times show nothing.

use std::time::{Duration, Instant};

use axum::http::Method;
use trainer_host::request::RequestPolicy;

use crate::access::{ask, submit, teams, waiting};
use crate::service::Service;

/// Names of the same length: one is there, the other is not.
const NAMES: [&str; 2] = ["hidden-one", "hidden-two"];
const WARM_UP: usize = 500;
const PAIRS: usize = 10_000;
/// How far from a half the figure may be. Its standard error is 0.004.
const MOST: f64 = 0.02;

/// The probability that a time of the first list is longer than one of the second (Mann and Whitney).
fn longer(first: &[Duration], second: &[Duration]) -> f64 {
    let mut sorted = second.to_vec();
    sorted.sort_unstable();
    let wins = first.iter().map(|time| {
        let below = sorted.partition_point(|other| other < time);
        let upto = sorted.partition_point(|other| other <= time);
        (below + upto) as f64 / 2.0
    });
    wins.sum::<f64>() / (first.len() * second.len()) as f64
}

#[test]
fn the_figure_is_a_half_for_equal_times_and_one_for_longer_ones() {
    let times = |from: u64| {
        (from..from + 100)
            .map(Duration::from_nanos)
            .collect::<Vec<_>>()
    };
    assert!((longer(&times(0), &times(0)) - 0.5).abs() < 1e-9);
    assert!((longer(&times(100), &times(0)) - 1.0).abs() < 1e-9);
}

async fn time(service: &Service, method: &Method, path: &str, name: &str) -> Duration {
    let body = (path == "/train").then(|| waiting(name, "team-b"));
    let path = path.replace("NAME", &format!("meta-{name}"));
    let request = ask("alice", method.clone(), &path, body.as_ref());
    let begun = Instant::now();
    let answer = service.send(request).await;
    let taken = begun.elapsed();
    assert!(
        matches!(answer.status.as_u16(), 403 | 404),
        "{}",
        answer.text
    );
    taken
}

#[tokio::test]
#[ignore = "a benchmark: make isolation-timing"]
async fn response_times_do_not_distinguish_what_is_not_yours_from_what_is_not_there() {
    let service = Service::with_access(&teams(), RequestPolicy::default()).await;
    let hidden = submit(&service, "bob", &waiting(NAMES[0], "team-b")).await;
    assert_eq!(hidden.status, 201, "{}", hidden.text);
    for (method, path) in [
        (Method::GET, "/train/NAME"),
        (Method::GET, "/train/NAME?namespace=team-b"),
        (Method::GET, "/train/NAME/manifest"),
        (Method::GET, "/train/NAME/logs"),
        (Method::DELETE, "/train/NAME"),
        (Method::DELETE, "/train/NAME?namespace=team-b"),
        (Method::POST, "/train/NAME/suspend"),
        (Method::POST, "/train"),
    ] {
        let mut times = [Vec::new(), Vec::new()];
        for pair in 0..WARM_UP + PAIRS {
            let first = usize::from(fastrand::bool());
            for which in [first, 1 - first] {
                let taken = time(&service, &method, path, NAMES[which]).await;
                if pair >= WARM_UP {
                    times[which].push(taken);
                }
            }
        }
        let [there, absent] = &times;
        let figure = longer(there, absent);
        println!("{method} {path}: {figure:.3}");
        assert!((figure - 0.5).abs() < MOST, "{method} {path}: {figure}");
    }
    service.stop().await;
}
