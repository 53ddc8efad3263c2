//! Bad files under a host that serves: the version before serves throughout.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::{Server, Site, root};
use serde_json::{Value, json};

use crate::callers::hostile_plugin;

/// Compiling is given little here, so that a bomb is seen soon.
const SETTINGS: &str = "[host]\ncompile_seconds = 3\ncompile_memory_mib = 512\n";

/// A shorter time has too few answers to compare.
const SHORTEST: Duration = Duration::from_secs(2);

fn request() -> Value {
    json!({
        "framework": "meta",
        "model_id": "x",
        "run_id": "run-1",
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
    })
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

/// A component that is small and takes for ever to compile: its module has functions of millions of
/// operations, of which each needs the one before.
fn bomb() -> Vec<u8> {
    let mut body = vec![1, 1, 0x7e]; // one local of 64 bits
    for _ in 0..600_000 {
        // local.get 0, local.get 0, i64.const 3, i64.rem_u, i64.add, local.set 0
        body.extend([0x20, 0, 0x20, 0, 0x42, 3, 0x82, 0x7c, 0x21, 0]);
    }
    body.push(0x0b);
    let function = [leb(body.len()), body].concat();
    let count = 8;
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend(section(1, &[1, 0x60, 0, 0]));
    module.extend(section(3, &[&[count as u8][..], &vec![0; count]].concat()));
    module.extend(section(
        10,
        &[&[count as u8][..], &function.repeat(count)].concat(),
    ));
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    component.extend(section(1, &module));
    // An empty component, an instance of it, and that exported under the contract's name.
    component.extend(section(4, b"\0asm\x0d\0\x01\0"));
    component.extend(section(5, &[1, 0, 0, 0]));
    let name = b"deepfinery:trainer/framework@0.1.0";
    let export = [&[1, 0, name.len() as u8][..], name, &[5, 0, 0]].concat();
    component.extend(section(11, &export));
    component
}

fn replace(folder: &Path, bytes: &[u8]) {
    let unfinished = folder.join("meta.unfinished");
    std::fs::write(&unfinished, bytes).unwrap();
    std::fs::rename(unfinished, folder.join("meta.wasm")).unwrap();
}

/// Asks as long as it may, and gives the times of the answers, sorted.
fn ask(server: &Server, stop: &AtomicBool, digest: &Value) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let (status, preview) = server.post("/train/preview", &request()).unwrap();
        times.push(begun.elapsed());
        assert_eq!(status, 200, "{preview}");
        assert_eq!(&preview["plugin"]["digest"], digest);
        std::thread::sleep(Duration::from_millis(2));
    }
    times.sort();
    times
}

fn at(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() - 1) * percent / 100]
}

#[test]
fn the_version_before_serves_whatever_file_comes() {
    let good = std::fs::read(root().join("target/plugins/meta.wasm")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plugins.toml"), SETTINGS).unwrap();
    replace(folder.path(), &good);
    let site = Site::with_launcher("#!/bin/sh\n").unwrap();
    let site = site.set("TRAINER_PLUGINS", &folder.path().display().to_string());
    let server = site.start().unwrap();
    let (_, view) = server.get("/frameworks/meta").unwrap();
    let digest = view["digest"].clone();
    let newer = "(module (func (export \"deepfinery:trainer/framework@0.2.0#plan\")))";
    let imports = "(module (import \"env\" \"clock\" (func)))";
    let cases: [(&str, Vec<u8>, &str); 7] = [
        (
            "truncated",
            good[..good.len() / 2].to_vec(),
            "not WebAssembly",
        ),
        ("not WebAssembly", b"#!/bin/sh".to_vec(), "not WebAssembly"),
        (
            "wrong contract",
            wat::parse_str(newer).unwrap(),
            "built for contract 0.2",
        ),
        (
            "imports",
            wat::parse_str(imports).unwrap(),
            "it imports env#clock",
        ),
        ("100 MB", vec![0; 100 << 20], "(limit file_mib)"),
        (
            "endless describe",
            hostile_plugin("loop"),
            "1000 ms allowed (limit time_ms)",
        ),
        ("compile bomb", bomb(), "(limit compile_"),
    ];
    for (name, bytes, reason) in cases {
        let measured = |work: &dyn Fn()| {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let client = scope.spawn(|| ask(&server, &stop, &digest));
                work();
                stop.store(true, Ordering::Relaxed);
                client.join().unwrap()
            })
        };
        let quiet = measured(&|| std::thread::sleep(SHORTEST));
        let begun = Instant::now();
        let during = measured(&|| {
            replace(folder.path(), &bytes);
            loop {
                let (_, all) = server.get("/frameworks").unwrap();
                let message = all["refused"][0]["reason"].as_str().unwrap_or_default();
                if message.contains(reason) {
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(120), "{name}: {all}");
                std::thread::sleep(Duration::from_millis(20));
            }
            std::thread::sleep(SHORTEST.saturating_sub(begun.elapsed()));
        });
        let [p50, p99] = [50, 99].map(|percent| (at(&quiet, percent), at(&during, percent)));
        println!("{name}: before and during, p50 {p50:?}, p99 {p99:?}");
        // Other tests run beside this one, so the tail is theirs; the benchmark looks at it.
        let (quiet, during) = p50;
        assert!(
            during < quiet * 2 + Duration::from_millis(5),
            "{name}: {quiet:?}, {during:?}"
        );
    }
    replace(folder.path(), &[&good[..], &[0, 3, 1, b'v', 2]].concat());
    let begun = Instant::now();
    while server.get("/frameworks/meta").unwrap().1["digest"] == digest {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_folder_that_is_replaced_is_noticed() {
    let site = Site::with_launcher("#!/bin/sh\n").unwrap();
    let path = |name: &str| site.data.path().join(name);
    let fill = |folder: &str, framework: &str| {
        std::fs::create_dir(path(folder)).unwrap();
        let file = format!("{framework}.wasm");
        let built = root().join("target/plugins").join(&file);
        std::fs::copy(built, path(folder).join(file)).unwrap();
    };
    fill("first", "meta");
    fill("second", "hf");
    fill("third", "meta");
    std::os::unix::fs::symlink(path("first"), path("current")).unwrap();
    let plugins = path("current").display().to_string();
    let link = path("current");
    let (second, third) = (path("second"), path("third"));
    let next_link = path("next");
    let site = site.set("TRAINER_PLUGINS", &plugins);
    let server = site.start().unwrap();
    let serves = |framework: &str| {
        let begun = Instant::now();
        let view = format!("/frameworks/{framework}");
        while server.get(&view).unwrap().0 != 200 {
            assert!(begun.elapsed() < Duration::from_secs(30), "no {framework}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    serves("meta");
    // A symbolic link that is switched, as deployments do.
    std::os::unix::fs::symlink(&second, &next_link).unwrap();
    std::fs::rename(&next_link, &link).unwrap();
    serves("hf");
    // A folder that takes the place of another one.
    std::fs::rename(&second, site.data.path().join("gone")).unwrap();
    std::fs::rename(&third, &second).unwrap();
    serves("meta");
    assert!(
        site.service_log()
            .contains("a framework is no longer served")
    );
}
