//! What one caller notices of another one that attacks the service in every way at once.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::{Server, Site, root, training};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// The sparse job has a log of 4 TiB that takes nothing on disk; others wait for a slot.
const LAUNCHER: &str = "#!/bin/sh\ntruncate --size=4T /proc/self/fd/1\nexec sleep 600\n";
const TOKEN: &str = "right-token";
/// Linux has all of 127.0.0.0/8, so the two callers have two addresses.
const ATTACKER: [u8; 4] = [127, 0, 0, 1];
const HONEST: [u8; 4] = [127, 0, 0, 2];
/// Hostile clients are on other machines, so they do not compete for this one's processors.
const NICENESS: i32 = 19;

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
            Self::ListsOfJobs => (get("/train?limit=1000"), Reads::Everything),
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

fn headers(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-TRAINER-TOKEN: {TOKEN}\r\n")
}

fn get(path: &str) -> String {
    headers("GET", path) + "\r\n"
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    let headers = headers("POST", path);
    format!("{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A connection from an address of this machine.
fn connect(from: [u8; 4], server: &Server) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    let address: SocketAddr = server.address.parse().map_err(io::Error::other)?;
    socket.connect(&address.into())?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(socket.into())
}

/// Reads one answer with a length, and gives its status.
fn read_answer(stream: &mut TcpStream) -> io::Result<u16> {
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..count]);
        if let Some(status) = whole(&answer) {
            return Ok(status);
        }
    }
}

/// The status of an answer that has come whole.
fn whole(answer: &[u8]) -> Option<u16> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    let is_chunked = head.contains("transfer-encoding: chunked");
    let is_whole = match is_chunked {
        true => answer.ends_with(b"0\r\n\r\n"),
        false => answer.len() >= end + length,
    };
    is_whole.then(|| head[9..12].parse().unwrap())
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

/// How long requests of one kind took.
struct Times(Vec<Duration>);

impl Times {
    fn percentile(&self, percent: usize) -> Duration {
        let mut times = self.0.clone();
        times.sort();
        times[(times.len() * percent / 100).min(times.len() - 1)]
    }
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, all] = [50, 99, 100].map(|percent| self.percentile(percent));
        let count = self.0.len();
        write!(
            formatter,
            "p50 {half:.1?}, p99 {most:.1?}, max {all:.1?} of {count}"
        )
    }
}

/// What an honest caller sees.
struct Seen {
    health: Times,
    submissions: Times,
}

/// Health checks and submissions of one caller on one connection, for so long.
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
    Seen {
        health: Times(health),
        submissions: Times(submissions),
    }
}

/// The plugins of the service, and the hostile one.
fn plugins() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["meta", "hf", "nemo"] {
        let file = format!("{name}.wasm");
        let built = root().join("target/plugins").join(&file);
        std::fs::copy(built, folder.path().join(file)).unwrap();
    }
    let hostile = root().join("target/wasm32-unknown-unknown/plugin/hostile.wasm");
    std::fs::copy(hostile, folder.path().join("hostile.wasm")).unwrap();
    folder
}

/// What an honest caller sees alone and beside so many clients of each attack, and the memory of the
/// service before, during and at most so long after.
struct Beside {
    alone: Seen,
    beside: Seen,
    memory: [u64; 3],
}

fn beside(clients: usize, time: Duration, patience: Duration) -> Beside {
    let plugins = plugins();
    let site = Site::with_launcher(LAUNCHER).unwrap();
    let site = site
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
    let alone = honest(&server, &job, "alone", time);
    let mut memory = [server.resident_memory().unwrap(); 3];
    let is_over = AtomicBool::new(false);
    let sent: Vec<AtomicU64> = ATTACKS.map(|_| AtomicU64::new(0)).into();
    let (target, over) = (&server, &is_over);
    let beside = std::thread::scope(|scope| {
        for (kind, sent) in ATTACKS.into_iter().zip(&sent) {
            for _ in 0..clients {
                scope.spawn(move || attack(kind, target, over, sent));
            }
        }
        std::thread::sleep(time / 10);
        let seen = honest(&server, &job, "beside", time);
        memory[1] = server.resident_memory().unwrap();
        is_over.store(true, Ordering::Relaxed);
        seen
    });
    for (kind, sent) in ATTACKS.iter().zip(&sent) {
        let sent = sent.load(Ordering::Relaxed);
        println!("{kind:?}: {sent} requests");
        assert!(sent > 0, "{kind:?}");
    }
    memory[2] = memory_within(patience, &server, memory[0] + 32_000_000);
    Beside {
        alone,
        beside,
        memory,
    }
}

/// The memory of a service as soon as it is not more than `enough`, or after `patience`.
fn memory_within(patience: Duration, server: &Server, enough: u64) -> u64 {
    let begun = Instant::now();
    loop {
        let memory = server.resident_memory().unwrap();
        if memory <= enough || begun.elapsed() > patience {
            return memory;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Small, and without a look at the clock: how fast this machine is does not matter.
#[test]
fn another_caller_is_served_beside_every_attack() {
    let Beside { beside, .. } = beside(1, Duration::from_secs(3), Duration::ZERO);
    assert!(beside.health.0.len() > 1);
}

#[test]
#[ignore = "measures: make bench-connections"]
fn another_caller_hardly_notices_eight_clients_of_every_attack() {
    let Beside {
        alone,
        beside,
        memory,
    } = beside(8, Duration::from_secs(20), Duration::from_secs(60));
    let [before, during, after] = memory.map(|bytes| bytes / 1_000_000);
    println!("health checks alone: {}", alone.health);
    println!(
        "health checks beside 8 clients of each of {} attacks: {}",
        ATTACKS.len(),
        beside.health
    );
    println!("submissions alone: {}", alone.submissions);
    println!("submissions beside them: {}", beside.submissions);
    println!("memory before {before} MB, during {during} MB, within a minute after {after} MB");
    assert!(beside.health.percentile(99) <= Duration::from_millis(20));
    assert!(beside.submissions.percentile(50) <= 2 * alone.submissions.percentile(50));
    assert!(after <= before + 32);
}
