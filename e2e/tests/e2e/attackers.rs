//! What one caller notices of another one that attacks the service in every way at once.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::{Server, Site, training};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::callers::{
    ATTACKER, HONEST, NICENESS, TOKEN, Times, connect, delete, get, plugins, post, read_answer,
};

/// The sparse job has a log of 4 TiB that takes nothing on disk; others wait for a slot.
const LAUNCHER: &str = "#!/bin/sh\ntruncate --size=4T /proc/self/fd/1\nexec sleep 600\n";

/// How often an attack is measured beside the same service without it.
const ROUNDS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Attack {
    RepeatedNames,
    WrongItems,
    LongName,
    ArgumentsThatTrap,
    ArgumentsThatSpin,
    UnfinishedHeaders,
    UnfinishedBodies,
    ReadsNothing,
    EmptyConnections,
    SparseLogs,
    LogFollowers,
    EventFollowers,
    WrongTokens,
    ListsOfJobs,
}

const ATTACKS: [Attack; 14] = [
    Attack::RepeatedNames,
    Attack::WrongItems,
    Attack::LongName,
    Attack::ArgumentsThatTrap,
    Attack::ArgumentsThatSpin,
    Attack::UnfinishedHeaders,
    Attack::UnfinishedBodies,
    Attack::ReadsNothing,
    Attack::EmptyConnections,
    Attack::SparseLogs,
    Attack::LogFollowers,
    Attack::EventFollowers,
    Attack::WrongTokens,
    Attack::ListsOfJobs,
];

impl Attack {
    /// What a client sends, and how much of the answer it takes.
    fn request(self) -> (String, Reads) {
        let arguments = |attack: &str| {
            json!({"framework": "hostile", "model_id": "x", "run_id": "x", "gpus_per_node": 0,
                "checkpoint_base_uri": "s3://bucket/runs", "dataset_uri": "s3://bucket/data/",
                "extra_args": {"attack": attack}})
        };
        let preview = |body: &str| post("/train/preview", body);
        match self {
            Self::RepeatedNames => {
                let names = vec!["\"a\":1"; 4000].join(",");
                let body = format!("{{\"{}\":{{{names}}}}}", "x".repeat(500_000));
                (preview(&body), Reads::Everything)
            }
            Self::WrongItems => {
                let items = vec!["1"; 400_000].join(",");
                let body = format!(
                    "{{\"framework\":\"hf\",\"extra_args\":{{\"lora_target_modules\":[{items}]}}}}"
                );
                (preview(&body), Reads::Everything)
            }
            Self::LongName => {
                let body = format!("{{\"{}\":1}}", "num_nodes".repeat(110_000));
                (preview(&body), Reads::Everything)
            }
            Self::ArgumentsThatTrap => (preview(&arguments("trap").to_string()), Reads::Everything),
            Self::ArgumentsThatSpin => (preview(&arguments("loop").to_string()), Reads::Everything),
            Self::UnfinishedHeaders => ("GET /healthz HTTP/1.1\r\nX: ".into(), Reads::ByteASecond),
            Self::UnfinishedBodies => {
                let begin = post("/train", &"x".repeat(1_000_000));
                (begin[..begin.len() - 1].to_string(), Reads::ByteASecond)
            }
            Self::ReadsNothing => (get("/openapi.json").repeat(100), Reads::ByteASecond),
            Self::EmptyConnections => (String::new(), Reads::Nothing),
            Self::SparseLogs => (get("/train/meta-sparse/logs?tail=1"), Reads::Nothing),
            Self::LogFollowers => (
                get("/train/meta-sparse/logs?follow=true"),
                Reads::ByteASecond,
            ),
            Self::EventFollowers => (get("/train/meta-sparse/events"), Reads::ByteASecond),
            Self::WrongTokens => {
                let wrong = get("/train").replace(TOKEN, "guessed-token");
                (wrong, Reads::Everything)
            }
            Self::ListsOfJobs => (get("/train?page_size=1000"), Reads::Everything),
        }
    }
}

