//! The engine that runs plugins, the one that compiles them, and the clock that stops them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::failure::MAX_FRAMES;
use super::limits::{Limits, MOST_MEMORY_BYTES};

/// The interval between epochs, which is the precision of deadlines.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Memory of an ended call that stays mapped for the next one. Without it page faults make calls
/// on two threads slower than on one; with it, and with `pagemap_scan`, they scale.
const RESIDENT_BYTES: usize = 2 * 1024 * 1024;

/// The maximum number of core instances, memories and tables of a component. A component in Python
/// has tens of instances.
const MOST_INSTANCES: u32 = 64;
const MOST_MEMORIES: u32 = 4;
const MOST_TABLES: u32 = 8;

/// The engine that runs plugins. It cannot compile; it runs code from the cache.
pub(super) fn running(limits: &Limits) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config.enable_compiler(false);
    let engine = Engine::new(&config)?;
    start_clock(&engine)?;
    Ok(engine)
}

/// Creates an engine for compiling. Drop it afterwards: wasmtime 48 keeps the compiler's memory
/// until then.
pub(super) fn compiling(limits: &Limits) -> wasmtime::Result<Engine> {
    Engine::new(&config(limits))
}

/// Identifies the engine that compiled code. wasmtime itself only checks its major version, so code
/// from before a compiler fix would stay in use.
pub(super) fn compatibility(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn config(limits: &Limits) -> Config {
    let calls = limits.concurrent_calls;
    let mut pool = PoolingAllocationConfig::new();
    // A component in Rust has one core instance and one memory. Other toolchains create several, so
    // the pool must hold the maximum for every concurrent call.
    pool.total_component_instances(calls)
        .total_core_instances(calls * MOST_INSTANCES)
        .max_core_instances_per_component(MOST_INSTANCES)
        .total_memories(calls * MOST_MEMORIES)
        .max_memories_per_component(MOST_MEMORIES)
        .total_tables(calls * MOST_TABLES)
        .max_tables_per_component(MOST_TABLES)
        .max_tables_per_module(MOST_TABLES)
        .max_component_instance_size(8 * 1024 * 1024)
        .max_core_instance_size(8 * 1024 * 1024)
        .table_elements(limits.table_elements)
        .max_memory_size(MOST_MEMORY_BYTES)
        .linear_memory_keep_resident(RESIDENT_BYTES)
        .table_keep_resident(RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    // Memories have wasmtime's default layout: 4 GiB of address space each and guard pages around, so
    // that the code has no bounds checks (measured: calls an eighth quicker). The price is that a
    // guest that grows its memory costs mprotect calls, whose TLB shoot-downs keep two threads from
    // being faster than one; so plugins are linked with the memory that a call needs
    // (`.cargo/config.toml`).
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        // After a trap, the memory of a plugin contains the reason for its author (`failure`).
        .wasm_backtrace_max_frames(NonZeroUsize::new(MAX_FRAMES))
        .coredump_on_trap(true)
        .max_wasm_stack(limits.stack_bytes)
        .epoch_interruption(true)
        .concurrency_support(false);
    config
}

/// An operating system thread, because a busy runtime would tick late. It ends with the engine.
fn start_clock(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("plugin-clock".to_string())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                engine.increment_epoch();
            }
        })?;
    Ok(())
}
