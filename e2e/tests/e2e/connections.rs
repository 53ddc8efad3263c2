//! Clients that are slow, silent or many, beside honest ones.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::{Server, Site, training};
use serde_json::json;

use crate::callers::Times;

const SLEEP: &str = "#!/bin/sh\nexec sleep 600\n";
/// Longest that an honest client waits beside hostile ones: the default of a liveness probe.
const PATIENCE: Duration = Duration::from_secs(1);

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(40)))
        .unwrap();
    stream
}

/// A connection that has sent a part of a request.
fn with(server: &Server, part: &str) -> TcpStream {
    let mut stream = connect(server);
    let _ = stream.write_all(part.as_bytes());
    stream
}

/// A connection that asks for more than buffers between the two ends hold, and reads nothing.
fn that_does_not_read(server: &Server) -> TcpStream {
    let request = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    with(server, &request.repeat(200))
}

/// The status of an answer on a connection of its own.
fn status(server: &Server, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = with(server, &request).read_to_string(&mut answer);
    answer.split(' ').nth(1).unwrap_or("none").to_string()
}

/// Until a connection is closed by the service.
fn until_closed(mut stream: TcpStream) -> Duration {
    let begun = Instant::now();
    let _ = stream.read(&mut [0; 1024]);
    begun.elapsed()
}

/// What honest clients saw beside hostile ones.
struct Seen {
    health: Times,
    submissions: Times,
    memory: u64,
}

impl Seen {
    fn longest(&self) -> Duration {
        let times = [&self.health, &self.submissions];
        times
            .map(|times| times.percentile(100))
            .into_iter()
            .max()
            .unwrap()
    }
}

/// Health checks and submissions while some clients send a byte a second and some read nothing.
fn honest_beside(server: &Server, site: &Site, [slow, deaf]: [usize; 2], time: Duration) -> Seen {
    let (mut health, mut submissions, mut memory) = (Vec::new(), Vec::new(), 0);
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _deaf: Vec<_> = (0..deaf).map(|_| that_does_not_read(server)).collect();
            let mut slow: Vec<_> = (0..slow)
                .map(|_| with(server, "GET /healthz HTTP/1.1\r\nX: "))
                .collect();
            while !is_over.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_secs(1));
                // One that was closed comes again.
                for stream in &mut slow {
                    if stream.write_all(b"x").is_err() {
                        *stream = with(server, "GET /healthz HTTP/1.1\r\nX: ");
                    }
                }
            }
        });
        for number in 0.. {
            let asked = Instant::now();
            assert_eq!(status(server, "/healthz"), "200");
            health.push(asked.elapsed());
            let mut request = training(site.data.path(), &format!("run-{number}"), 1).unwrap();
            request["gpus_per_node"] = 64.into();
            let asked = Instant::now();
            assert_eq!(server.post("/train", &request).unwrap().0, 201);
            submissions.push(asked.elapsed());
            memory = memory.max(server.resident_memory().unwrap());
            std::thread::sleep(Duration::from_millis(50));
            if begun.elapsed() > time {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let (health, submissions) = (Times(health), Times(submissions));
    Seen {
        health,
        submissions,
        memory,
    }
}

#[test]
fn a_request_that_is_never_finished_is_closed_and_so_is_a_connection_without_one() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let parts = [
        "",
        "GET",
        "GET /livez HTTP/1.1\r\nHost: loc",
        "POST /train HTTP/1.1\r\n",
    ];
    let open = parts.map(|part| with(&server, part));
    for stream in open {
        assert!(until_closed(stream) < Duration::from_secs(20));
    }
    let closed = "trainer_connections_closed_total{reason=\"slow\"}";
    assert!(server.measured(closed).unwrap() >= 4.0);
}

#[test]
fn a_body_that_does_not_come_is_answered_408() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let begin = "POST /train HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: 100000\r\n\r\n{";
    let mut stream = with(&server, begin);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.contains("the body did not arrive within 20 seconds"),
        "{answer}"
    );
}