/// What a hostile client does when it has sent its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// It reads the answer and sends the next request.
    Everything,
    /// It closes the connection.
    Nothing,
    /// It keeps the connection, and sends a byte a second.
    ByteASecond,
}

/// Attacks until it is over.
fn attack(attack: Attack, server: &Server, is_over: &AtomicBool, sent: &AtomicU64) {
    let _ = rustix::process::nice(NICENESS);
    let (request, reads) = attack.request();
    while !is_over.load(Ordering::Relaxed) {
        // Whatever the service does with the connection, the next one follows.
        let _ = attack_once(&request, reads, server, is_over, sent);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn attack_once(
    request: &str,
    reads: Reads,
    server: &Server,
    is_over: &AtomicBool,
    sent: &AtomicU64,
) -> io::Result<()> {
    let mut stream = connect(ATTACKER, server)?;
    loop {
        stream.write_all(request.as_bytes())?;
        sent.fetch_add(1, Ordering::Relaxed);
        match reads {
            Reads::Nothing => return Ok(()),
            Reads::Everything => drop(read_answer(&mut stream)?),
            Reads::ByteASecond => break,
        }
        if is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(250));
        stream.write_all(b"x")?;
    }
    Ok(())
}

/// What an honest caller sees.
#[derive(Default)]
struct Seen {
    health: Times,
    submissions: Times,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.health.0.extend(other.health.0);
        self.submissions.0.extend(other.submissions.0);
    }
}

/// Health checks and submissions of one caller on one connection, for a duration. Its jobs are deleted
/// afterwards, so that the memory shows what the attack has left.
fn honest(server: &Server, body: &Value, name: &str, time: Duration) -> Seen {
    let mut stream = connect(HONEST, server).unwrap();
    let (mut health, mut submissions) = (Vec::new(), Vec::new());
    let mut ask = |request: &str, expected: u16| {
        let asked = Instant::now();
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(
            read_answer(&mut stream).unwrap(),
            expected,
            "{request:.100}"
        );
        asked.elapsed()
    };
    let begun = Instant::now();
    for number in 0.. {
        if begun.elapsed() > time {
            break;
        }
        health.push(ask(&get("/healthz"), 200));
        let mut body = body.clone();
        body["run_id"] = json!(format!("{name}-{number}"));
        submissions.push(ask(&post("/train", &body.to_string()), 201));
        std::thread::sleep(Duration::from_millis(10));
    }
    for number in 0..submissions.len() {
        let deletion = delete(&format!("/train/meta-{name}-{number}"));
        stream.write_all(deletion.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).unwrap(), 204);
    }
    Seen {
        health: Times(health),
        submissions: Times(submissions),
    }
}

/// A service with the hostile plugin and a job whose log never ends.
struct Attacked {
    server: Server,
    /// A submission that waits for a slot for ever.
    job: Value,
    _site: Site,
    _plugins: TempDir,
}

impl Attacked {
    fn start() -> Self {
        let plugins = plugins("nothing");
        let site = Site::with_launcher(LAUNCHER)
            .unwrap()
            .set("TRAINER_PLUGINS", plugins.path().to_str().unwrap())
            .set("TRAINER_LOCAL_SLOTS", "1")
            .set("TRAINER_LOG", "warn")
            .set("TRAINER_API_TOKEN", TOKEN);
        let server = site.start_with_token().unwrap();
        let mut job = training(site.data.path(), "sparse", 1).unwrap();
        let right = ("X-TRAINER-TOKEN", TOKEN);
        let (status, answer) = server.post_with_header("/train", right, &job).unwrap();
        assert_eq!(status, 201, "{answer}");
        job["gpus_per_node"] = json!(64);
        Self {
            server,
            job,
            _site: site,
            _plugins: plugins,
        }
    }

    /// Response times of the honest caller for a duration, with `name` in the names of its jobs.
    fn honest(&self, name: &str, time: Duration) -> Seen {
        honest(&self.server, &self.job, name, time)
    }

