//! Measures what the project promises, in one run, and writes docs/performance.md.
//!
//! Machines differ and are noisy, so what counts is mostly a ratio of two numbers of this run.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use e2e::{Server, Site, root};
use serde_json::{Value, json};
use trainer_host::plugin::{Limits, Plugins, UnknownArguments};
use trainer_host::request::{self, JobRequest, RequestPolicy};
use trainer_plugin::Job;

/// The service's own allocator, so that calls cost here what they cost there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Clients that ask at the same time.
const CONNECTIONS: usize = 4;
/// Turns of each side of a ratio, one after the other.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_millis(1000);
const CALLS: usize = 20_000;
const LAUNCHES: usize = 20;

/// In place of torchrun: notes when it started.
const LAUNCHER: &str = "#!/bin/sh\ndate +%s%N > \"$RUN_ID.started\"\n";

/// One promise: what was measured and whether it is kept.
struct Row {
    what: &'static str,
    measured: String,
    bar: &'static str,
    kept: bool,
}

fn main() -> Result<()> {
    let rows = [
        throughput()?,
        plugin_calls()?,
        vec![scaling()?],
        start()?,
        vec![launch()?],
    ];
    let mut page = String::from(PAGE);
    for Row {
        what,
        measured,
        bar,
        kept,
    } in rows.iter().flatten()
    {
        let verdict = if *kept { "pass" } else { "**fail**" };
        writeln!(page, "| {what} | {measured} | {bar} | {verdict} |")?;
    }
    std::fs::write(root().join("docs/performance.md"), &page)?;
    std::io::stdout().write_all(page.as_bytes())?;
    Ok(())
}

const PAGE: &str = "# Performance

`make bench` writes this page with the latest results. The client shares the two cores of the \
machine with the service, which lowers the measured rates. Ratios compare values of one run.

| benchmark | measured | target | result |
| --- | --- | --- | --- |
";

fn body(run_id: &str) -> Value {
    json!({
        "framework": "meta",
        "model_id": "llama-debug",
        "run_id": run_id,
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "extra_args": {"max_steps": 6000, "lr": 2e-5},
    })
}

fn site() -> Result<Site> {
    Ok(Site::with_launcher(LAUNCHER)?.set("TRAINER_LOG", "warn"))
}

fn throughput() -> Result<Vec<Row>> {
    let site = site()?;
    let server = site.start()?;
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string();
    let body = body("run-1").to_string();
    let preview = format!(
        "POST /train/preview HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (mut health_rates, mut preview_rates) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        health_rates.push(rate(&server, &health)?);
        preview_rates.push(rate(&server, &preview)?);
    }
    let (health, preview) = (median(&mut health_rates), median(&mut preview_rates));
    let ratio = preview / health;
    Ok(vec![Row {
        what: "throughput of `POST /train/preview` relative to `GET /healthz`",
        measured: format!("{ratio:.2} ({preview:.0} versus {health:.0} per second)"),
        bar: "at least 0.2",
        kept: ratio >= 0.2,
    }])
}

/// Answers a second.
fn rate(server: &Server, request: &str) -> Result<f64> {
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    let answers: Result<usize> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|_| scope.spawn(|| ask(&server.address, request, &stop)))
            .collect();
        std::thread::sleep(TURN);
        stop.store(true, Ordering::Relaxed);
        let answers = clients
            .into_iter()
            .map(|client| client.join().unwrap_or(Ok(0)));
        answers.sum()
    });
    Ok(answers? as f64 / begun.elapsed().as_secs_f64())
}

/// One client on one connection: counts the responses until `stop` is set.
fn ask(address: &str, request: &str, stop: &AtomicBool) -> Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes())?;
        let mut length = 0;
        let mut expected = None;
        while expected.is_none_or(|expected| length < expected) {
            let read = stream.read(&mut buffer[length..])?;
            anyhow::ensure!(read > 0, "the service closed the connection");
            length += read;
            expected = expected.or_else(|| size(&buffer[..length]));
        }
        anyhow::ensure!(buffer.starts_with(b"HTTP/1.1 200"), "not a 200");
        answers += 1;
    }
    Ok(answers)
}

/// How many bytes an answer has in all, once its head is there.
fn size(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head + 4 + length.parse::<usize>().ok()?)
}

fn plugins() -> Result<Arc<Plugins>> {
    let cache = tempfile::tempdir()?;
    let folder = root().join("target/plugins");
    Ok(Plugins::load(
        &folder,
        cache.path(),
        Limits::default(),
        UnknownArguments::default(),
    )?)
}

fn checked(plugins: &Plugins, body: Value) -> Result<Arc<JobRequest>> {
    let checked = request::check(body, plugins.schemas(), &RequestPolicy::default());
    let checked = checked.map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    Ok(checked.request)
}

