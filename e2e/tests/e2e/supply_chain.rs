//! Plugins from a real OCI registry on this machine: pinned, signed, and refused when they are not
//! what was asked for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e::{Site, binary, free_address, root};
use trainer_host::plugin::Limits;
use trainer_host::plugin::settings::PluginSettings;

use e2e::documents::blocks;
use serde_json::json;

/// Debian's docker-registry, which `make registry` unpacks.
struct Registry {
    process: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// Nothing where there is no registry: `make registry` says so.
    fn start() -> Option<Self> {
        Self::start_with(None)
    }

    /// One that asks for the name `team` and the password `correct horse`.
    fn start_with_password() -> Option<Self> {
        // `htpasswd -nbB team 'correct horse'`
        let passwords = "team:$2b$04$vX5CDX.U92.GOukOqmgL3usa6NiMgakjmhPQL/mvwbnQ8l/X1zd6e";
        Self::start_with(Some(passwords))
    }

    fn start_with(passwords: Option<&str>) -> Option<Self> {
        let program = root().join("target/registry/usr/bin/docker-registry");
        if !program.exists() {
            println!("left out: no registry on this machine");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let address = free_address().unwrap();
        let settings = folder.path().join("registry.yml");
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http: {{addr: {address}}}\n",
            folder.path().join("storage").display()
        );
        if let Some(passwords) = passwords {
            let file = folder.path().join("htpasswd");
            std::fs::write(&file, passwords).unwrap();
            let file = file.display();
            text += &format!("auth: {{htpasswd: {{realm: test, path: {file}}}}}\n");
        }
        std::fs::write(&settings, text).unwrap();
        let process = Command::new(program)
            .arg("serve")
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no registry");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self {
            process,
            address,
            folder,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A pair of keys, made as the documents say.
    fn keys(&self, name: &str) -> (String, String) {
        let (private, public) = (self.path(name), self.path(&format!("{name}.pub")));
        let script = format!(
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {0} 2>/dev/null && \
             openssl pkey -in {0} -pubout -out {1}",
            private.display(),
            public.display()
        );
        let made = Command::new("bash").args(["-c", &script]).status();
        assert!(made.unwrap().success());
        (private.display().to_string(), public.display().to_string())
    }

    /// Pushes a plugin, and gives its address by digest.
    fn push(&self, file: &Path, tag: &str, key: Option<&str>) -> String {
        let mut arguments = vec!["push".to_string(), file.display().to_string()];
        arguments.push(format!("oci://{}/team/meta:{tag}", self.address));
        arguments.extend(
            key.iter()
                .flat_map(|key| ["--sign".into(), key.to_string()]),
        );
        let output = plugin(&arguments);
        let message = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        message.lines().next().unwrap().to_string()
    }

    fn pull(&self, from: &str, more: &[&str]) -> Result<Vec<u8>, String> {
        let output = self.path("pulled.wasm");
        let _ = std::fs::remove_file(&output);
        let mut arguments = vec!["pull".to_string(), from.to_string(), "-o".to_string()];
        arguments.push(output.display().to_string());
        arguments.extend(more.iter().map(ToString::to_string));
        let done = plugin(&arguments);
        match done.status.success() {
            true => Ok(std::fs::read(output).unwrap()),
            false => {
                assert!(!output.exists(), "a refused plugin was written");
                Err(String::from_utf8(done.stderr).unwrap())
            }
        }
    }

    /// The file in which the registry keeps some bytes.
    fn blob(&self, bytes: &[u8]) -> PathBuf {
        let mut folders = vec![self.path("storage")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if std::fs::read(&path).unwrap() == bytes {
                    return path;
                }
            }
        }
        panic!("the registry keeps no such bytes");
    }
}

fn plugin(arguments: &[String]) -> Output {
    Command::new(binary())
        .arg("plugin")
        .args(arguments)
        .output()
        .unwrap()
}

