//! An immutable snapshot of the served plugins and the refused sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use metrics::{counter, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{Instrument, Span, debug, info_span, warn};

use super::breaker::{Arguments, NotNow};
use super::compiler::Compiler;
use super::golden::SelfTests;
use super::limits::Limits;
use super::loader::{Loader, LoaderSettings};
use super::{CallError, LoadError, PlanError, Plugin, Registry, Scope, UnknownArguments, failure};
use crate::finding::{Code, Finding};
use crate::measure;
use crate::plan::{Plan, PluginIdentity};
use crate::request::{ArgumentSchemas, Checked, JobRequest};
use crate::scheduling::lower_priority;

/// The loaded plugins. Immutable: a reload creates a new set.
pub struct Plugins {
    plugins: BTreeMap<String, Arc<Plugin>>,
    schemas: ArgumentSchemas,
    refused: Vec<Refused>,
    pulling: Vec<String>,
    calls: Arc<Semaphore>,
    limits: Limits,
    unknown: UnknownArguments,
    /// What plugins get beside a job of which neither GPUs nor packages are known.
    context: Arc<str>,
}

/// A source whose plugin was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// `hf.wasm`, `oci://…`, or `plugins.toml` if that cannot be read.
    pub source: String,
    pub error: Arc<LoadError>,
    /// The earlier version that is served instead, if there is one.
    pub serving: Option<String>,
}

impl Refused {
    /// The reason, in one line, without the words of the plugin. They are for its author, in the log.
    pub fn why(&self) -> String {
        failure::without_words(super::error_chain(&*self.error))
    }
}

impl Plugins {
    /// Loads all plugins of a folder in this process; `data` is the folder for compiled code.
    /// Plugins that cannot be loaded are listed in [`Plugins::refused`] and do not affect others.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or the engine cannot be set up.
    pub fn load(
        folder: &Path,
        data: &Path,
        limits: Limits,
        unknown: UnknownArguments,
    ) -> Result<Arc<Self>, LoadError> {
        let loader = Loader::open(LoaderSettings {
            folder: folder.to_path_buf(),
            data: data.to_path_buf(),
            limits,
            unknown,
            compiler: Compiler::Here,
            own_tests: SelfTests::Run,
        })?;
        Ok(Registry::open(loader)?.current())
    }

    /// Plugins with distinct names.
    pub(super) fn new(
        plugins: impl Iterator<Item = Arc<Plugin>>,
        refused: Vec<Refused>,
        pulling: Vec<String>,
        loader: &Loader,
    ) -> Self {
        let named = |plugin: Arc<Plugin>| (plugin.identity.name.clone(), plugin);
        let plugins: BTreeMap<String, Arc<Plugin>> = plugins.map(named).collect();
        let schema = |(name, plugin): (&String, &Arc<Plugin>)| (name.clone(), plugin.schema());
        Self {
            schemas: plugins.iter().map(schema).collect(),
            plugins,
            refused,
            pulling,
            calls: loader.calls(),
            limits: loader.limits(),
            unknown: loader.unknown(),
            context: loader.unknown().context(None, None).into(),
        }
    }

    /// The loaded plugins by name.
    pub fn all(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.values().map(Arc::as_ref)
    }

    /// A loaded plugin.
    pub fn get(&self, name: &str) -> Option<&Plugin> {
        self.plugins.get(name).map(Arc::as_ref)
    }

    /// The refused sources.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Sources whose registry has not responded yet.
    pub fn pulling(&self) -> &[String] {
        &self.pulling
    }

    /// The compiled schema of each plugin's `extra_args`.
    pub fn schemas(&self) -> &ArgumentSchemas {
        &self.schemas
    }

    /// Plans a job with the plugin of its framework.
    ///
    /// # Errors
    ///
    /// Why planning failed, see [`PlanError`].
    pub async fn plan(&self, checked: &Checked) -> Result<Plan, PlanError> {
        let request = &checked.request;
        let Some(plugin) = self.plugins.get(&request.framework) else {
            let detail = format!("framework: unknown framework {}", request.framework);
            let finding = Finding::new(Code::UnknownFramework, "/framework", detail);
            return Err(PlanError::Refused(vec![finding]));
        };
        let whose = Scope::Plugin(plugin.identity.name.clone());
        let of_plugin = plugin.limits().concurrency;
        let of_all = self.limits.concurrent_calls;
        let permits = [
            self.permit(&plugin.permits, whose, of_plugin).await?,
            self.permit(&self.calls, Scope::AllPlugins, of_all).await?,
        ];
        let schema = match &checked.argument_faults {
            Some(faults) => BySchema::Checked(faults.clone()),
            None => BySchema::ToCheck,
        };
        plugin.admit(request, &schema)?;
        let context = self.context(request);
        let span = plugin.span();
        if let BySchema::Checked(faults) = &schema {
            let begun = Instant::now();
            let planned = span.in_scope(|| plugin.try_plan_inline(request, &context));
            if let Some(planned) = planned {
                return plugin.settled(request, begun, planned, faults);
            }
        }
        let planned = self.plan_on_own_thread(plugin, (request.clone(), context), permits, schema);
        planned.instrument(span).await
    }

