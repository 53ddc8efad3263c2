//! Registries that are slow, endless, lying or greedy for passwords. The host serves on.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::{Server, Site, binary, root};
use serde_json::{Value, json};
use trainer_host::plugin::source::Digest;

use crate::wait::eventually;

/// A registry that answers as a test says.
struct Registry {
    address: String,
    /// The heads of all requests.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// `answer` gets the path of each request and the connection.
    fn start(answer: impl Fn(&str, &mut TcpStream) -> Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, heads) = (Arc::new(answer), seen.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answer, heads) = (answer.clone(), heads.clone());
                std::thread::spawn(move || serve(connection, &*answer, &heads));
            }
        });
        Self { address, seen }
    }

    /// One that has a plugin under every tag.
    fn honest(plugin: Plugin) -> Self {
        Self::start(move |path, connection| plugin.answer(path, connection))
    }

    fn source(&self) -> String {
        format!("oci://{}/team/meta:1", self.address)
    }

    fn saw_password(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let mut heads = seen.iter().map(|head| head.to_lowercase());
        heads.any(|head| head.contains("authorization: basic"))
    }

    fn saw_authorization(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let mut heads = seen.iter().map(|head| head.to_lowercase());
        heads.any(|head| head.contains("authorization:"))
    }
}

fn serve(
    mut connection: TcpStream,
    answer: &(dyn Fn(&str, &mut TcpStream) -> Result<()> + Send + Sync),
    heads: &Mutex<Vec<String>>,
) -> Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_string();
    heads.lock().unwrap().push(head);
    answer(&path, &mut connection)
}

fn respond(connection: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> Result<()> {
    let length = body.len();
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    )?;
    connection.write_all(body)
}

/// A plugin as an artifact.
#[derive(Clone)]
struct Plugin {
    bytes: Vec<u8>,
}

impl Plugin {
    fn meta() -> Self {
        let bytes = std::fs::read(root().join("target/plugins/meta.wasm")).unwrap();
        Self { bytes }
    }

    /// The same plugin with other bytes.
    fn another() -> Self {
        let mut plugin = Self::meta();
        plugin.bytes.extend([0, 3, 1, b'v', 2]);
        plugin
    }

    fn manifest(&self) -> Vec<u8> {
        let empty = Digest::of(b"{}").to_string();
        let layer = json!({
            "mediaType": "application/wasm",
            "digest": Digest::of(&self.bytes).to_string(),
            "size": self.bytes.len(),
        });
        json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": empty, "size": 2},
            "layers": [layer],
        })
        .to_string()
        .into_bytes()
    }

    fn answer(&self, path: &str, connection: &mut TcpStream) -> Result<()> {
        match path.contains("/manifests/") {
            true => respond(connection, "200 OK", "", &self.manifest()),
            false => respond(connection, "200 OK", "", &self.bytes),
        }
    }
}

