//! What can go wrong with plugins, by who is to blame for it.

use std::path::PathBuf;
use std::time::Duration;

use wasmtime::Trap;

use super::limits::Exceeded;
use crate::fault::Fault;
use crate::plan::{NoPlan, PluginIdentity};

/// Why a file is no plugin for this host, or why no plugin can be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
    #[error("{size} bytes are more than the {allowed} allowed")]
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
    #[error("the name {name} is taken by the plugin with digest {digest}")]
    NameTaken { name: String, digest: String },
    #[error("the folder {folder} for compiled plugins cannot be used")]
    Cache {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the WebAssembly engine cannot be set up: {0}")]
    Engine(String),
}

/// Why a plugin gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("it ran longer than the {} ms allowed", allowed.as_millis())]
    Time { allowed: Duration },
    #[error("it used more than the {allowed} bytes of stack allowed")]
    Stack { allowed: usize },
    #[error(transparent)]
    Exceeded(Exceeded),
    #[error("it trapped: {0}")]
    Trap(Trap),
    #[error("its answer cannot be read: {0}")]
    Answer(String),
    #[error("its answer makes no sense: {0}")]
    Nonsense(#[from] NoPlan),
    #[error("the call was lost")]
    Lost,
}

/// Why there is no plan for a request.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The caller's fault: the plugin refuses the request.
    #[error("the plugin refuses the request")]
    Refused(Vec<Fault>),
    /// The plugin's fault.
    #[error("plugin {} {} ({}) failed", plugin.name, plugin.version, plugin.digest)]
    Failed {
        plugin: Box<PluginIdentity>,
        #[source]
        error: CallError,
    },
    /// Nobody's fault: too much at once.
    #[error("{limit} plugin calls run already")]
    Busy { limit: u32 },
}