    fn context(&self, request: &JobRequest) -> Arc<str> {
        match (request.gpu_memory_gb(), request.packages.as_deref()) {
            (None, None) => self.context.clone(),
            (gpu_memory_gb, packages) => self.unknown.context(gpu_memory_gb, packages).into(),
        }
    }

    async fn permit(
        &self,
        permits: &Arc<Semaphore>,
        whose: Scope,
        allowed: u32,
    ) -> Result<OwnedSemaphorePermit, PlanError> {
        match tokio::time::timeout(self.limits.queue, permits.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(PlanError::Busy { whose, allowed }),
        }
    }

    /// Calls a slow plugin on a separate low-priority thread, so that it does not slow down other
    /// requests. The call keeps its permits even if the client has disconnected.
    ///
    /// The check against the plugin's schema cannot be interrupted. The response is sent at the
    /// deadline, but the thread keeps its permits until the check has finished. The cost of the
    /// schema, which was checked at load time, limits how long that takes.
    async fn plan_on_own_thread(
        &self,
        plugin: &Arc<Plugin>,
        (request, context): (Arc<JobRequest>, Arc<str>),
        permits: [OwnedSemaphorePermit; 2],
        schema: BySchema,
    ) -> Result<Plan, PlanError> {
        let lost = || plugin.failed(CallError::Lost);
        let called = plugin.clone();
        let (sender, receiver) = oneshot::channel();
        std::thread::Builder::new()
            .name("slow-plugin".to_string())
            .spawn(move || {
                lower_priority();
                let begun = Instant::now();
                let (planned, faults) = match schema {
                    BySchema::Checked(faults) => (called.plan_slowly(&request, &context), faults),
                    BySchema::ToCheck => called.plan_by_schema(&request, &context),
                };
                let _ = sender.send(called.settled(&request, begun, planned, &faults));
                drop(permits);
            })
            .map_err(|_| lost())?;
        let allowed = plugin.limits().time;
        match tokio::time::timeout(PATIENCE * allowed, receiver).await {
            Ok(receiver) => receiver.unwrap_or_else(|_| Err(lost())),
            Err(_) => Err(plugin.failed(CallError::Schema { allowed })),
        }
    }
}

/// The deadline as a multiple of the call limit: one for the call, one for the schema check, and
/// one for a busy machine.
const PATIENCE: u32 = 3;

/// What the plugin's schema says to `extra_args`.
#[derive(Clone, Debug)]
enum BySchema {
    Checked(Vec<Finding>),
    /// The check may take long.
    ToCheck,
}

impl Plugin {
    /// Plans a request, and remembers whether that took long.
    fn plan_slowly(&self, request: &JobRequest, context: &str) -> Result<Plan, PlanError> {
        let begun = Instant::now();
        let planned = self.plan(request, context);
        self.remember(begun.elapsed());
        planned
    }

    /// Checks the arguments of a request against the schema, however long that takes, and plans it.
    /// Where they do not fit, the words of the plugin are better than those here.
    fn plan_by_schema(
        &self,
        request: &JobRequest,
        context: &str,
    ) -> (Result<Plan, PlanError>, Vec<Finding>) {
        let begun = Instant::now();
        let accepted = self.schema.accepts(&request.extra_args.clone().into());
        let allowed = self.limits().time;
        if begun.elapsed() > allowed {
            let error = CallError::Schema { allowed };
            return (Err(self.failed(error)), Vec::new());
        }
        let planned = self.plan_slowly(request, context);
        if accepted || matches!(planned, Err(PlanError::Refused(_))) {
            return (planned, Vec::new());
        }
        let detail = format!(
            "extra_args: not valid for framework {}; trainer explain {} lists the arguments",
            self.identity.name, self.identity.name
        );
        (
            planned,
            vec![Finding::new(Code::Schema, "/extra_args", detail)],
        )
    }

    fn failed(&self, error: CallError) -> PlanError {
        PlanError::Failed {
            plugin: Box::new(self.identity.clone()),
            error,
        }
    }