fn meta() -> PathBuf {
    root().join("target/plugins/meta.wasm")
}

/// The same plugin with other bytes.
fn another(registry: &Registry) -> PathBuf {
    let mut bytes = std::fs::read(meta()).unwrap();
    bytes.extend([0, 3, 1, b'v', 2]);
    let file = registry.path("another.wasm");
    std::fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn a_registry_gets_the_credentials_of_docker_login_or_of_the_settings() {
    let Some(registry) = Registry::start_with_password() else {
        return;
    };
    let logged_in = registry.path("logged-in");
    std::fs::create_dir(&logged_in).unwrap();
    // What `docker login` writes: base64 of `team:correct horse`.
    let auth = json!({"auth": "dGVhbTpjb3JyZWN0IGhvcnNl"});
    let config = json!({"auths": {registry.address.as_str(): auth}});
    std::fs::write(logged_in.join("config.json"), config.to_string()).unwrap();
    let nowhere = registry.path("nowhere").display().to_string();
    let logged_in = logged_in.display().to_string();
    let password = "TRAINER_REGISTRY_PASSWORD";
    for (settings, succeeds) in [
        (vec![("DOCKER_CONFIG", nowhere.as_str())], false),
        (vec![("DOCKER_CONFIG", logged_in.as_str())], true),
        (
            vec![
                ("DOCKER_CONFIG", nowhere.as_str()),
                ("TRAINER_REGISTRY_USER", "team"),
                (password, "correct horse"),
            ],
            true,
        ),
        (
            vec![
                ("DOCKER_CONFIG", logged_in.as_str()),
                ("TRAINER_REGISTRY_USER", "team"),
                (password, "wrong horse"),
            ],
            false,
        ),
    ] {
        let pushed = Command::new(binary())
            .args(["plugin", "push"])
            .arg(meta())
            .arg(format!("oci://{}/team/meta:1", registry.address))
            .envs(settings.clone())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&pushed.stderr);
        assert_eq!(pushed.status.success(), succeeds, "{settings:?}: {error}");
        assert!(!error.contains("horse"), "{error}");
    }
}

#[test]
fn the_commands_that_ship_a_plugin_are_those_of_the_page() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("fresh/build")).unwrap();
    std::fs::copy(meta(), folder.path().join("fresh/build/fresh.wasm")).unwrap();
    let ship = blocks("docs/plugin-author.md", "sh").unwrap().remove(1);
    let fetch = blocks("docs/operator.md", "sh").unwrap().pop().unwrap();
    let fetch = fetch.replace("team/accelerate:stable", "team/fresh:0.1.0");
    let commands = (ship + &fetch).replace("registry.example.com", &registry.address);
    let programs = binary().canonicalize().unwrap();
    let programs = programs.parent().unwrap().display();
    let done = Command::new("bash")
        .args(["-ec", &commands])
        .current_dir(folder.path())
        .env(
            "PATH",
            format!("{programs}:{}", std::env::var("PATH").unwrap()),
        )
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let pulled = std::fs::read(folder.path().join("accelerate.wasm")).unwrap();
    assert_eq!(pulled, std::fs::read(meta()).unwrap());

    // The page's plugins.toml, with the keys that were just made.
    let settings = blocks("docs/operator.md", "toml").unwrap().remove(0);
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    let public = folder.path().join("team.pub");
    std::fs::copy(public, folder.path().join("accelerate.pub")).unwrap();
    let read = PluginSettings::read(folder.path(), Limits::default()).unwrap();
    assert_eq!(read.limits, Limits::default());
    let sources = read.sources(folder.path()).unwrap();
    let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let expected = [
        "oci://registry.example.com/team/accelerate:stable",
        "meta.wasm",
        "accelerate.wasm",
    ];
    assert_eq!(names, expected);
    assert_eq!(sources[0].limits.memory_bytes, 128 << 20);
    assert_eq!(sources[0].keys.len(), 2);
}

