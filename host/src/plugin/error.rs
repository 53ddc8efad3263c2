//! What can go wrong with plugins, by who is to blame for it.

use std::path::PathBuf;
use std::time::Duration;

use wasmtime::Trap;

use super::limits::Exceeded;
use crate::finding::Finding;
use crate::plan::{InvalidPlan, PluginIdentity};

/// Why a file is no plugin for this host, or why no plugin can be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
    #[error("{size} bytes are more than the {allowed} allowed (limit file_mib)")]
    Size { size: usize, allowed: usize },
    #[error("not WebAssembly: {0}")]
    NotWebAssembly(String),
    #[error("it imports {first} ({count} imports in all); a plugin imports nothing")]
    Imports { first: String, count: usize },
    #[error("it does not export deepfinery:trainer/framework; build it with the plugin SDK")]
    NoContract,
    #[error("built for contract {built_for}, this host speaks {spoken}")]
    ContractVersion { built_for: String, spoken: String },
    #[error("it cannot be made a component: {0}")]
    NotAComponent(String),
    #[error("it does not compile: {0}")]
    Compile(String),
    #[error("it does not fit the contract: {0}")]
    Link(String),
    #[error("describe failed")]
    Describe(#[source] CallError),
    #[error("it describes itself wrongly: {0}")]
    Description(String),
    #[error("its own test {name:?} fails: {difference}")]
    SelfTest { name: String, difference: String },
    #[error(
        "compiling and trying it took more than {} s of processor time (limit compile_seconds)",
        allowed.as_secs()
    )]
    CompileTime { allowed: Duration },
    #[error(
        "the process that compiles and tries it died ({how}); it may use {allowed} bytes of memory \
         (limit compile_memory_mib)"
    )]
    CompilerDied { how: String, allowed: usize },
    #[error("the process that compiles and tries it cannot be run")]
    Compiler(#[source] std::io::Error),
    /// What the process that compiles and tries plugins says of one.
    #[error("{0}")]
    Tried(String),
    #[error("the name {name} is taken: the framework is served from {holder}")]
    NameTaken { name: String, holder: String },
    #[error("plugins.toml binds framework {name} to {holder}")]
    NameBound { name: String, holder: String },
    #[error("it is framework {found}, plugins.toml expects {expected} of this source")]
    OtherName { found: String, expected: String },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the folder {folder} for compiled plugins cannot be used")]
    Cache {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the folder {folder} for pulled plugins cannot be used")]
    Kept {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the WebAssembly engine cannot be set up: {0}")]
    Engine(String),
}

impl LoadError {
    /// Whether the same bytes would be refused again, whatever the machine does.
    pub(super) fn is_about_the_plugin(&self) -> bool {
        !matches!(
            self,
            Self::Read(_)
                | Self::Source(_)
                | Self::Cache { .. }
                | Self::Kept { .. }
                | Self::Compiler(_)
                | Self::Engine(_)
        )
    }
}

/// Why a plugin's bytes are not those that the operator asks for, or cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{file}: {why}")]
    Settings { file: PathBuf, why: String },
    #[error("its digest is {found}, {expected} is required")]
    Digest { found: String, expected: String },
    #[error("plugins.toml requires a digest of every plugin, and gives none for this one")]
    NoDigest,
    #[error("it has no signature ({0}), one is required")]
    NoSignature(String),
    #[error("its signature is by none of the keys {keys}")]
    Signature { keys: String },
    #[error(
        "its signature is for {found:?}, {expected} is required: where that is a copy of it, say so \
         with signed_as in plugins.toml"
    )]
    SignedAs { found: String, expected: String },
    #[error("the registry gave no plugin: {0}")]
    Registry(String),
}

/// Why a plugin gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("it ran longer than the {} ms allowed (limit time_ms)", allowed.as_millis())]
    Time { allowed: Duration },
    #[error("it used more than the {allowed} bytes of stack allowed")]
    Stack { allowed: usize },
    #[error(transparent)]
    Exceeded(Exceeded),
    #[error("it trapped: {0}")]
    Trap(Trap),
    #[error("its answer cannot be read within {allowed} bytes (limit output_kib): {why}")]
    Answer { allowed: usize, why: String },
    #[error("its answer makes no sense: {0}")]
    Nonsense(#[from] InvalidPlan),
    #[error(
        "the check against its schema took longer than the {} ms allowed (limit time_ms)",
        allowed.as_millis()
    )]
    Schema { allowed: Duration },
    #[error("the call was lost")]
    Lost,
}

impl CallError {
    /// Whether the call ran into a limit, which is for the caller to know too.
    pub fn is_a_limit(&self) -> bool {
        matches!(
            self,
            Self::Time { .. } | Self::Schema { .. } | Self::Stack { .. } | Self::Exceeded(_)
        )
    }

    /// The kind of failure, for metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Time { .. } | Self::Schema { .. } => "time",
            Self::Stack { .. } => "stack",
            Self::Exceeded(_) => "memory",
            Self::Trap(_) | Self::Lost => "trap",
            Self::Answer { .. } | Self::Nonsense(_) => "answer",
        }
    }
}

/// Why there is no plan for a request.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The caller's finding: the plugin refuses the request.
    #[error("the plugin refuses the request")]
    Refused(Vec<Finding>),
    /// The plugin's finding.
    #[error("plugin {} {} ({}) failed", plugin.name, plugin.version, plugin.digest)]
    Failed {
        plugin: Box<PluginIdentity>,
        #[source]
        error: CallError,
    },
    /// The plugin's finding, before this request.
    #[error(
        "the plugin of framework {plugin} failed {failures} times in a row and is out of service \
         for another {} s",
        wait.as_secs() + 1
    )]
    Resting {
        plugin: String,
        failures: u32,
        wait: Duration,
    },
    /// Nobody's finding: too much at once.
    #[error("{allowed} calls of {whose} run already (limit concurrency)")]
    Busy { whose: Scope, allowed: u32 },
}

/// Scope limit of calls at once was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Plugin(String),
    AllPlugins,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plugin(name) => write!(formatter, "plugin {name}"),
            Self::AllPlugins => formatter.write_str("all plugins"),
        }
    }
}

/// Why a framework cannot go back to the version before.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    #[error("framework {0} is not loaded here")]
    NotLoaded(String),
    #[error("framework {0} has no earlier version in this process")]
    NoEarlierVersion(String),
    #[error("the earlier version is framework {0}, and that name is taken now")]
    NameTaken(String),
}