/// An answer that never ends.
fn endless(connection: &mut TcpStream, piece: &[u8], pause: Duration) -> Result<()> {
    write!(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    loop {
        connection.write_all(piece)?;
        std::thread::sleep(pause);
    }
}

/// One of each kind that gives no plugin.
fn bad_registries() -> Vec<(&'static str, Registry)> {
    let silent = Registry::start(|_, _| {
        std::thread::sleep(Duration::from_secs(600));
        Ok(())
    });
    let drip =
        Registry::start(|_, connection| endless(connection, b" ", Duration::from_millis(200)));
    let flood =
        Registry::start(|_, connection| endless(connection, &[b' '; 1 << 20], Duration::ZERO));
    let plugin = Plugin::meta();
    let flood_of_layer =
        Registry::start(move |path, connection| match path.contains("/manifests/") {
            true => plugin.answer(path, connection),
            false => endless(connection, &[0; 1 << 20], Duration::ZERO),
        });
    let redirecting = Registry::start(|path, connection| {
        let location = format!("Location: {path}/again\r\n");
        respond(connection, "307 Temporary Redirect", &location, b"")
    });
    let lying = Registry::start(|path, connection| {
        let path = path.to_string();
        match path.contains("/manifests/") {
            true => Plugin::meta().answer(&path, connection),
            false => Plugin::another().answer(&path, connection),
        }
    });
    let challenge = Registry::start(|path, connection| match path.contains("/token") {
        true => endless(connection, &[b' '; 1 << 20], Duration::ZERO),
        false => {
            let host = connection.local_addr()?;
            let header = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n");
            respond(connection, "401 Unauthorized", &header, b"")
        }
    });
    let nonsense = Registry::start(|_, connection| connection.write_all(b"\0\xff nonsense"));
    let gone = Registry {
        address: e2e::free_address().unwrap(),
        seen: Arc::default(),
    };
    vec![
        ("silent", silent),
        ("drip", drip),
        ("flood", flood),
        ("flood of a layer", flood_of_layer),
        ("redirecting", redirecting),
        ("lying", lying),
        ("flood of a token", challenge),
        ("nonsense", nonsense),
        ("gone", gone),
    ]
}

/// A plugin folder with a `plugins.toml`, and copies of built plugins.
fn folder(sources: &[String], more: &str, frameworks: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let listed = sources.iter();
    let listed: String = listed
        .map(|source| format!("[[plugin]]\nsource = \"{source}\"\n{more}"))
        .collect();
    let settings = format!("[host]\npull_seconds = 4\n{listed}");
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    for framework in frameworks {
        add(folder.path(), framework);
    }
    folder
}

fn add(folder: &Path, framework: &str) {
    let file = format!("{framework}.wasm");
    let unfinished = folder.join("unfinished");
    std::fs::copy(root().join("target/plugins").join(&file), &unfinished).unwrap();
    std::fs::rename(unfinished, folder.join(file)).unwrap();
}

fn site(plugins: &Path) -> Site {
    let site = Site::with_launcher("#!/bin/sh\n").unwrap();
    site.set("TRAINER_PLUGINS", &plugins.display().to_string())
}

fn signal(server: &Server, signal: &str) {
    let pid = server.pid().to_string();
    let done = Command::new("kill").args([signal, &pid]).status();
    assert!(done.unwrap().success());
}

fn wait_until(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    eventually(what, Duration::from_secs(seconds), || done().then_some(()));
}

fn serves(server: &Server, framework: &str) -> bool {
    server.get(&format!("/frameworks/{framework}")).unwrap().0 == 200
}

/// Why a source is refused.
fn refusal(server: &Server, source: &str) -> Option<Value> {
    let (_, all) = server.get("/frameworks").unwrap();
    let refused = all["refused"].as_array().unwrap();
    let of_source = refused.iter().find(|refused| refused["source"] == source);
    of_source.cloned()
}

/// Whether a process has ended, if nobody has waited for it yet.
fn has_ended(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.is_empty() || status.contains(") Z ")
}

#[test]
fn bad_registries_hold_up_neither_start_nor_reload_nor_rollback_nor_stop() {
    let bad = bad_registries();
    let sources: Vec<String> = bad.iter().map(|(_, registry)| registry.source()).collect();
    let folder = folder(&sources, "", &["hf"]);
    let good = Registry::honest(Plugin::meta());
    let settings = folder.path().join("plugins.toml");
    let listed = std::fs::read_to_string(&settings).unwrap();
    let listed = format!("{listed}[[plugin]]\nsource = \"{}\"\n", good.source());
    std::fs::write(&settings, listed).unwrap();
    let site = site(folder.path());
    // So that what follows measures registries and not compiling.
    drop(site.start().unwrap());

    let begun = Instant::now();
    let server = site.start().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert!(serves(&server, "hf"));
    wait_until("the good registry's plugin", 10, || serves(&server, "meta"));

    let begun = Instant::now();
    let (status, _) = server
        .post("/frameworks/meta/rollback", &json!({}))
        .unwrap();
    assert_eq!(status, 409);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    add(folder.path(), "nemo");
    wait_until("a new file", 30, || serves(&server, "nemo"));

    for (kind, registry) in &bad {
        wait_until(kind, 30, || refusal(&server, &registry.source()).is_some());
    }
    let reason = |at: usize| refusal(&server, &sources[at]).unwrap()["reason"].to_string();
    assert!(reason(0).contains("pull_seconds"), "{}", reason(0));
    assert!(reason(1).contains("pull_seconds"), "{}", reason(1));
    assert!(
        reason(2).contains("larger than the 4194304 bytes"),
        "{}",
        reason(2)
    );
    assert!(reason(4).contains("redirect"), "{}", reason(4));
    assert!(reason(5).contains("digest"), "{}", reason(5));
    let memory = server.resident_memory().unwrap();
    assert!(memory < 400 << 20, "{memory} bytes");

    // The service contacts all of them again while it stops.
    signal(&server, "-HUP");
    std::thread::sleep(Duration::from_millis(300));
    signal(&server, "-TERM");
    wait_until("the service stops", 10, || has_ended(server.pid()));
}

#[test]
fn the_last_good_version_serves_while_a_registry_turns_bad_and_back() {
    let is_bad = Arc::new(AtomicBool::new(false));
    let turned = is_bad.clone();
    let registry = Registry::start(
        move |path, connection| match turned.load(Ordering::SeqCst) {
            true => respond(connection, "503 Service Unavailable", "", b"later"),
            false => Plugin::meta().answer(path, connection),
        },
    );
    let folder = folder(&[registry.source()], "", &[]);
    let server = site(folder.path()).start().unwrap();
    wait_until("the first pull", 60, || serves(&server, "meta"));
    let digest = Digest::of(&Plugin::meta().bytes).to_string();
    for _ in 0..2 {
        is_bad.store(true, Ordering::SeqCst);
        signal(&server, "-HUP");
        wait_until("a refusal", 20, || {
            refusal(&server, &registry.source()).is_some()
        });
        let refused = refusal(&server, &registry.source()).unwrap();
        assert_eq!(refused["serving"], digest);
        assert!(serves(&server, "meta"));
        is_bad.store(false, Ordering::SeqCst);
        signal(&server, "-HUP");
        wait_until("recovery", 20, || {
            refusal(&server, &registry.source()).is_none()
        });
        assert!(serves(&server, "meta"));
    }
}

fn kept_files(site: &Site) -> PathBuf {
    site.data.path().join("pulled-plugins")
}

#[test]
fn what_is_kept_of_a_pinned_plugin_cannot_be_exchanged() {
    let (honest, evil) = (Plugin::meta(), Plugin::another());
    let digest = Digest::of(&honest.manifest());
    let registry = Registry::honest(honest.clone());
    let source = format!("oci://{}/team/meta@{digest}", registry.address);
    let folder = folder(std::slice::from_ref(&source), "", &["hf"]);
    // From now on there is no registry: what is kept has to do.
    let offline = folder.path().join("plugins.toml");
    let site = site(folder.path());
    let server = site.start().unwrap();
    wait_until("the first pull", 60, || serves(&server, "meta"));
    drop(server);
    let dead = e2e::free_address().unwrap();
    let settings = std::fs::read_to_string(&offline).unwrap();
    std::fs::write(&offline, settings.replace(&registry.address, &dead)).unwrap();
    let source = source.replace(&registry.address, &dead);
    let server = site.start().unwrap();
    wait_until("the kept plugin", 20, || serves(&server, "meta"));
    drop(server);

    let kept = kept_files(&site);
    let hex = |bytes: &[u8]| Digest::of(bytes).hex().to_string();
    // What an earlier release kept, which named the layer without its manifest.
    let old = json!({"layer": Digest::of(&evil.bytes).to_string(), "documents": []}).to_string();
    std::fs::write(kept.join(format!("{}.json", digest.hex())), &old).unwrap();
    std::fs::write(kept.join(format!("{}.wasm", hex(&evil.bytes))), &evil.bytes).unwrap();
    std::fs::write(kept.join(hex(&evil.bytes)), &evil.bytes).unwrap();
    for (file, bytes) in [
        (digest.hex().to_string(), evil.manifest()),
        (hex(&honest.bytes), evil.bytes.clone()),
    ] {
        let before = std::fs::read(kept.join(&file)).unwrap();
        std::fs::write(kept.join(&file), bytes).unwrap();
        let server = site.start().unwrap();
        wait_until("a refusal", 20, || refusal(&server, &source).is_some());
        assert!(!serves(&server, "meta"), "{file}");
        drop(server);
        std::fs::write(kept.join(&file), before).unwrap();
    }
}

/// Runs `trainer plugin pull` with a name and a password, and gives what it says when it fails.
fn pull(source: &str, settings: &[(&str, &str)]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new(binary())
        .args(["plugin", "pull", source, "-o"])
        .arg(folder.path().join("pulled.wasm"))
        .env("DOCKER_CONFIG", folder.path())
        .env("TRAINER_REGISTRY_USER", "team")
        .env("TRAINER_REGISTRY_PASSWORD", "correct horse")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let message = String::from_utf8(done.stderr).unwrap();
    assert!(!message.contains("horse"), "{message}");
    (!done.status.success()).then_some(message)
}

const BASIC: &str = "WWW-Authenticate: Basic realm=\"registry\"\r\n";

#[test]
fn a_password_goes_to_the_registry_that_it_is_for() {
    let ask =
        |_: &str, connection: &mut TcpStream| respond(connection, "401 Unauthorized", BASIC, b"");
    let [ours, other] = [Registry::start(ask), Registry::start(ask)];
    let named = ("TRAINER_REGISTRY_HOST", ours.address.as_str());
    pull(&other.source(), &[named]).unwrap();
    assert!(!other.saw_password());
    pull(&ours.source(), &[named]).unwrap();
    assert!(ours.saw_password());

    // Of several registries none is meant by a password alone.
    let [first, second] = [Registry::start(ask), Registry::start(ask)];
    let folder = folder(&[first.source(), second.source()], "", &["hf"]);
    let site = site(folder.path())
        .set("TRAINER_REGISTRY_USER", "team")
        .set("TRAINER_REGISTRY_PASSWORD", "correct horse");
    let server = site.start().unwrap();
    for registry in [&first, &second] {
        wait_until("a refusal", 20, || {
            refusal(&server, &registry.source()).is_some()
        });
        assert!(!registry.saw_password());
    }
    assert!(site.service_log().contains("TRAINER_REGISTRY_HOST"));
}

#[test]
fn a_token_server_on_another_host_gets_a_password_only_when_it_is_named() {
    let tokens = Registry::start(|_, connection| {
        respond(
            connection,
            "200 OK",
            "",
            br#"{"token":"t","access_token":"t"}"#,
        )
    });
    let realm = format!("http://{}/token", tokens.address);
    let header = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"x\"\r\n");
    let registry =
        Registry::start(move |_, connection| respond(connection, "401 Unauthorized", &header, b""));
    let message = pull(&registry.source(), &[]).unwrap();
    assert!(message.contains("TRAINER_REGISTRY_TOKEN_HOST"), "{message}");
    assert!(tokens.seen.lock().unwrap().is_empty());
    let named = ("TRAINER_REGISTRY_TOKEN_HOST", tokens.address.as_str());
    pull(&registry.source(), &[named]).unwrap();
    assert!(tokens.saw_password());
    assert!(!registry.saw_password());
}

