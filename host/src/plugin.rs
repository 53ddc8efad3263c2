//! Step 2: framework plugins in WebAssembly, each called with a fresh instance a job.
//!
//! A plugin is somebody else's program and is treated so: it imports nothing, every call has a
//! limit of time, memory, stack and data, what it answers is checked, and a trap ends nothing but
//! its own call. It is compiled and tried in a process of its own before anything is served by it.
//!
//! [`Registry`] holds what is served now. [`Plugins`] is one state of it, which never changes, so
//! a request that took one is answered by one version of everything.

mod breaker;
mod cache;
mod call;
pub mod compiler;
mod engine;
mod error;
pub mod files;
pub mod golden;
pub mod inspect;
mod limits;
mod loader;
mod registry;
mod served;
pub mod settings;
mod slots;
pub mod source;
pub mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;
use wasmtime::Engine;

pub use compiler::{Compiler, error_chain};
pub use error::{CallError, LoadError, PlanError, RollbackError, Scope, SourceError};
pub use limits::{CallLimits, Exceeded, Limits};
pub use loader::{Loader, LoaderSettings, Reload};
pub use registry::Registry;
pub use served::{Plugins, Refused};

use crate::explain::Framework;
use crate::finding::Finding;
use crate::plan::{InvalidPlan, Plan, PluginIdentity, check_findings};
use crate::request::schema::Schema;
use crate::request::{JobRequest, metadata};
use breaker::Breaker;
use cache::Made;
use call::Callable;

/// The longest that a call may keep a thread that serves requests.
const MOMENT: Duration = engine::TICK;

/// The contract's types, from `wit/`.
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// A loaded plugin.
pub struct Plugin {
    pub identity: PluginIdentity,
    pub summary: String,
    /// The JSON Schema of `extra_args`.
    pub args_schema: Value,
    /// Where it comes from, as a person knows it: `hf.wasm` or `oci://…`.
    pub source: String,
    schema: Arc<Schema>,
    callable: Callable,
    /// Calls that may be made now.
    permits: Arc<Semaphore>,
    breaker: Breaker,
    is_slow: AtomicBool,
}

/// What a plugin says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    name: String,
    version: String,
    summary: String,
    args_schema: String,
}

/// What becomes of arguments that the plugin does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UnknownArguments {
    /// They are forwarded with a warning.
    Forward,
    /// One that is nearly a known name is refused with that name; others are forwarded.
    #[default]
    Suggest,
    /// They are refused.
    Refuse,
}

impl UnknownArguments {
    /// What the host passes to every plugin beside the job, and the memory of a GPU where the job's
    /// profile has it. Plugins built before `suggest` read `strict_arguments`.
    fn context(self, gpu_memory_gb: Option<u32>) -> String {
        let (unknown, strict) = match self {
            Self::Forward => ("forward", false),
            Self::Suggest => ("suggest", false),
            Self::Refuse => ("refuse", true),
        };
        let mut context = serde_json::json!({
            "strict_arguments": strict,
            "unknown_arguments": unknown,
        });
        if let Some(gib) = gpu_memory_gb {
            context["gpu_memory_gb"] = gib.into();
        }
        context.to_string()
    }
}

/// What a call of a plugin took.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub time: Duration,
    pub memory_bytes: usize,
}

impl Description {
    fn check(&self) -> Result<(), LoadError> {
        let wrong = |what: String| Err(LoadError::Description(what));
        check_name(&self.name).map_err(LoadError::Description)?;
        let one_line = |text: &str| text.len() <= 1024 && !text.contains(char::is_control);
        if self.version.is_empty() || !one_line(&self.version) || !one_line(&self.summary) {
            return wrong("version and summary must be a single line each".to_string());
        }
        Ok(())
    }
}

/// Checks that a text can be a framework's name.
///
/// # Errors
///
/// Why it cannot.
pub fn check_name(name: &str) -> Result<(), String> {
    // A name can be megabytes, and this text goes into a log.
    let shown: String = name.chars().take(64).collect();
    if !metadata::is_dns_label(name) {
        return Err(format!(
            "the name {shown:?} is not a DNS label (a-z, 0-9 and '-')"
        ));
    }
    // RFC 5890: the prefix of names that stand for others is two characters and two hyphens.
    match name.get(2..4) == Some("--") {
        true => Err(format!(
            "the name {shown:?} is an encoded international name (xn--), which could be mistaken \
             for another name"
        )),
        false => Ok(()),
    }
}

impl Plugin {
    /// Makes a compiled plugin callable.
    ///
    /// # Errors
    ///
    /// When it does not fit the contract, or describes itself wrongly.
    fn new(
        made: Made,
        identity: (String, String),
        engine: &Engine,
        call: CallLimits,
        host: &Limits,
    ) -> Result<Self, LoadError> {
        let callable = Callable::new(engine, &made.component, call, host)
            .map_err(|error| LoadError::Link(format!("{error:#}")))?;
        let (source, digest) = identity;
        Self::described(made.description, callable, source, digest)
    }