    /// Its response times beside a number of clients of each attack.
    fn beside(&self, attacks: &[Attack], clients: usize, name: &str, time: Duration) -> Seen {
        let is_over = AtomicBool::new(false);
        let sent: Vec<AtomicU64> = attacks.iter().map(|_| AtomicU64::new(0)).collect();
        let (server, over) = (&self.server, &is_over);
        let seen = std::thread::scope(|scope| {
            for (kind, sent) in attacks.iter().zip(&sent) {
                for _ in 0..clients {
                    scope.spawn(move || attack(*kind, server, over, sent));
                }
            }
            std::thread::sleep(time / 10);
            let seen = self.honest(&format!("beside-{name}"), time);
            is_over.store(true, Ordering::Relaxed);
            seen
        });
        for (kind, sent) in attacks.iter().zip(&sent) {
            let sent = sent.load(Ordering::Relaxed);
            print!("{kind:?} ({sent} requests) ");
            assert!(sent > 0, "{kind:?}");
        }
        println!();
        seen
    }

    fn memory(&self) -> u64 {
        self.server.resident_memory().unwrap()
    }

    /// The memory of the service as soon as it is not more than `enough`, or after a minute.
    fn memory_within_a_minute(&self, enough: u64) -> u64 {
        let begun = Instant::now();
        loop {
            let memory = self.memory();
            if memory <= enough || begun.elapsed() > Duration::from_secs(60) {
                return memory;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

/// Small, and without a look at the clock: how fast this machine is does not matter.
#[test]
fn another_caller_is_served_beside_every_attack() {
    let attacked = Attacked::start();
    let seen = attacked.beside(&ATTACKS, 1, "all", Duration::from_secs(3));
    assert!(seen.health.0.len() > 1);
}

#[test]
#[ignore = "measures: make bench-connections"]
fn another_caller_hardly_notices_eight_clients_of_an_attack() {
    let attacked = Attacked::start();
    let mut noticed = Vec::new();
    let first = attacked.honest("first", Duration::from_secs(4));
    let before = attacked.memory();
    println!("alone: health checks {}", first.health);
    println!("  submissions {}", first.submissions);
    for kind in ATTACKS {
        // Alternating, because the speed of a shared machine drifts.
        let (mut alone, mut beside) = (Seen::default(), Seen::default());
        for round in 0..ROUNDS {
            let name = format!("{}-{round}", kind as u8);
            alone.add(attacked.honest(&format!("alone-{name}"), Duration::from_secs(1)));
            beside.add(attacked.beside(&[kind], 8, &name, Duration::from_secs(2)));
        }
        let [usual, median] = [&alone, &beside].map(|seen| seen.submissions.percentile(50));
        println!("  health checks {}", beside.health);
        println!(
            "  submissions {} (p50 alone {usual:.1?})",
            beside.submissions
        );
        println!("  memory {} MB", attacked.memory() / 1_000_000);
        if beside.health.percentile(99) > Duration::from_millis(20) || median > 2 * usual {
            noticed.push(kind);
        }
    }
    let after = attacked.memory_within_a_minute(before + 32_000_000);
    let [before, after] = [before, after].map(|bytes| bytes / 1_000_000);
    println!("memory before {before} MB, within a minute after {after} MB");
    assert!(noticed.is_empty(), "{noticed:?}");
    assert!(after <= before + 32);
}

/// More than the processors of a machine can do, so no limit of time: the service stays there.
#[test]
#[ignore = "measures: make bench-connections"]
fn another_caller_is_served_beside_eight_clients_of_every_attack_at_once() {
    let attacked = Attacked::start();
    let before = attacked.memory();
    let seen = attacked.beside(&ATTACKS, 8, "all", Duration::from_secs(20));
    let during = attacked.memory();
    let after = attacked.memory_within_a_minute(before + 32_000_000);
    println!("  health checks {}", seen.health);
    println!("  submissions {}", seen.submissions);
    let [before, during, after] = [before, during, after].map(|bytes| bytes / 1_000_000);
    println!("memory before {before} MB, during {during} MB, within a minute after {after} MB");
    assert!(after <= before + 32);
}
