//! Measures what the plugin platform promises, in one run, and writes docs/plugin-performance.md.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{Server, Site, binary, root};
use serde_json::{Value, json};
use trainer_host::plugin::golden::SelfTests;
use trainer_host::plugin::{Compiler, Limits, Loader, LoaderSettings, Plugin, UnknownArguments};
use trainer_host::request::{self, JobRequest, RequestPolicy};

/// The service's own allocator, so that calls cost here what they cost there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MANY: usize = 100;

struct Row {
    what: String,
    measured: String,
    bar: String,
    kept: bool,
}

impl Row {
    fn at_most(what: &str, measured: f64, most: f64, unit: &str) -> Self {
        Self {
            what: what.to_string(),
            measured: format!("{measured:.2} {unit}"),
            bar: format!("at most {most} {unit}"),
            kept: measured <= most,
        }
    }
}

/// Calls are measured in rounds, and the quietest round counts: other users of the cores slow everything
/// down by half for seconds.
const ROUNDS: usize = 10;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(300);

const PAGE: &str = "# Plugin performance

`make bench-plugins` writes this page with the latest results. Calls are measured in ten rounds, and the fastest
round counts.

| benchmark | measured | target | result |
| --- | --- | --- | --- |
";

fn main() -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut rows = calls(data.path())?;
    rows.extend(many()?);
    rows.push(spinning()?);
    let mut page = String::from(PAGE);
    for Row {
        what,
        measured,
        bar,
        kept,
    } in &rows
    {
        let verdict = if *kept { "pass" } else { "**fail**" };
        writeln!(page, "| {what} | {measured} | {bar} | {verdict} |")?;
    }
    std::fs::write(root().join("docs/plugin-performance.md"), &page)?;
    std::io::stdout().write_all(page.as_bytes())?;
    Ok(())
}

fn loader(folder: &Path, data: &Path) -> Result<Loader> {
    Ok(Loader::open(LoaderSettings {
        folder: folder.to_path_buf(),
        data: data.to_path_buf(),
        limits: Limits::default(),
        unknown: UnknownArguments::default(),
        compiler: Compiler::Child {
            program: binary(),
            niceness: 0,
        },
        own_tests: SelfTests::Run,
    })?)
}

fn body(framework: &str) -> Value {
    json!({
        "framework": framework,
        "model_id": "llama-debug",
        "run_id": "run-1",
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "extra_args": {"max_steps": 6000, "lr": 2e-5},
    })
}

fn checked(plugin: &Plugin) -> Result<Arc<JobRequest>> {
    let name = &plugin.identity.name;
    let schemas = [(name.clone(), plugin.schema())].into();
    let checked = request::check(body(name), &schemas, &RequestPolicy::default());
    let checked = checked.map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    Ok(checked.request)
}

/// The plugin of a template, built in a folder of its own.
fn built(language: &str, folder: &Path) -> Result<PathBuf> {
    for arguments in [
        vec!["plugin", "new", language, "--language", language],
        vec!["plugin", "build", language],
    ] {
        let output = Command::new(binary().canonicalize()?)
            .args(arguments)
            .current_dir(folder)
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "{error}");
    }
    Ok(folder.join(format!("{language}/build/{language}.wasm")))
}