    fn described(
        description: Description,
        callable: Callable,
        source: String,
        digest: String,
    ) -> Result<Self, LoadError> {
        description.check()?;
        let wrong = |what: String| LoadError::Description(what);
        let Description {
            name,
            version,
            summary,
            args_schema,
        } = description;
        let args_schema: Value = serde_json::from_str(&args_schema)
            .map_err(|error| wrong(format!("args-schema is not valid JSON: {error}")))?;
        let schema = Schema::compile(&args_schema)
            .map_err(|error| wrong(format!("args-schema is not a valid JSON Schema: {error}")))?;
        let call = *callable.limits();
        Ok(Self {
            identity: PluginIdentity {
                name,
                version,
                digest: format!("sha256:{digest}"),
            },
            summary,
            args_schema,
            source,
            schema: Arc::new(schema),
            permits: Arc::new(Semaphore::new(call.concurrency as usize)),
            breaker: Breaker::new(call.failures, call.rest),
            callable,
            is_slow: AtomicBool::new(false),
        })
    }

    /// What it said of itself.
    fn description(&self) -> Description {
        Description {
            name: self.identity.name.clone(),
            version: self.identity.version.clone(),
            summary: self.summary.clone(),
            args_schema: self.args_schema.to_string(),
        }
    }

    /// What it may use.
    pub fn limits(&self) -> &CallLimits {
        self.callable.limits()
    }

    /// The compiled schema of its `extra_args`.
    pub fn schema(&self) -> Arc<Schema> {
        self.schema.clone()
    }

    /// How long it is still out of service, if it is.
    pub fn resting(&self) -> Option<Duration> {
        self.breaker.resting(Instant::now())
    }

    /// The framework, to be explained.
    pub fn framework(&self) -> Framework<'_> {
        Framework {
            name: &self.identity.name,
            version: &self.identity.version,
            summary: &self.summary,
            schema: &self.args_schema,
        }
    }

    /// Plans a job on this thread, which may take the whole time that a call is allowed.
    ///
    /// # Errors
    ///
    /// [`PlanError::Refused`] and [`PlanError::Failed`].
    pub fn plan(&self, request: &JobRequest, context: &str) -> Result<Plan, PlanError> {
        self.plan_within(self.limits().time, request, context).0
    }

    /// Plans a job as [`Plugin::plan`] does, and says what that took.
    pub fn plan_measured(
        &self,
        request: &JobRequest,
        context: &str,
    ) -> (Result<Plan, PlanError>, Usage) {
        let begun = Instant::now();
        let (planned, memory_bytes) = self.plan_within(self.limits().time, request, context);
        let time = begun.elapsed();
        (planned, Usage { time, memory_bytes })
    }

    /// Plans a job on this thread if that takes only a moment. A call takes some 30 us, and handing
    /// it to another thread costs as much again. A plan follows from the job alone, so a call that
    /// was given up can be made again with more time.
    fn try_plan_inline(
        &self,
        request: &JobRequest,
        context: &str,
    ) -> Option<Result<Plan, PlanError>> {
        if self.is_slow.load(Ordering::Relaxed) {
            return None;
        }
        match self.plan_within(MOMENT, request, context).0 {
            Err(PlanError::Failed {
                error: CallError::Time { .. },
                ..
            }) => {
                self.is_slow.store(true, Ordering::Relaxed);
                None
            }
            planned => Some(planned),
        }
    }

    /// A plugin that took long once is called on a thread of its own until it is quick again.
    fn remember(&self, time: Duration) {
        self.is_slow.store(time >= MOMENT, Ordering::Relaxed);
    }

    fn plan_within(
        &self,
        time: Duration,
        request: &JobRequest,
        context: &str,
    ) -> (Result<Plan, PlanError>, usize) {
        let failed = |error| PlanError::Failed {
            plugin: Box::new(self.identity.clone()),
            error,
        };
        let answered = match self.callable.plan(request, context, time) {
            Ok(answered) => answered,
            Err(error) => return (Err(failed(error)), 0),
        };
        let planned = match answered.answer {
            Ok(proposal) => Plan::check(proposal, request, self.identity.clone())
                .map_err(|nonsense| failed(nonsense.into())),
            Err(findings) => match refusal(&findings) {
                Ok(()) => Err(PlanError::Refused(findings)),
                Err(nonsense) => Err(failed(nonsense.into())),
            },
        };
        (planned, answered.memory_bytes)
    }
}

/// Whether findings are a refusal that a person can do something with.
fn refusal(findings: &[Finding]) -> Result<(), InvalidPlan> {
    check_findings(findings)?;
    match findings.is_empty() {
        true => Err(InvalidPlan::new("it refused the request without a reason")),
        false => Ok(()),
    }
}
