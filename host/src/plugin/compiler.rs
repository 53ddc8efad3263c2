//! Compiling a plugin and trying it: in this process, or in a child of the same program with its
//! own limits of memory and time, so that a hostile file takes no server down.
//!
//! The child runs `trainer make-plugin`. It reads its order in one line of JSON from standard
//! input, then the plugin's bytes, and leaves its verdict in a file. It has no async runtime.

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

/// How often a child is looked after.
const RECHECK: Duration = Duration::from_millis(5);
/// So many times the processor time that compiling may take, it may take in all: a machine has other
/// work too.
const PATIENCE: u32 = 4;
/// The signal that ends a process whose processor time is up.
const OUT_OF_TIME: i32 = Signal::XCPU.as_raw();

/// Where plugins are compiled and tried.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In this process, for commands that end soon.
    Here,
    /// In a child of this program, which steps back so far for other processes.
    Child { program: PathBuf, niceness: i32 },
}

/// What a child is to make.
#[derive(Debug, Serialize, Deserialize)]
struct CompileJob {
    limits: Limits,
    call: CallLimits,
    niceness: i32,
    own_tests: SelfTests,
    /// Where to leave the compiled code.
    compiled: PathBuf,
    /// Where to leave the [`Verdict`].
    verdict: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    Made(Description),
    Refused(String),
}

impl Compiler {
    /// Compiles a plugin and tries it.
    ///
    /// # Errors
    ///
    /// Why it is none, or which limit it ran into.
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
            // Memory that is reserved and not used would count.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .spawn()
            .map_err(LoadError::Compiler)?;
        let order = serde_json::to_string(self).unwrap_or_default() + "\n";
        let input = child.stdin.take();
        let status = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A child that ends early says why, or is told by its status.
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

/// Waits for a child, and kills it when it takes far too long.
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

/// The child: makes one plugin as standard input says.
///
/// # Errors
///
/// When the order cannot be read or the verdict not be written.
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

fn restrict(resource: Resource, told: u64, most: u64) -> std::io::Result<()> {
    let limit = Rlimit {
        current: Some(told),
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

/// Compiles a plugin, leaves the code in a file, and tries it from there.
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
    let told = |error| LoadError::Compile(format!("{error:#}"));
    let code = engine::compiling(limits)
        .and_then(|compiling| compiling.precompile_component(&component))
        .map_err(told)?;
    std::fs::write(compiled, code).map_err(LoadError::Read)?;
    let plugin = trial(compiled, limits, call)?;
    if own_tests == SelfTests::Run {
        golden::self_test(found.self_tests.as_deref(), &plugin)?;
    }
    Ok(plugin.description())
}

/// A type that does not fit shows only when an instance is made, so `describe` is the trial that
/// keeps it from the first request.
fn trial(compiled: &Path, limits: &Limits, call: CallLimits) -> Result<Plugin, LoadError> {
    // One call at a time needs one slot.
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
