//! Compiles and tests plugins: in this process, or in a child process with its own memory and time
//! limits, so that a malicious file cannot take down the server.
//!
//! The child runs `trainer make-plugin`. It reads its job as one line of JSON from standard input,
//! followed by the plugin's bytes, and writes its verdict to a file. It has no async runtime.

use std::io::{BufRead, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::golden::{self, SelfTests};
use super::limits::{CallLimits, Limits};
use super::{Description, LoadError, Plugin, cache, call::Callable, engine, inspect};
use rustix::process::{Resource, Rlimit, Signal, nice, setrlimit};
use serde::{Deserialize, Serialize};

/// How often a child is polled.
const RECHECK: Duration = Duration::from_millis(5);
/// The wall-clock limit as a multiple of the processor time limit, because the machine may be busy.
const PATIENCE: u32 = 4;
/// The signal for an exceeded processor time limit.
const OUT_OF_TIME: i32 = Signal::XCPU.as_raw();

/// Where plugins are compiled and tried.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In this process, for short-lived commands.
    Here,
    /// In a child process, with this priority.
    Child { program: PathBuf, niceness: i32 },
}

/// The job of a child.
#[derive(Debug, Serialize, Deserialize)]
struct CompileJob {
    limits: Limits,
    call: CallLimits,
    niceness: i32,
    own_tests: SelfTests,
    /// The output file for compiled code.
    compiled: PathBuf,
    /// The output file for the [`Verdict`].
    verdict: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    Made(Description),
    Refused(String),
}

impl Compiler {
    /// Compiles and tests a plugin.
    ///
    /// # Errors
    ///
    /// Why the plugin is invalid, or which limit it exceeded.
    pub(super) fn make(
        &self,
        bytes: &[u8],
        unfinished: &Path,
        limits: &Limits,
        call: CallLimits,
        own_tests: SelfTests,
    ) -> Result<(Vec<u8>, Description), LoadError> {
        let (compiled, verdict) = (
            unfinished.with_extension("compiled"),
            unfinished.with_extension("verdict"),
        );
        let made = match self {
            Self::Here => compile_in_process(bytes, &compiled, limits, call, own_tests),
            Self::Child { program, niceness } => {
                let order = CompileJob {
                    limits: *limits,
                    call,
                    niceness: *niceness,
                    own_tests,
                    compiled: compiled.clone(),
                    verdict: verdict.clone(),
                };
                order.give(program, bytes)
            }
        };
        let made = made.and_then(|description| {
            let compiled = std::fs::read(&compiled).map_err(LoadError::Compiler)?;
            Ok((compiled, description))
        });
        for file in [compiled, verdict] {
            let _ = std::fs::remove_file(file);
        }
        made
    }
}

impl CompileJob {
    fn give(&self, program: &Path, bytes: &[u8]) -> Result<Description, LoadError> {
        let mut child = Command::new(program)
            .arg("make-plugin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            // Reserved but unused memory would count against the limit.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .spawn()
            .map_err(LoadError::Compiler)?;
        let order = serde_json::to_string(self).unwrap_or_default() + "\n";
        let input = child.stdin.take();
        let status = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A child that exits early has written a verdict, or its exit status explains it.
                let mut input = input?;
                input
                    .write_all(order.as_bytes())
                    .and_then(|()| input.write_all(bytes))
                    .ok()
            });
            ended(&mut child, self.limits.compile_time)
        })?;
        let died = |how| LoadError::CompilerDied {
            how,
            allowed: self.limits.compile_memory_bytes,
        };
        if status.signal() == Some(OUT_OF_TIME) {
            let allowed = self.limits.compile_time;
            return Err(LoadError::CompileTime { allowed });
        }
        if !status.success() {
            return Err(died(how(status)));
        }
        let verdict = std::fs::read(&self.verdict).map_err(LoadError::Compiler)?;
        match serde_json::from_slice(&verdict) {
            Ok(Verdict::Made(description)) => Ok(description),
            Ok(Verdict::Refused(why)) => Err(LoadError::Tried(why)),
            Err(error) => Err(died(error.to_string())),
        }
    }
}

/// Waits for a child, and kills it after the wall-clock limit.
fn ended(child: &mut Child, allowed: Duration) -> Result<ExitStatus, LoadError> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(LoadError::Compiler)? {
            return Ok(status);
        }
        if begun.elapsed() > allowed * PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(LoadError::CompileTime { allowed });
        }
        std::thread::sleep(RECHECK);
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("exit code {}", code.unwrap_or_default()),
    }
}

/// The child: compiles the plugin that it reads from standard input.
///
/// # Errors
///
/// If the job cannot be read or the verdict cannot be written.
pub fn run() -> std::io::Result<()> {
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    input.read_line(&mut line)?;
    let order: CompileJob = serde_json::from_str(&line)?;
    let memory = order.limits.compile_memory_bytes as u64;
    let seconds = order.limits.compile_time.as_secs().max(1);
    restrict(Resource::Data, memory, memory)?;
    restrict(Resource::Cpu, seconds, seconds + 1)?;
    restrict(Resource::Core, 0, 0)?;
    nice(order.niceness)?;
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    let CompileJob {
        limits,
        call,
        own_tests,
        ..
    } = order;
    let verdict = match compile_in_process(&bytes, &order.compiled, &limits, call, own_tests) {
        Ok(description) => Verdict::Made(description),
        Err(error) => Verdict::Refused(error_chain(&error)),
    };
    std::fs::write(&order.verdict, serde_json::to_vec(&verdict)?)
}

fn restrict(resource: Resource, reported: u64, most: u64) -> std::io::Result<()> {
    let limit = Rlimit {
        current: Some(reported),
        maximum: Some(most),
    };
    Ok(setrlimit(resource, limit)?)
}

/// An error and its causes in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Compiles a plugin, writes the code to a file, and tests it from there.
fn compile_in_process(
    bytes: &[u8],
    compiled: &Path,
    limits: &Limits,
    call: CallLimits,
    own_tests: SelfTests,
) -> Result<Description, LoadError> {
    let found = inspect::inspect(bytes)?;
    inspect::check(&found)?;
    let component = inspect::component(bytes, &found)?;
    let reported = |error| LoadError::Compile(format!("{error:#}"));
    let code = engine::compiling(limits)
        .and_then(|compiling| compiling.precompile_component(&component))
        .map_err(reported)?;
    std::fs::write(compiled, code).map_err(LoadError::Read)?;
    let plugin = trial(compiled, limits, call)?;
    if own_tests == SelfTests::Run {
        golden::self_test(found.self_tests.as_deref(), &plugin)?;
    }
    Ok(plugin.description())
}

/// Type mismatches surface only on instantiation, so calling `describe` here detects them before
/// the first request.
fn trial(compiled: &Path, limits: &Limits, call: CallLimits) -> Result<Plugin, LoadError> {
    // Only one call runs at a time.
    let alone = Limits {
        concurrent_calls: 1,
        ..*limits
    };
    let engine =
        engine::running(&alone).map_err(|error| LoadError::Engine(format!("{error:#}")))?;
    let component =
        cache::load(&engine, compiled).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    let callable = Callable::new(&engine, &component, call, limits)
        .map_err(|error| LoadError::Link(format!("{error:#}")))?;
    let description = callable.describe().map_err(LoadError::Describe)?;
    Plugin::described(description, callable, String::new(), String::new())
}
