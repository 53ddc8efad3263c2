//! What plugins may use, and the limiter that holds a call's memory to it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::ResourceLimiter;

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;

/// The most memory that a plugin can be given: what a slot of the engine's pool holds.
pub(super) const MOST_MEMORY_BYTES: usize = 1024 * MIB;

/// What all plugins of a host may use together, and each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest plugin file. A component that embeds Python is 18 MB.
    pub file_bytes: usize,
    /// Entries of one table.
    pub table_elements: usize,
    /// Native stack of one call.
    pub stack_bytes: usize,
    /// Calls of all plugins that run at once; more wait.
    pub concurrent_calls: u32,
    /// How long a call may wait for its turn.
    pub queue: Duration,
    /// Processor time that compiling and trying one plugin may take. One in Python takes 15 s.
    pub compile_time: Duration,
    /// Memory of the process that does it. One in Python takes 0.4 GB.
    pub compile_memory_bytes: usize,
    /// How long pulling one plugin from a registry may take.
    pub pull_time: Duration,
    /// What a plugin may use that `plugins.toml` gives nothing else.
    pub call: CallLimits,
}

/// What one plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLimits {
    /// Longest call. The plugins of this project take 20 us, one in Python 1 ms.
    pub time: Duration,
    /// Linear memory of one call.
    pub memory_bytes: usize,
    /// Data that one call may pass between plugin and host, in and out together.
    pub output_bytes: usize,
    /// Calls that run at once; more wait.
    pub concurrency: u32,
    /// After so many failed calls in a row the plugin is out of service for a while.
    pub failures: u32,
    /// How long it then is.
    pub rest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 64 * MIB,
            table_elements: 100_000,
            stack_bytes: 512 * KIB,
            concurrent_calls: 16,
            queue: Duration::from_secs(2),
            compile_time: Duration::from_secs(60),
            compile_memory_bytes: 1024 * MIB,
            pull_time: Duration::from_secs(120),
            call: CallLimits::default(),
        }
    }
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(1),
            memory_bytes: 64 * MIB,
            output_bytes: 4 * MIB,
            concurrency: 8,
            failures: 5,
            rest: Duration::from_secs(30),
        }
    }
}

/// A limit that a plugin ran into while it grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error(
        "it requested {asked} bytes of memory, but at most {allowed} are allowed (limit memory_mib)"
    )]
    Memory { asked: usize, allowed: usize },
    #[error("it requested a table of {asked} entries, but at most {allowed} are allowed")]
    Table { asked: usize, allowed: usize },
}

/// Holds the growth of one store's memories and tables to the limits. wasmtime's own limiter tells
/// the guest, which then aborts, so that nobody could say why.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes: usize,
    table_elements: usize,
    /// Of all memories of the call, which never shrink.
    pub(super) used_bytes: usize,
    /// Of all its tables.
    used_elements: usize,
}

impl Limiter {
    pub(super) fn new(call: &CallLimits, table_elements: usize) -> Self {
        Self {
            memory_bytes: call.memory_bytes,
            table_elements,
            used_bytes: 0,
            used_elements: 0,
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let asked = self.used_bytes.saturating_add(desired - current);
        if asked > self.memory_bytes {
            let allowed = self.memory_bytes;
            return Err(wasmtime::Error::new(Exceeded::Memory { asked, allowed }));
        }
        self.used_bytes = asked;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let asked = self.used_elements.saturating_add(desired - current);
        if asked > self.table_elements {
            let allowed = self.table_elements;
            return Err(wasmtime::Error::new(Exceeded::Table { asked, allowed }));
        }
        self.used_elements = asked;
        Ok(true)
    }
}
