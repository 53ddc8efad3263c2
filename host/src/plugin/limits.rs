//! The limits of plugins, and the limiter that enforces the memory limits of a call.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::ResourceLimiter;

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;

/// The maximum memory limit of a plugin: the size of a slot in the engine's pool.
pub(super) const MOST_MEMORY_BYTES: usize = 1024 * MIB;

/// The limits of all plugins together, and those that apply equally to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The maximum size of a plugin file. A component that embeds Python has 18 MB.
    pub file_bytes: usize,
    /// Entries of one table.
    pub table_elements: usize,
    /// Native stack of one call.
    pub stack_bytes: usize,
    /// Concurrent calls of all plugins; further calls wait.
    pub concurrent_calls: u32,
    /// How long a call may wait for a permit.
    pub queue: Duration,
    /// Processor time for compiling and testing a plugin. A plugin in Python takes 15 s.
    pub compile_time: Duration,
    /// Memory of the compile process. A plugin in Python takes 0.4 GB.
    pub compile_memory_bytes: usize,
    /// The time limit for pulling a plugin from a registry.
    pub pull_time: Duration,
    /// The default limits of a plugin.
    pub call: CallLimits,
}

/// The limits of one plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLimits {
    /// The time limit of a call. The plugins of this project take 20 us, a plugin in Python 1 ms.
    pub time: Duration,
    /// Linear memory of one call.
    pub memory_bytes: usize,
    /// Data that a call may exchange with the host, in both directions together.
    pub output_bytes: usize,
    /// Concurrent calls; further calls wait.
    pub concurrency: u32,
    /// After this many failures in a row the plugin is taken out of service for a while.
    pub failures: u32,
    /// How long the plugin then stays out of service.
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

/// A memory limit that a plugin exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error(
        "it requested {asked} bytes of memory, but at most {allowed} are allowed (limit memory_mib)"
    )]
    Memory { asked: usize, allowed: usize },
    #[error("it requested a table of {asked} entries, but at most {allowed} are allowed")]
    Table { asked: usize, allowed: usize },
}

/// Limits the memories and tables of a store. wasmtime's own limiter reports to the guest, which
/// then aborts, so that the cause would be lost.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes: usize,
    table_elements: usize,
    /// Total size of all memories of the call, which never shrink.
    pub(super) used_bytes: usize,
    /// Total size of all its tables.
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
