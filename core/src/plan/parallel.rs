//! How the processes of a job share the work, and what each of them holds.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the processes of a job share the work, and how much data one optimizer step consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParallelPlan {
    pub world_size: u64,
    /// The degrees of data, tensor, pipeline and context parallelism. Their product is the world
    /// size.
    pub data: u64,
    pub tensor: u64,
    pub pipeline: u64,
    pub context: u64,
    /// The degree of expert parallelism, within the others.
    pub expert: u64,
    /// Sequences per process and micro-step.
    pub batch_size: u64,
    /// Micro-steps per optimizer step.
    pub gradient_accumulation: u64,
    /// Sequences per optimizer step.
    pub global_batch_size: u64,
    pub tokens_per_step: u64,
}

/// An estimate of what one process holds, on its GPU where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryPlan {
    /// Parameters of the whole model.
    pub parameters: u64,
    pub weights_bytes: u64,
    pub gradients_bytes: u64,
    pub optimizer_bytes: u64,
    pub activations_bytes: u64,
    /// Gathered or converted weights, and gradients before they are shared out.
    pub buffers_bytes: u64,
    pub total_bytes: u64,
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parameters,
            weights_bytes,
            gradients_bytes,
            optimizer_bytes,
            activations_bytes,
            buffers_bytes,
            total_bytes,
        } = *self;
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        write!(
            formatter,
            "about {:.1} GiB a process: weights {:.1}, gradients {:.1}, optimizer {:.1}, activations \
             {:.1}, buffers {:.1}; {:.2} billion parameters",
            gib(total_bytes),
            gib(weights_bytes),
            gib(gradients_bytes),
            gib(optimizer_bytes),
            gib(activations_bytes),
            gib(buffers_bytes),
            parameters as f64 / 1e9,
        )
    }
}

impl fmt::Display for ParallelPlan {
    /// One line that can be checked at a glance.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            world_size,
            data,
            tensor,
            pipeline,
            context,
            expert,
            batch_size,
            gradient_accumulation,
            global_batch_size,
            tokens_per_step,
        } = self;
        write!(
            formatter,
            "world size {world_size} = data {data} * tensor {tensor} * pipeline {pipeline} * \
             context {context}"
        )?;
        if *expert > 1 {
            write!(formatter, ", experts spread over {expert}")?;
        }
        write!(
            formatter,
            "; global batch {global_batch_size} = batch_size {batch_size} * data {data} * \
             gradient_accumulation {gradient_accumulation}; {tokens_per_step} tokens per step"
        )
    }
}
