//! What a plugin may use, and the limiter that holds its memory to it.

use std::time::Duration;

use wasmtime::ResourceLimiter;

const MIB: usize = 1024 * 1024;

/// What one plugin, and all plugins together, may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest plugin file. A component that embeds Python is 18 MB.
    pub file_bytes: usize,
    /// Longest call. The plugins of this project take 20 us, one in Python 1 ms.
    pub time: Duration,
    /// Linear memory of one call.
    pub memory_bytes: usize,
    /// Entries of one table.
    pub table_elements: usize,
    /// Native stack of one call.
    pub stack_bytes: usize,
    /// Data that one call may pass between plugin and host, in and out together.
    pub exchanged_bytes: usize,
    /// Calls that run at once; more wait.
    pub concurrent_calls: u32,
    /// How long a call may wait for its turn.
    pub queue: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 64 * MIB,
            time: Duration::from_secs(1),
            memory_bytes: 64 * MIB,
            table_elements: 100_000,
            stack_bytes: 512 * 1024,
            exchanged_bytes: 4 * MIB,
            concurrent_calls: 16,
            queue: Duration::from_secs(2),
        }
    }
}

/// A limit that a plugin ran into while it grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error("it asked for {asked} bytes of memory, {allowed} are allowed")]
    Memory { asked: usize, allowed: usize },
    #[error("it asked for a table of {asked} entries, {allowed} are allowed")]
    Table { asked: usize, allowed: usize },
}

/// Holds the growth of one store's memories and tables to the limits. wasmtime's own limiter tells
/// the guest, which then aborts, so that nobody could say why.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes: usize,
    table_elements: usize,
}

impl Limiter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.memory_bytes {
            return Err(wasmtime::Error::new(Exceeded::Memory {
                asked: desired,
                allowed: self.memory_bytes,
            }));
        }
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.table_elements {
            return Err(wasmtime::Error::new(Exceeded::Table {
                asked: desired,
                allowed: self.table_elements,
            }));
        }
        Ok(true)
    }
}
