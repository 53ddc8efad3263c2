//! Step 2: framework plugins in WebAssembly. Each call gets a fresh instance.
//!
//! Plugins are untrusted third-party code: they import nothing; every call has limits of time,
//! memory, stack and data; responses are checked; and a trap ends only its own call. Before a
//! plugin serves requests, a separate process compiles and tests it.
//!
//! [`Registry`] holds the plugins that are currently served. [`Plugins`] is an immutable snapshot
//! of it, so that each request uses one consistent set of plugins.

mod breaker;
mod cache;
mod call;
pub mod compiler;
mod engine;
mod error;
mod failure;
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
use crate::metadata;
use crate::packages::Packages;
use crate::plan::{InvalidPlan, Plan, PluginIdentity, check_findings};
use crate::request::JobRequest;
use crate::request::schema::Schema;
use breaker::Breaker;
use cache::Made;
use call::Callable;

/// The maximum time that a call may block a worker thread.
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
    /// The source, for people: `hf.wasm` or `oci://…`.
    pub source: String,
    schema: Arc<Schema>,
    callable: Callable,
    /// Permits for concurrent calls.
    permits: Arc<Semaphore>,
    breaker: Breaker,
    is_slow: AtomicBool,
}

/// The result of `describe()`.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    name: String,
    version: String,
    summary: String,
    args_schema: String,
}

/// How to treat arguments that the plugin does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UnknownArguments {
    /// Forward them with a warning.
    Forward,
    /// Refuse those that look like a typo, with a suggestion, and forward others.
    #[default]
    Suggest,
    /// Refuse them.
    Refuse,
}

impl UnknownArguments {
    /// What the host passes to every plugin beside the job: also the memory of a GPU and the packages of
    /// the image, where they are known. Plugins built before `suggest` read `strict_arguments`.
    fn context(self, gpu_memory_gb: Option<u32>, packages: Option<&Packages>) -> String {
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
        if let Some(packages) = packages {
            context["packages"] = packages.line().into();
        }
        context.to_string()
    }
}

/// The resources that a call used.
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

/// Checks that a text is a valid framework name.
///
/// # Errors
///
/// Why it is not.
pub fn check_name(name: &str) -> Result<(), String> {
    // A name can have megabytes, and this text is logged.
    let shown: String = name.chars().take(64).collect();
    if !metadata::is_dns_label(name) {
        return Err(format!(
            "the name {shown:?} is not a DNS label (a-z, 0-9 and '-')"
        ));
    }
    if name == "reload" {
        let why = "the name \"reload\" is reserved, because /frameworks/reload is an operation; choose \
                   another name";
        return Err(why.to_string());
    }
    // RFC 5890: encoded names start with two characters and two hyphens.
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
    /// If it does not implement the contract, or the result of `describe()` is invalid.
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

    /// The result of its `describe()`.
    fn description(&self) -> Description {
        Description {
            name: self.identity.name.clone(),
            version: self.identity.version.clone(),
            summary: self.summary.clone(),
            args_schema: self.args_schema.to_string(),
        }
    }

    /// Its limits.
    pub fn limits(&self) -> &CallLimits {
        self.callable.limits()
    }

    /// The compiled schema of its `extra_args`.
    pub fn schema(&self) -> Arc<Schema> {
        self.schema.clone()
    }

    /// The remaining time out of service, if any.
    pub fn resting(&self) -> Option<Duration> {
        self.breaker.resting(Instant::now())
    }

    /// The framework, for explanations.
    pub fn framework(&self) -> Framework<'_> {
        Framework {
            name: &self.identity.name,
            version: &self.identity.version,
            summary: &self.summary,
            schema: &self.args_schema,
        }
    }

    /// Plans a job on this thread, which may block for the whole time limit of a call.
    ///
    /// # Errors
    ///
    /// [`PlanError::Refused`] and [`PlanError::Failed`].
    pub fn plan(&self, request: &JobRequest, context: &str) -> Result<Plan, PlanError> {
        self.plan_within(self.limits().time, request, context).0
    }

    /// Plans a job like [`Plugin::plan`], and returns the resources used.
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

    /// Plans a job on this thread if that is quick. A call takes about 30 us, and moving it to
    /// another thread costs as much again. Planning is deterministic, so an aborted call can be
    /// repeated with a longer time limit.
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

    /// A plugin that was slow once is called on a separate thread until it is fast again.
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

/// Whether findings are a valid refusal.
fn refusal(findings: &[Finding]) -> Result<(), InvalidPlan> {
    check_findings(findings)?;
    match findings.is_empty() {
        true => Err(InvalidPlan::new("it refused the request without a reason")),
        false => Ok(()),
    }
}