/// A launch with 40 of meta's arguments.
fn many_arguments() -> Value {
    json!({
        "activation_checkpoint": "selective", "activation_offloading": true,
        "async_checkpoint": "async", "backend": "fsdp", "batch_size": 8, "compile": true,
        "context_parallel": 1, "cpu_offload": true, "dataloader_workers": 4,
        "dataset_text_field": "text", "dp_replicate": 2, "dp_shard": 16, "eval_steps": 500,
        "expert_parallel": 1, "float8": false, "global_batch_size": 512,
        "gradient_accumulation": 2, "initial_load_path": "/models/llama", "logging_steps": 10,
        "lora_alpha": 32, "lora_dropout": 0.1, "lora_rank": 16,
        "lora_target_modules": ["q_proj", "v_proj"], "lr": 0.0001, "lr_scheduler": "cosine",
        "max_grad_norm": 1.0, "max_seq_len": 8192, "max_steps": 6000, "optimizer_in_bwd": false,
        "packing": true, "peft_method": "lora", "pipeline_parallel": 1, "precision": "bf16",
        "save_hf": false, "save_steps": 500, "save_total_limit": 3, "seed": 1,
        "tensor_parallel": 1, "tokenizer_name": "meta-llama/Llama-3.1-8B", "warmup_steps": 100,
    })
}

fn plugin_calls() -> Result<Vec<Row>> {
    let mut few = body("run-1");
    let mut many = body("run-1");
    many["extra_args"] = many_arguments();
    for body in [&mut few, &mut many] {
        body["num_nodes"] = json!(4);
        body["gpus_per_node"] = json!(8);
    }
    let rows = [
        (
            few,
            "plugin call with a fresh instance and 2 arguments, median (same code compiled natively)",
            "at most 25 us",
            25.0,
        ),
        (
            many,
            "plugin call with a fresh instance and 40 arguments, median (same code compiled natively)",
            "at most 60 us",
            60.0,
        ),
    ];
    let plugins = plugins()?;
    let plugin = plugins.get("meta").context("the plugin meta")?;
    let mut measured = Vec::new();
    for (body, what, bar, most) in rows {
        let request = checked(&plugins, body)?;
        let (mut calls, mut native) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            let begun = Instant::now();
            plugin.plan(&request, "{}")?;
            calls.push(begun.elapsed().as_secs_f64() * 1e6);
            let begun = Instant::now();
            let plan = meta::FRAMEWORK.plan(native_job(&request));
            native.push(begun.elapsed().as_secs_f64() * 1e6);
            plan.map_err(|findings| anyhow::anyhow!("{findings:?}"))?;
        }
        let (time, native) = (median(&mut calls), median(&mut native));
        measured.push(Row {
            what,
            measured: format!("{time:.1} us ({native:.1} us)"),
            bar,
            kept: time <= most,
        });
    }
    Ok(measured)
}

/// The job as the host hands it to a plugin.
fn native_job(request: &JobRequest) -> Job {
    Job {
        framework: request.framework.clone(),
        model_id: request.model_id.clone(),
        run_id: request.run_id.clone(),
        checkpoint_base_uri: request.checkpoint_base_uri.as_str().to_string(),
        dataset_uri: request.dataset_uri.as_str().to_string(),
        image: request.image.clone(),
        num_nodes: request.num_nodes,
        gpus_per_node: request.gpus_per_node,
        cpus_per_node: request.cpus_per_node,
        memory_per_node_gb: request.memory_per_node_gb,
        config_path: request.config_path.clone(),
        resume_from_checkpoint: request.resume_from_checkpoint,
        environment: Vec::new(),
        extra_args: Value::Object(request.extra_args.clone()).to_string(),
        context: "{}".to_string(),
    }
}

fn scaling() -> Result<Row> {
    let plugins = plugins()?;
    let request = checked(&plugins, body("run-1"))?;
    let plugin = plugins.get("meta").context("the plugin meta")?;
    let calls = |threads: usize| {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..CALLS).all(|_| plugin.plan(&request, "{}").is_ok()));
            }
        });
        (threads * CALLS) as f64 / begun.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..TURNS).map(|_| calls(2) / calls(1)).collect();
    let ratio = median(&mut ratios);
    Ok(Row {
        what: "plugin call throughput of two threads relative to one",
        measured: format!("{ratio:.2}"),
        bar: "at least 1.3",
        kept: ratio >= 1.3,
    })
}

fn start() -> Result<Vec<Row>> {
    let site = site()?;
    drop(site.start()?);
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let begun = Instant::now();
        let server = site.start()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(300));
        sizes.push(server.resident_memory()? as f64 / f64::from(1 << 20));
    }
    let (time, size) = (median(&mut times), median(&mut sizes));
    Ok(vec![
        Row {
            what: "resident memory when idle, three plugins",
            measured: format!("{size:.0} MB"),
            bar: "at most 50 MB",
            kept: size <= 50.0,
        },
        Row {
            what: "process start to first response, warm cache, median",
            measured: format!("{time:.0} ms"),
            bar: "at most 150 ms",
            kept: time <= 150.0,
        },
    ])
}

fn launch() -> Result<Row> {
    let site = site()?;
    let server = site.start()?;
    let mut times = Vec::new();
    for number in 0..LAUNCHES {
        let run_id = format!("run-{number}");
        let posted = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let job = server.submit(&body(&run_id))?;
        server.wait_for(&job, "succeeded")?;
        let started = std::fs::read_to_string(site.data.path().join(format!("{run_id}.started")))?;
        let started = Duration::from_nanos(started.trim().parse()?);
        times.push((started.saturating_sub(posted)).as_secs_f64() * 1e3);
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    let time = median(&mut times);
    Ok(Row {
        what: "submission to start of the job's first process, median (maximum)",
        measured: format!("{time:.0} ms ({slowest:.0} ms)"),
        bar: "at most 200 ms",
        kept: slowest <= 200.0,
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