    fn admit(&self, request: &JobRequest, schema: &BySchema) -> Result<(), PlanError> {
        let arguments = Arguments::of(&request.extra_args);
        let admitted = self.breaker.admit(arguments, Instant::now());
        let plugin = || self.identity.name.clone();
        admitted.map_err(|not_now| match (not_now, schema) {
            (_, BySchema::Checked(faults)) if !faults.is_empty() => {
                PlanError::Refused(faults.clone())
            }
            (NotNow::Resting(wait), _) => PlanError::Resting {
                plugin: plugin(),
                failures: self.limits().failures,
                wait,
            },
            (NotNow::Suspect, _) => PlanError::Suspect { plugin: plugin() },
        })
    }

    fn span(&self) -> Span {
        let PluginIdentity {
            name,
            version,
            digest,
        } = &self.identity;
        info_span!("plugin", name, version, digest)
    }

    /// What a call came to, with what the schema finds wrong with the arguments.
    ///
    /// A plugin may rely on its schema: a call that fails with other arguments is not its fault.
    fn settled(
        &self,
        request: &JobRequest,
        begun: Instant,
        planned: Result<Plan, PlanError>,
        schema_faults: &[Finding],
    ) -> Result<Plan, PlanError> {
        match planned {
            Err(PlanError::Failed { error, .. }) if !schema_faults.is_empty() => {
                let arguments = Arguments::of(&request.extra_args);
                match error.is_costly() {
                    true => self.breaker.misused(arguments, Instant::now()),
                    false => self.breaker.crashed(arguments),
                }
                self.measured(begun, "refused");
                debug!(plugin = self.identity.name, %error, "a call with wrong arguments failed");
                Err(PlanError::Refused(schema_faults.to_vec()))
            }
            planned => with_schema_faults(self.noted(request, begun, planned), schema_faults),
        }
    }

    fn measured(&self, begun: Instant, outcome: &'static str) {
        let name = self.identity.name.clone();
        histogram!(measure::PLUGIN_CALL_DURATION.name, "plugin" => name, "outcome" => outcome)
            .record(begun.elapsed());
    }

    /// Counts what a call came to, and how long that took.
    fn noted(
        &self,
        request: &JobRequest,
        begun: Instant,
        planned: Result<Plan, PlanError>,
    ) -> Result<Plan, PlanError> {
        let outcome = match &planned {
            Ok(_) => "planned",
            Err(PlanError::Refused(_)) => "refused",
            Err(_) => "failed",
        };
        if let Ok(Plan { log: Some(log), .. }) = &planned {
            let name = &self.identity.name;
            debug!(plugin = name, log = ?log, "a plugin printed");
        }
        self.measured(begun, outcome);
        let Err(PlanError::Failed { error, .. }) = &planned else {
            self.breaker.succeeded(Arguments::of(&request.extra_args));
            return planned;
        };
        let name = self.identity.name.clone();
        counter!(measure::PLUGIN_FAILURES.name, "plugin" => name, "kind" => error.kind())
            .increment(1);
        self.note_failure(request, error);
        planned
    }

    fn note_failure(&self, request: &JobRequest, error: &CallError) {
        let arguments = Arguments::of(&request.extra_args);
        if !error.is_costly() {
            return self.breaker.crashed(arguments);
        }
        if let Some(rest) = self.breaker.exhausted(arguments, Instant::now()) {
            warn!(
                plugin = self.identity.name,
                digest = self.identity.digest,
                failures = self.limits().failures,
                seconds = rest.as_secs(),
                "a plugin exceeded its limits repeatedly and is temporarily out of service"
            );
        }
    }
}

/// Adds the findings of the plugin's schema about places that the plugin itself has not reported.
fn with_schema_faults(
    planned: Result<Plan, PlanError>,
    schema_faults: &[Finding],
) -> Result<Plan, PlanError> {
    match planned {
        Ok(_) if !schema_faults.is_empty() => Err(PlanError::Refused(schema_faults.to_vec())),
        Err(PlanError::Refused(mut receiver)) => {
            let places: BTreeSet<String> = receiver.iter().map(|f| f.pointer.clone()).collect();
            // A finding about an argument also covers its items.
            let is_told = |pointer: &str| {
                let ends = pointer.match_indices('/').skip(1).map(|(at, _)| at);
                let mut ends = ends.chain([pointer.len()]);
                ends.any(|end| places.contains(&pointer[..end]))
            };
            let untold = schema_faults.iter().filter(|f| !is_told(&f.pointer));
            receiver.extend(untold.cloned());
            Err(PlanError::Refused(receiver))
        }
        planned => planned,
    }
}
