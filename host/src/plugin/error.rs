//! Errors of plugins, grouped by who caused them.

use std::path::PathBuf;
use std::time::Duration;

use wasmtime::Trap;

use super::failure::Words;
use super::limits::Exceeded;
use crate::finding::Finding;
use crate::plan::{InvalidPlan, PluginIdentity};

/// Why a plugin was refused, or why no plugin can be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the file")]
    Read(#[source] std::io::Error),
    #[error("{size} bytes, but at most {allowed} are allowed (limit file_mib)")]
    Size { size: usize, allowed: usize },
    #[error("not WebAssembly: {0}")]
    NotWebAssembly(String),
    #[error("it imports {first} ({count} imports in total); plugins must not import anything")]
    Imports { first: String, count: usize },
    #[error("it does not export deepfinery:trainer/framework; build it with the plugin SDK")]
    NoContract,
    #[error("built for contract {built_for}, but this host supports {spoken}")]
    ContractVersion { built_for: String, spoken: String },
    #[error("not a valid WebAssembly component: {0}")]
    NotAComponent(String),
    #[error("compilation failed: {0}")]
    Compile(String),
    #[error("it does not implement the contract: {0}")]
    Link(String),
    #[error("describe() failed")]
    Describe(#[source] CallError),
    #[error("the result of describe() is invalid: {0}")]
    Description(String),
    #[error("self-test {name:?} failed: {difference}")]
    SelfTest { name: String, difference: String },
    #[error(
        "compilation and self-tests took more than {} s of processor time (limit compile_seconds)",
        allowed.as_secs()
    )]
    CompileTime { allowed: Duration },
    #[error(
        "the compile process died ({how}); it may use at most {allowed} bytes of memory (limit \
         compile_memory_mib)"
    )]
    CompilerDied { how: String, allowed: usize },
    #[error("cannot run the compile process")]
    Compiler(#[source] std::io::Error),
    /// The verdict of the compile process.
    #[error("{0}")]
    Tried(String),
    #[error("framework {name} is already served from {holder}")]
    NameTaken { name: String, holder: String },
    #[error("plugins.toml assigns framework {name} to {holder}")]
    NameBound { name: String, holder: String },
    #[error("it provides framework {found}, but plugins.toml expects {expected} from this source")]
    OtherName { found: String, expected: String },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot use the folder {folder} for compiled plugins")]
    Cache {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use the folder {folder} for pulled plugins")]
    Kept {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
}

impl LoadError {
    /// Whether the same bytes would be refused again regardless of the machine.
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

/// Why a plugin's bytes cannot be fetched or verified.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{file}: {why}")]
    Settings { file: PathBuf, why: String },
    #[error("its digest is {found}, but {expected} is required")]
    Digest { found: String, expected: String },
    #[error("plugins.toml requires digests, but has none for this plugin")]
    NoDigest,
    #[error("it is not signed ({0}), but a signature is required")]
    NoSignature(String),
    #[error("its signature does not match any of the trusted keys ({keys})")]
    Signature { keys: String },
    #[error(
        "its signature is for {found:?}, but {expected} is required; if this is a copy, set \
         signed_as in plugins.toml"
    )]
    SignedAs { found: String, expected: String },
    #[error("cannot pull the plugin: {0}")]
    Registry(String),
}

/// Why a call of a plugin failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("it ran longer than the {} ms allowed (limit time_ms)", allowed.as_millis())]
    Time { allowed: Duration },
    #[error("it used more than the {allowed} bytes of stack allowed")]
    Stack { allowed: usize },
    #[error(transparent)]
    Exceeded(Exceeded),
    #[error("it trapped: {trap}{}", after(words.as_ref()))]
    Trap { trap: Trap, words: Option<Words> },
    #[error("it failed{words}")]
    Raised { words: Words },
    #[error("its response exceeds {allowed} bytes (limit output_kib): {why}")]
    Answer { allowed: usize, why: String },
    #[error("its response is invalid: {0}")]
    Nonsense(#[from] InvalidPlan),
    #[error(
        "validation against its schema took longer than the {} ms allowed (limit time_ms)",
        allowed.as_millis()
    )]
    Schema { allowed: Duration },
    #[error("the call was lost")]
    Lost,
}

/// The words of a plugin, to follow those of the host.
fn after(words: Option<&Words>) -> String {
    words.map(Words::to_string).unwrap_or_default()
}

impl CallError {
    /// Whether the call exceeded a limit, which the caller may know.
    pub fn is_a_limit(&self) -> bool {
        matches!(
            self,
            Self::Time { .. } | Self::Schema { .. } | Self::Stack { .. } | Self::Exceeded(_)
        )
    }

    /// Whether the call cost about as much as a call may.
    pub(super) fn is_costly(&self) -> bool {
        matches!(
            self,
            Self::Time { .. } | Self::Schema { .. } | Self::Exceeded(_)
        )
    }

    /// The kind of failure, for metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Time { .. } | Self::Schema { .. } => "time",
            Self::Stack { .. } => "stack",
            Self::Exceeded(_) => "memory",
            Self::Trap { .. } | Self::Raised { .. } | Self::Lost => "trap",
            Self::Answer { .. } | Self::Nonsense(_) => "answer",
        }
    }
}

/// Why planning a request failed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The caller's fault: the plugin refused the request.
    #[error("the plugin refused the request")]
    Refused(Vec<Finding>),
    /// The plugin is at fault.
    #[error("plugin {} {} ({}) failed", plugin.name, plugin.version, plugin.digest)]
    Failed {
        plugin: Box<PluginIdentity>,
        #[source]
        error: CallError,
    },
    /// The plugin is at fault, before this request.
    #[error(
        "the plugin of framework {plugin} exceeded its limits with {failures} different requests \
         in a row and is out of service for another {} s",
        wait.as_secs() + 1
    )]
    Resting {
        plugin: String,
        failures: u32,
        wait: Duration,
    },
    /// The plugin's fault with these arguments, before this request.
    #[error(
        "the plugin of framework {plugin} exceeded a limit with these arguments, and another call \
         with them is running"
    )]
    Suspect { plugin: String },
    /// Nobody's fault: too much at once.
    #[error("{whose} already running {allowed} calls (limit concurrency)")]
    Busy { whose: Scope, allowed: u32 },
}

/// The scope of the concurrency limit that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Plugin(String),
    AllPlugins,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plugin(name) => write!(formatter, "plugin {name} is"),
            Self::AllPlugins => formatter.write_str("the plugins together are"),
        }
    }
}

/// Why a framework cannot be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    #[error("unknown framework {0}")]
    NotLoaded(String),
    #[error("framework {0} has no earlier version since the service started")]
    NoEarlierVersion(String),
    #[error("the earlier version provides framework {0}, which another plugin now serves")]
    NameTaken(String),
}
