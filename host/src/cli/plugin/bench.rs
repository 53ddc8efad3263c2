//! `trainer plugin bench`: measures calls of a plugin and compares them with its limits and an
//! earlier run.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{PluginFile, checked, empty_request, print, read_request};
use crate::parser::whole;
use crate::plugin::Plugin;
use crate::plugin::golden::SelfTests;

/// The arguments of `trainer plugin bench`.
#[derive(Debug, Args)]
pub struct BenchSettings {
    #[command(flatten)]
    plugin: PluginFile,
    /// File with the request. Default: a request without arguments.
    #[arg(long)]
    job: Option<PathBuf>,
    /// Number of calls.
    #[arg(long, default_value_t = 1000, value_parser = whole::<u32>(10..=999_999))]
    calls: u32,
    /// Save the result to this file.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Compare with a saved result.
    #[arg(long)]
    against: Option<PathBuf>,
}

/// The measurements.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    p50_us: f64,
    p99_us: f64,
    memory_mib: f64,
    /// Loading the plugin from the file, with its compiled code cached.
    ready_us: f64,
}

/// Measures.
pub(super) fn bench(settings: &BenchSettings) -> anyhow::Result<()> {
    let loader = settings.plugin.loader(SelfTests::Ignored)?;
    let file = &settings.plugin.file;
    let plugin = loader.file(file)?;
    let begun = Instant::now();
    loader.file(file)?;
    let ready = begun.elapsed();
    let request = match &settings.job {
        Some(file) => read_request(file)?,
        None => empty_request(&plugin.identity.name),
    };
    let checked = checked(&plugin, request)?;
    let mut times: Vec<Duration> = Vec::new();
    let mut memory = 0;
    for _ in 0..settings.calls {
        let (planned, usage) = plugin.plan_measured(&checked.request, "{}");
        if let Err(error @ crate::plugin::PlanError::Failed { .. }) = planned {
            return Err(error.into());
        }
        times.push(usage.time);
        memory = memory.max(usage.memory_bytes);
    }
    times.sort();
    let at = |part: usize| micros(times[(times.len() - 1) * part / 100]);
    let measured = Measured {
        p50_us: at(50),
        p99_us: at(99),
        memory_mib: memory as f64 / (1024.0 * 1024.0),
        ready_us: micros(ready),
    };
    let before = settings.against.as_ref().map(|file| {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a benchmark result", file.display()))
    });
    print(&table(&measured, before.transpose()?.as_ref(), &plugin))?;
    if let Some(file) = &settings.save {
        std::fs::write(file, serde_json::to_string_pretty(&measured)? + "\n")?;
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn table(now: &Measured, before: Option<&Measured>, plugin: &Plugin) -> String {
    let limits = plugin.limits();
    let time = format!("{} us", limits.time.as_micros());
    let memory = format!("{} MiB", limits.memory_bytes / (1024 * 1024));
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["", "measured", "limit", "before"]);
    let mut row = |what: &str, unit: &str, limit: &str, of: fn(&Measured) -> f64| {
        let before = before.map(|before| {
            let change = of(now) / of(before) * 100.0 - 100.0;
            format!("{:.1} {unit} ({change:+.0} %)", of(before))
        });
        let measured = format!("{:.1} {unit}", of(now));
        table.add_row([what, &measured, limit, &before.unwrap_or_default()]);
    };
    row("call p50", "us", &time, |m| m.p50_us);
    row("call p99", "us", &time, |m| m.p99_us);
    row("memory", "MiB", &memory, |m| m.memory_mib);
    row("ready", "us", "", |m| m.ready_us);
    table.trim_fmt() + "\n"
}