/// Calls with fresh instances and 2 arguments, and how soon a cached plugin is ready.
fn calls(data: &Path) -> Result<Vec<Row>> {
    let work = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for (what, file, most_us, calls) in [
        (
            "hf, in Rust",
            root().join("target/plugins/hf.wasm"),
            20.0,
            20_000,
        ),
        (
            "meta, in Rust",
            root().join("target/plugins/meta.wasm"),
            20.0,
            20_000,
        ),
        (
            "nemo, in Rust",
            root().join("target/plugins/nemo.wasm"),
            20.0,
            20_000,
        ),
        (
            "Python template",
            built("python", work.path())?,
            2000.0,
            500,
        ),
        (
            "JavaScript template",
            built("javascript", work.path())?,
            1000.0,
            1000,
        ),
    ] {
        let loader = loader(file.parent().context("a folder")?, data)?;
        let plugin = loader.file(&file)?;
        let request = checked(&plugin)?;
        let mut quietest = f64::INFINITY;
        for _ in 0..ROUNDS {
            let mut times = Vec::new();
            for _ in 0..calls / ROUNDS {
                let (planned, usage) = plugin.plan_measured(&request, "{}");
                planned?;
                times.push(usage.time.as_secs_f64() * 1e6);
            }
            quietest = quietest.min(median(&mut times));
            std::thread::sleep(BETWEEN_ROUNDS);
        }
        let what = format!("{what}: call with a fresh instance and 2 arguments, median");
        rows.push(Row::at_most(&what, quietest, most_us, "us"));
    }
    let file = root().join("target/plugins/meta.wasm");
    let loader = loader(&root().join("target/plugins"), data)?;
    let mut times = Vec::new();
    for _ in 0..51 {
        let begun = Instant::now();
        drop(std::fs::read(&file)?);
        let read = begun.elapsed();
        let begun = Instant::now();
        loader.file(&file)?;
        times.push(begun.elapsed().saturating_sub(read).as_secs_f64() * 1e3);
    }
    rows.push(Row::at_most(
        "time to load a cached plugin after its file is read, median",
        median(&mut times),
        1.0,
        "ms",
    ));
    Ok(rows)
}

/// A hundred copies of one plugin under names of their own, cached.
fn many() -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let bytes = std::fs::read(root().join("target/plugins/meta.wasm"))?;
    let name = b"meta0.1.0";
    let at = bytes.windows(name.len()).position(|w| w == name);
    let at = at.context("the plugin's name in its file")?;
    for number in 0..MANY {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(format!("m{number:03}").as_bytes());
        std::fs::write(folder.path().join(format!("{number}.wasm")), bytes)?;
    }
    let site = Site::with_launcher("#!/bin/sh\n")?
        .set("TRAINER_PLUGINS", &folder.path().display().to_string())
        .set("TRAINER_LOG", "warn");
    // The first start compiles, in this process so that it may take its time.
    let first = loader(folder.path(), site.data.path())?;
    drop(trainer_host::plugin::Registry::open(first)?);
    let begun = Instant::now();
    let server = site.start()?;
    let ready = begun.elapsed().as_secs_f64();
    let (_, all) = server.get("/frameworks")?;
    let count = all["frameworks"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(count == MANY, "{count} are served: {}", all["refused"]);
    Ok(vec![
        Row::at_most(
            "100 cached plugins: process start to first response",
            ready,
            1.0,
            "s",
        ),
        Row::at_most(
            "100 plugins: resident memory",
            resident_mb(&server)?,
            150.0,
            "MB",
        ),
    ])
}

fn resident_mb(server: &Server) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .context("VmRSS")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib / 1024.0)
}

/// Requests for one plugin while another spins on every call, over the same without.
fn spinning() -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let hostile = root().join("target/wasm32-unknown-unknown/plugin/hostile.wasm");
    std::fs::copy(hostile, folder.path().join("hostile.wasm"))?;
    let meta = root().join("target/plugins/meta.wasm");
    std::fs::copy(meta, folder.path().join("meta.wasm"))?;
    let site = Site::with_launcher("#!/bin/sh\n")?
        .set("TRAINER_PLUGINS", &folder.path().display().to_string())
        .set("TRAINER_LOG", "off");
    let server = site.start()?;
    let quiet = p99(&server, Duration::from_secs(10))?;
    let stop = AtomicBool::new(false);
    let mut spin = body("hostile");
    spin["extra_args"] = json!({ "attack": "loop" });
    let busy = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = server.post("/train/preview", &spin);
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let busy = p99(&server, Duration::from_secs(30));
        stop.store(true, Ordering::Relaxed);
        busy
    })?;
    let what = "p99 of a plugin's requests while another plugin spins on every call, relative to the p99 without it";
    let mut row = Row::at_most(what, busy / quiet, 2.0, "times");
    row.measured += &format!(" ({busy:.2} ms versus {quiet:.2} ms)");
    Ok(row)
}

/// In milliseconds.
fn p99(server: &Server, time: Duration) -> Result<f64> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let asked = Instant::now();
        let (status, problem) = server.post("/train/preview", &body("meta"))?;
        anyhow::ensure!(status == 200, "{problem}");
        times.push(asked.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(1));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[(times.len() - 1) * 99 / 100])
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