#[test]
fn a_redirect_takes_no_password_along_and_never_leaves_tls() {
    let plugin = Plugin::meta();
    let store = Registry::honest(plugin.clone());
    let location = format!("Location: http://{}/blob\r\n", store.address);
    let registry = Registry::start(move |path, connection| match path.contains("/blobs/") {
        true => respond(connection, "307 Temporary Redirect", &location, b""),
        false => plugin.answer(path, connection),
    });
    assert_eq!(pull(&registry.source(), &[]), None);
    assert!(!store.saw_authorization());
    let away = Registry::start(|_, connection| {
        let location = "Location: http://registry.example.com/blob\r\n";
        respond(connection, "307 Temporary Redirect", location, b"")
    });
    let message = pull(&away.source(), &[]).unwrap();
    assert!(message.contains("without TLS"), "{message}");
}

#[test]
fn a_signature_for_another_repository_is_refused_unless_the_operator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str| folder.path().join(name).display().to_string();
    let script = format!(
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {0} 2>/dev/null && \
         openssl pkey -in {0} -pubout -out {0}.pub",
        key("team")
    );
    let made = Command::new("bash").args(["-c", &script]).status();
    assert!(made.unwrap().success());
    let private = std::fs::read_to_string(key("team")).unwrap();
    let plugin = Plugin::meta();
    let digest = Digest::of(&plugin.manifest());
    let reference = "registry.example.com/payments/other:1".parse().unwrap();
    let document =
        trainer_host::plugin::source::signature::sign_manifest(&private, &reference, &digest);
    let document = document.unwrap();
    let payload = document.payload.clone().into_bytes();
    let layer = json!({
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": Digest::of(&payload).to_string(),
        "size": payload.len(),
        "annotations": {"dev.cosignproject.cosign/signature": document.signature},
    });
    let empty = json!({"mediaType": "x", "digest": Digest::of(b"{}").to_string(), "size": 2});
    let signatures = json!({"schemaVersion": 2, "config": empty, "layers": [layer]}).to_string();
    let of_payload = Digest::of(&payload).hex().to_string();
    let registry = Registry::start(move |path, connection| {
        if path.ends_with(".sig") {
            return respond(connection, "200 OK", "", signatures.as_bytes());
        }
        match path.contains(&of_payload) {
            true => respond(connection, "200 OK", "", &payload),
            false => plugin.answer(path, connection),
        }
    });
    let pull = |more: &[&str]| {
        let done = Command::new(binary())
            .args(["plugin", "pull", &registry.source(), "-o"])
            .args([&key("out.wasm"), "--key", &key("team.pub")])
            .args(more)
            .output()
            .unwrap();
        (
            done.status.success(),
            String::from_utf8(done.stderr).unwrap(),
        )
    };
    let (is_pulled, message) = pull(&[]);
    assert!(!is_pulled);
    assert!(message.contains("payments/other"), "{message}");
    assert!(pull(&["--signed-as", "registry.example.com/payments/other"]).0);
    assert!(pull(&["--signed-as", "*"]).0);
    assert!(!pull(&["--signed-as", "registry.example.com/payments/third"]).0);
}