#[test]
fn headers_that_are_too_large_are_refused() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let many = "X: y\r\n".repeat(200);
    for headers in [format!("X: {}\r\n", "y".repeat(20_000)), many] {
        let mut stream = with(&server, &format!("GET /livez HTTP/1.1\r\n{headers}\r\n"));
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[test]
fn when_every_connection_is_busy_the_health_checks_are_answered() {
    let site = Site::with_launcher(SLEEP)
        .unwrap()
        .set("TRAINER_MAX_CONNECTIONS", "4")
        .set("TRAINER_MAX_CONNECTIONS_PER_ADDRESS", "4");
    let server = site.start().unwrap();
    let request = training(site.data.path(), "held", 1).unwrap();
    let job = server.submit(&request).unwrap();
    let follow = format!("GET /train/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let followers: Vec<_> = (0..4)
        .map(|_| {
            let mut follower = with(&server, &follow);
            follower.read_exact(&mut [0; 15]).unwrap();
            follower
        })
        .collect();
    for path in ["/healthz", "/livez", "/readyz", "/metrics"] {
        assert_eq!(status(&server, path), "200", "{path}");
    }
    for path in ["/train", "/frameworks", "/openapi.json"] {
        assert_eq!(status(&server, path), "429", "{path}");
    }
    drop(followers);
    let begun = Instant::now();
    while status(&server, "/train") != "200" {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Of a twentieth of the size, and with room for fewer than there are.
#[test]
fn honest_clients_do_not_notice_slow_and_deaf_ones() {
    let site = Site::with_launcher(SLEEP)
        .unwrap()
        .set("TRAINER_MAX_CONNECTIONS", "150");
    let server = site.start().unwrap();
    let seen = honest_beside(&server, &site, [100, 25], Duration::from_secs(4));
    assert!(seen.longest() < PATIENCE, "{:?}", seen.longest());
    assert!(seen.memory < 150_000_000, "{} bytes", seen.memory);
    let closed = "trainer_connections_closed_total{reason=\"crowded\"}";
    assert!(server.measured(closed).unwrap() > 0.0);
}

/// Alone, since what else the machine does decides how long an answer takes.
#[test]
#[ignore = "measures: make bench-connections"]
fn honest_clients_do_not_notice_thousands_of_slow_and_deaf_ones() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let seen = honest_beside(&server, &site, [2000, 500], Duration::from_secs(20));
    println!(
        "2000 slow and 500 deaf clients: {} MB\n  health checks {}\n  submissions {}",
        seen.memory / 1_000_000,
        seen.health,
        seen.submissions
    );
    assert!(seen.longest() < PATIENCE && seen.memory < 150_000_000);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let deaf: Vec<_> = (0..8).map(|_| that_does_not_read(&server)).collect();
    let begun = Instant::now();
    let closed = "trainer_connections_closed_total{reason=\"slow\"}";
    while server.measured(closed).unwrap() < 8.0 {
        assert!(begun.elapsed() < Duration::from_secs(45));
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(deaf);
}

#[test]
fn unfinished_requests_do_not_hold_up_the_end_of_the_service() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let open: Vec<_> = ["", "GET /livez HTTP/1.1\r\nHo", "POST /train"]
        .map(|part| with(&server, part))
        .into();
    let begun = Instant::now();
    let pid = server.pid().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    for stream in open {
        until_closed(stream);
    }
    while TcpStream::connect(&server.address).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let server = site.start().unwrap();
    let mut stream = connect(&server);
    for _ in 0..3 {
        let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let _ = stream.read(&mut [0; 4096]).unwrap();
        // Longer than a new connection may be silent.
        std::thread::sleep(Duration::from_secs(6));
    }
    stream.shutdown(Shutdown::Both).unwrap();
}

#[test]
fn failed_authentications_are_logged_with_their_address_and_counted() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let site = site.set("TRAINER_API_TOKEN", "right-token");
    let server = site.start_with_token().unwrap();
    for _ in 0..5 {
        let wrong = "GET /train HTTP/1.1\r\nHost: localhost\r\nX-TRAINER-TOKEN: guessed-token\r\n\
                     Connection: close\r\n\r\n";
        let mut answer = String::new();
        with(&server, wrong).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    assert_eq!(status(&server, "/train"), "401");
    let log = site.service_log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("a request had a missing or wrong token"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("127.0.0.1"), "{lines:?}");
    assert!(!log.contains("guessed-token") && !log.contains("right-token"));
    for (reason, count) in [("wrong", 5.0), ("missing", 1.0)] {
        let series = format!("trainer_authentication_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(server.measured(&series).unwrap(), count, "{reason}");
    }
}

/// A wrong token, and the status of the answer.
fn guess(server: &Server) -> String {
    let wrong = "GET /train HTTP/1.1\r\nHost: localhost\r\nX-TRAINER-TOKEN: guessed-token\r\n\
                 Connection: close\r\n\r\n";
    let mut answer = String::new();
    let _ = with(server, wrong).read_to_string(&mut answer);
    answer.split(' ').nth(1).unwrap_or("none").to_string()
}

#[test]
fn guessing_tokens_is_slow_and_the_right_one_is_served_beside_it() {
    let site = Site::with_launcher(SLEEP).unwrap();
    let site = site.set("TRAINER_API_TOKEN", "right-token");
    let server = site.start_with_token().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let guessers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let guesses = std::iter::from_fn(|| {
                        (!is_over.load(Ordering::Relaxed)).then(|| guess(&server))
                    });
                    guesses.inspect(|status| assert_eq!(status, "401")).count()
                })
            })
            .collect();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(8) {
            assert_eq!(status(&server, "/healthz"), "200");
            let right = ("X-TRAINER-TOKEN", "right-token");
            let (code, _) = server
                .post_with_header("/train/preview", right, &json!({}))
                .unwrap();
            assert_eq!(code, 400);
            std::thread::sleep(Duration::from_millis(50));
        }
        is_over.store(true, Ordering::Relaxed);
        let guesses: usize = guessers
            .into_iter()
            .map(|guesser| guesser.join().unwrap())
            .sum();
        // 20 at once, and each of 8 guessers one in up to five seconds.
        assert!((20..60).contains(&guesses), "{guesses}");
    });
}