#[test]
fn what_was_pushed_is_pulled_by_digest_and_verified() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let (private, public) = registry.keys("team");
    let by_digest = registry.push(&meta(), "1.0", Some(&private));
    assert!(by_digest.contains("/team/meta@sha256:"), "{by_digest}");
    let whole = std::fs::read(meta()).unwrap();
    assert_eq!(registry.pull(&by_digest, &["--key", &public]), Ok(whole));
}

#[test]
fn a_wrong_key_a_missing_signature_and_a_changed_byte_are_refused() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let (private, _) = registry.keys("team");
    let (_, stranger) = registry.keys("stranger");
    let by_digest = registry.push(&meta(), "1.0", Some(&private));
    let message = registry
        .pull(&by_digest, &["--key", &stranger])
        .unwrap_err();
    assert!(
        message.contains("its signature does not match any of the trusted keys"),
        "{message}"
    );
    let unsigned = registry.push(&another(&registry), "2.0", None);
    let message = registry.pull(&unsigned, &["--key", &stranger]).unwrap_err();
    assert!(message.contains("it is not signed"), "{message}");

    let kept = registry.blob(&std::fs::read(meta()).unwrap());
    let mut bytes = std::fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(kept, bytes).unwrap();
    let message = registry.pull(&by_digest, &[]).unwrap_err();
    assert!(message.to_lowercase().contains("digest"), "{message}");
}

#[test]
fn a_host_serves_what_is_pinned_and_refuses_a_tag_that_moved() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let (private, public) = registry.keys("team");
    let tag = format!("oci://{}/team/meta:stable", registry.address);
    registry.push(&meta(), "stable", Some(&private));
    let folder = registry.path("plugins");
    std::fs::create_dir(&folder).unwrap();
    let digest = trainer_host::plugin::source::Digest::of(&std::fs::read(meta()).unwrap());
    let settings = format!(
        "[require]\ndigest = true\nkeys = [\"{public}\"]\n\n[[plugin]]\nsource = \"{tag}\"\n\
         digest = \"{digest}\"\n"
    );
    std::fs::write(folder.join("plugins.toml"), settings).unwrap();
    let site = Site::with_launcher("#!/bin/sh\n").unwrap();
    let site = site.set("TRAINER_PLUGINS", &folder.display().to_string());
    let server = site.start().unwrap();
    let (_, view) = server.get("/frameworks/meta").unwrap();
    assert_eq!(view["digest"], digest.to_string());
    assert_eq!(view["source"], tag);

    // The tag moves to a plugin that is signed as well.
    registry.push(&another(&registry), "stable", Some(&private));
    let hang_up = Command::new("kill")
        .args(["-HUP", &server.pid().to_string()])
        .status();
    assert!(hang_up.unwrap().success());
    let begun = Instant::now();
    loop {
        let (_, all) = server.get("/frameworks").unwrap();
        if let Some(reason) = all["refused"][0]["reason"].as_str() {
            assert!(
                reason.contains(&format!("{digest} is required")),
                "{reason}"
            );
            assert_eq!(all["refused"][0]["serving"], digest.to_string());
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{all}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, view) = server.get("/frameworks/meta").unwrap();
    assert_eq!(view["digest"], digest.to_string());
}

#[test]
fn a_pinned_plugin_needs_its_registry_once() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let (private, public) = registry.keys("team");
    let by_digest = registry.push(&meta(), "1.0", Some(&private));
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("[[plugin]]\nsource = \"{by_digest}\"\nkeys = [\"team.pub\"]\n");
    std::fs::copy(public, folder.path().join("team.pub")).unwrap();
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    let site = Site::with_launcher("#!/bin/sh\n").unwrap();
    let site = site.set("TRAINER_PLUGINS", &folder.path().display().to_string());
    drop(site.start().unwrap());
    drop(registry);
    let server = site.start().unwrap();
    assert_eq!(server.get("/frameworks/meta").unwrap().0, 200);
}
