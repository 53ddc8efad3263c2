//! How the processes of a job share the work, and what one optimizer step takes in.

use serde_json::{Value, json};

use crate::{Launch, json as json_text};

/// How many ways each kind of parallelism splits the processes.
///
/// The product of data, tensor, pipeline and context sizes is the world size. Experts are spread
/// inside of data, context and tensor groups and multiply nothing (Megatron-core's
/// parallel_state.py, torchtitan's parallel_dims.py).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parallelism {
    pub data: i64,
    pub tensor: i64,
    pub pipeline: i64,
    pub context: i64,
    pub expert: i64,
}

impl Parallelism {
    /// Each process has the whole model: what frameworks do that only split the data.
    pub fn data_only(launch: &Launch) -> Option<Self> {
        Some(Self {
            data: launch.world_size(),
            tensor: 1,
            pipeline: 1,
            context: 1,
            expert: 1,
        })
    }
}

/// The micro steps of an optimizer step: as given, or derived from the global batch.
///
/// For [`crate::Argument::derived`].
pub fn gradient_accumulation(launch: &Launch) -> Option<Value> {
    let derived = global_batch(launch).and_then(|global| {
        let micro = micro_batch(launch)?;
        (global % micro == 0).then_some(global / micro)
    });
    Some(json!(derived.unwrap_or(1).max(1)))
}

/// What a job gives as its global batch.
fn global_batch(launch: &Launch) -> Option<i64> {
    launch.integer("global_batch_size")
}

/// Sequences of one micro step, over all processes.
fn micro_batch(launch: &Launch) -> Option<i64> {
    let data = launch.parallelism?.data;
    Some(launch.integer("batch_size")?.saturating_mul(data))
}

/// What the host shows in a preview, as JSON, where the sizes are known.
pub(crate) fn plan(launch: &Launch) -> Option<String> {
    let Parallelism {
        data,
        tensor,
        pipeline,
        context,
        expert,
    } = launch.parallelism?;
    let world = launch.world_size();
    let batch = launch.integer("batch_size")?;
    let accumulation = launch.integer("gradient_accumulation")?;
    let global = micro_batch(launch)?.saturating_mul(accumulation);
    let tokens = global.saturating_mul(launch.integer("max_seq_len")?);
    Some(json_text::object(
        [
            ("world_size", json!(world)),
            ("data", json!(data)),
            ("tensor", json!(tensor)),
            ("pipeline", json!(pipeline)),
            ("context", json!(context)),
            ("expert", json!(expert)),
            ("batch_size", json!(batch)),
            ("gradient_accumulation", json!(accumulation)),
            ("global_batch_size", json!(global)),
            ("tokens_per_step", json!(tokens)),
        ]
        .into_iter(),
    ))
}
