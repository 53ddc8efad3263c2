//! Callers that speak HTTP on connections of their own, from addresses of their own.

use std::fmt;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use e2e::{Server, root};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

pub const TOKEN: &str = "right-token";
/// Linux has all of 127.0.0.0/8, so the two callers have two addresses.
pub const ATTACKER: [u8; 4] = [127, 0, 0, 1];
pub const HONEST: [u8; 4] = [127, 0, 0, 2];
/// Hostile clients are on other machines, so they do not compete for this one's processors.
pub const NICENESS: i32 = 19;

pub fn headers(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-TRAINER-TOKEN: {TOKEN}\r\n")
}

pub fn get(path: &str) -> String {
    headers("GET", path) + "\r\n"
}

pub fn delete(path: &str) -> String {
    headers("DELETE", path) + "\r\n"
}

pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    let headers = headers("POST", path);
    format!("{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A connection from an address of this machine.
pub fn connect(from: [u8; 4], server: &Server) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    let address: SocketAddr = server.address.parse().map_err(io::Error::other)?;
    socket.connect(&address.into())?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(socket.into())
}

/// Reads one answer with a length, and gives its status.
pub fn read_answer(stream: &mut TcpStream) -> io::Result<u16> {
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

/// How long requests of one kind took.
#[derive(Default)]
pub struct Times(pub Vec<Duration>);

impl Times {
    pub fn percentile(&self, percent: usize) -> Duration {
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

/// The plugins of the service, and the hostile one with an attack on `describe`.
pub fn plugins(on_describe: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["meta", "hf", "nemo"] {
        let file = format!("{name}.wasm");
        let built = root().join("target/plugins").join(&file);
        std::fs::copy(built, folder.path().join(file)).unwrap();
    }
    let hostile = hostile_plugin(on_describe);
    std::fs::write(folder.path().join("hostile.wasm"), hostile).unwrap();
    folder
}

/// The hostile plugin with an attack on `describe`, or with `nothing`.
pub fn hostile_plugin(on_describe: &str) -> Vec<u8> {
    let file = root().join("target/wasm32-unknown-unknown/plugin/hostile.wasm");
    let mut bytes = std::fs::read(file).unwrap();
    let word = |attack: &str| format!("on-describe:{attack:<20}").into_bytes();
    let (honest, attack) = (word("nothing"), word(on_describe));
    let at = bytes.windows(honest.len()).position(|part| part == honest);
    let at = at.unwrap();
    bytes[at..at + attack.len()].copy_from_slice(&attack);
    bytes
}
