//! Step 2: framework plugins in WebAssembly, loaded once and called with a fresh instance a job.
//!
//! A plugin is somebody else's program and is treated so: it imports nothing, every call has a
//! limit of time, memory, stack and data, what it answers is checked, and a trap ends nothing but
//! its own call.

mod cache;
mod call;
mod engine;
mod error;
mod inspect;
mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::Engine;

pub use error::{CallError, LoadError, PlanError};
pub use limits::{Exceeded, Limits};

use crate::explain::Framework;
use crate::fault::Fault;
use crate::plan::{NoPlan, Plan, PluginIdentity, check_findings};
use crate::request::schema::Schema;
use crate::request::{ArgumentSchemas, Checked, JobRequest, metadata};
use cache::Cache;
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

/// The loaded plugins. It never changes: a reload builds another one.
pub struct Plugins {
    plugins: BTreeMap<String, Arc<Plugin>>,
    schemas: ArgumentSchemas,
    /// Files that are no plugin for this host, and why.
    refused: Vec<Refused>,
    calls: Semaphore,
    limits: Limits,
    /// What the host tells every plugin beside the job.
    context: String,
}

/// A loaded plugin.
pub struct Plugin {
    pub identity: PluginIdentity,
    pub summary: String,
    /// The JSON Schema of `extra_args`.
    pub args_schema: Value,
    callable: Callable,
    is_slow: AtomicBool,
}

/// A file that is no plugin for this host.
#[derive(Debug)]
pub struct Refused {
    pub file: PathBuf,
    pub error: LoadError,
}

/// What a plugin says of itself.
#[derive(Debug)]
struct Description {
    name: String,
    version: String,
    summary: String,
    args_schema: String,
}

/// Whether arguments that a framework's table does not have are forwarded or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownArguments {
    Forward,
    Refuse,
}

impl Plugins {
    /// Loads every `.wasm` file of a folder. A file that cannot be loaded is told in
    /// [`Plugins::refused`] and keeps no other from being loaded.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, or no engine can be set up.
    pub fn load(
        folder: &Path,
        cache: &Path,
        limits: Limits,
        unknown: UnknownArguments,
    ) -> Result<Self, LoadError> {
        let engine = engine::running(&limits).map_err(|e| LoadError::Engine(format!("{e:#}")))?;
        let cache = Cache::open(cache, &engine)?;
        let strict = unknown == UnknownArguments::Refuse;
        let mut plugins = Self {
            plugins: BTreeMap::new(),
            schemas: ArgumentSchemas::new(),
            refused: Vec::new(),
            calls: Semaphore::new(limits.concurrent_calls as usize),
            limits,
            context: serde_json::json!({ "strict_arguments": strict }).to_string(),
        };
        for file in wasm_files(folder).map_err(LoadError::Read)? {
            match Plugin::load(&file, &engine, &cache, limits).and_then(|p| plugins.add(p)) {
                Ok(()) => {}
                Err(error) => plugins.refused.push(Refused { file, error }),
            }
        }
        Ok(plugins)
    }

    fn add(&mut self, (plugin, schema): (Plugin, Schema)) -> Result<(), LoadError> {
        let name = plugin.identity.name.clone();
        if let Some(first) = self.plugins.get(&name) {
            let digest = first.identity.digest.clone();
            return Err(LoadError::NameTaken { name, digest });
        }
        self.schemas.insert(name.clone(), schema);
        self.plugins.insert(name, Arc::new(plugin));
        Ok(())
    }

    /// The loaded plugins by name.
    pub fn all(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.values().map(Arc::as_ref)
    }

    /// A loaded plugin.
    pub fn get(&self, name: &str) -> Option<&Plugin> {
        self.plugins.get(name).map(Arc::as_ref)
    }

    /// Files that are no plugin for this host.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// The compiled schema of each plugin's `extra_args`.
    pub fn schemas(&self) -> &ArgumentSchemas {
        &self.schemas
    }

    /// Plans a job with the plugin of its framework.
    ///
    /// # Errors
    ///
    /// Who is to blame for there being no plan, see [`PlanError`].
    pub async fn plan(&self, checked: &Checked) -> Result<Plan, PlanError> {
        let request = &checked.request;
        let Some(plugin) = self.plugins.get(&request.framework).cloned() else {
            let detail = format!("framework: {} is not loaded here", request.framework);
            let fault = Fault::new("unknown-framework", "/framework", detail);
            return Err(PlanError::Refused(vec![fault]));
        };
        let limit = self.limits.concurrent_calls;
        let turn = tokio::time::timeout(self.limits.queue, self.calls.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(PlanError::Busy { limit });
        };
        let planned = match plugin.plan_at_once(request, &self.context) {
            Some(planned) => planned,
            None => self.plan_with_patience(plugin, request.clone()).await,
        };
        with_schema_faults(planned, &checked.argument_faults)
    }

    /// Calls a plugin that may take its whole time, off the threads that serve requests.
    async fn plan_with_patience(
        &self,
        plugin: Arc<Plugin>,
        request: Arc<JobRequest>,
    ) -> Result<Plan, PlanError> {
        let identity = Box::new(plugin.identity.clone());
        let context = self.context.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let planned = plugin.plan(&request, &context);
            plugin.remember(begun.elapsed());
            planned
        });
        planned.await.unwrap_or(Err(PlanError::Failed {
            plugin: identity,
            error: CallError::Lost,
        }))
    }
}

/// Adds what the plugin's own schema finds wrong to what the plugin says, where the plugin says
/// nothing about the same place.
fn with_schema_faults(
    planned: Result<Plan, PlanError>,
    schema_faults: &[Fault],
) -> Result<Plan, PlanError> {
    match planned {
        Ok(_) if !schema_faults.is_empty() => Err(PlanError::Refused(schema_faults.to_vec())),
        Err(PlanError::Refused(mut told)) => {
            let places: BTreeSet<String> = told.iter().map(|f| f.pointer.clone()).collect();
            let untold = schema_faults
                .iter()
                .filter(|f| !places.contains(&f.pointer));
            told.extend(untold.cloned());
            Err(PlanError::Refused(told))
        }
        planned => planned,
    }
}

impl Plugin {
    fn load(
        file: &Path,
        engine: &Engine,
        cache: &Cache,
        limits: Limits,
    ) -> Result<(Self, Schema), LoadError> {
        let size = std::fs::metadata(file).map_err(LoadError::Read)?.len();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > limits.file_bytes {
            let allowed = limits.file_bytes;
            return Err(LoadError::Size { size, allowed });
        }
        let bytes = std::fs::read(file).map_err(LoadError::Read)?;
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let component = cache.get(&digest, || inspect::component(&bytes), engine, &limits)?;
        // A type that does not fit shows only when an instance is made, so `describe` is the trial
        // that keeps it from the first request.
        let callable = Callable::new(engine, &component, limits)
            .map_err(|error| LoadError::Link(format!("{error:#}")))?;
        let description = callable.describe().map_err(LoadError::Describe)?;
        Self::described(description, digest, callable)
    }

    fn described(
        description: Description,
        digest: String,
        callable: Callable,
    ) -> Result<(Self, Schema), LoadError> {
        let Description {
            name,
            version,
            summary,
            args_schema,
        } = description;
        let wrong = |what: String| LoadError::Description(what);
        if !metadata::is_dns_label(&name) {
            return Err(wrong(format!("the name {name:?} is not a DNS label")));
        }
        let one_line = |text: &str| text.len() <= 1024 && !text.contains(char::is_control);
        if version.is_empty() || !one_line(&version) || !one_line(&summary) {
            return Err(wrong("version and summary are one line each".to_string()));
        }
        let args_schema: Value = serde_json::from_str(&args_schema)
            .map_err(|error| wrong(format!("args-schema is not JSON: {error}")))?;
        let schema = Schema::compile(&args_schema)
            .map_err(|error| wrong(format!("args-schema is not a JSON Schema: {error}")))?;
        let identity = PluginIdentity {
            name,
            version,
            digest: format!("sha256:{digest}"),
        };
        let plugin = Self {
            identity,
            summary,
            args_schema,
            callable,
            is_slow: AtomicBool::new(false),
        };
        Ok((plugin, schema))
    }

    /// Plans a job on this thread, which may take the whole time that a call is allowed.
    ///
    /// # Errors
    ///
    /// [`PlanError::Refused`] and [`PlanError::Failed`].
    pub fn plan(&self, request: &JobRequest, context: &str) -> Result<Plan, PlanError> {
        self.plan_within(self.callable.limits().time, request, context)
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

    /// Plans a job on this thread if that takes only a moment. A call takes some 30 us, and handing
    /// it to another thread costs as much again. A plan follows from the job alone, so a call that
    /// was given up can be made again with more time.
    fn plan_at_once(&self, request: &JobRequest, context: &str) -> Option<Result<Plan, PlanError>> {
        if self.is_slow.load(Ordering::Relaxed) {
            return None;
        }
        match self.plan_within(MOMENT, request, context) {
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
    ) -> Result<Plan, PlanError> {
        let failed = |error| PlanError::Failed {
            plugin: Box::new(self.identity.clone()),
            error,
        };
        let answer = self.callable.plan(request, context, time).map_err(failed)?;
        match answer {
            Ok(proposal) => Plan::check(proposal, request, self.identity.clone())
                .map_err(|nonsense| failed(nonsense.into())),
            Err(faults) => match refusal(&faults) {
                Ok(()) => Err(PlanError::Refused(faults)),
                Err(nonsense) => Err(failed(nonsense.into())),
            },
        }
    }
}

/// Whether findings are a refusal that a person can do something with.
fn refusal(faults: &[Fault]) -> Result<(), NoPlan> {
    check_findings(faults)?;
    match faults.is_empty() {
        true => Err(NoPlan::new("it refuses the request and does not say why")),
        false => Ok(()),
    }
}

fn wasm_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
