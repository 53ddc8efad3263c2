//! How meta's backends hold a model on the GPUs.

use trainer_plugin::memory::{
    Activations, Advice, Attention, Bytes, Place, Recomputed, Sharding, Stage, Trained, Working,
};
use trainer_plugin::{Launch, Training};

/// Each weight, its gradient and AdamW's two moments, in the precision of the weights.
pub fn training(launch: &Launch) -> Option<Training> {
    let (model, split) = (launch.model?, launch.parallelism?);
    let is_titan = launch.text("backend")? == "torchtitan";
    let ways = launch.world_size() / (split.tensor * split.pipeline).max(1);
    let ways = ways / launch.integer("dp_replicate")?.max(1);
    let bytes = bytes(launch)?;
    let is_shared = ways > 1 || is_titan;
    let working = match (is_shared, launch.text("precision")?.as_ref()) {
        (true, _) => Working::Layers,
        // Autocast keeps what it has converted.
        (false, "bf16-mixed") => Working::Converted,
        (false, _) => Working::Stored,
    };
    Some(Training {
        model,
        split,
        bytes,
        sharding: Sharding {
            // FSDP shares over the context parallel group, too.
            stage: Stage::Weights,
            ways,
            place: place(launch, is_shared),
        },
        trained: Trained::by_peft(launch, &model, bytes.weight)?,
        working,
        activations: activations(launch, working)?,
        advice: Advice {
            recompute: "activation_checkpoint full",
            adapters: (!is_titan).then_some("peft_method lora"),
            shard: None,
        },
    })
}

fn bytes(launch: &Launch) -> Option<Bytes> {
    let (weight, computed) = match launch.text("precision")?.as_ref() {
        "bf16" => (2.0, 2.0),
        "fp32" => (4.0, 4.0),
        _ => (4.0, 2.0),
    };
    Some(Bytes {
        weight,
        // With optimizer_in_bwd a gradient is gone as soon as it is there.
        gradient: match launch.is_on("optimizer_in_bwd") {
            true => 0.0,
            false => weight,
        },
        optimizer: 2.0 * weight,
        computed,
    })
}

fn place(launch: &Launch, is_shared: bool) -> Place {
    match launch.is_on("cpu_offload") && is_shared {
        true => Place::Host,
        false => Place::Gpu,
    }
}

fn activations(launch: &Launch, working: Working) -> Option<Activations> {
    let (batch, split) = (launch.integer("batch_size")?, launch.parallelism?);
    // A pipeline has no more micro batches in flight than it has stages.
    let sequences = match split.pipeline {
        ..=1 => batch,
        _ => launch.integer("pipeline_microbatch_size")?,
    };
    let recomputed = match launch.text("activation_checkpoint")?.as_ref() {
        // What waits in the host's memory takes as little as what is recomputed.
        _ if launch.is_on("activation_offloading") => Recomputed::All,
        "full" => Recomputed::All,
        "selective" => Recomputed::Half,
        _ => Recomputed::None,
    };
    Some(Activations {
        sequences,
        in_flight: (batch / sequences.max(1)).clamp(1, split.pipeline.max(1)),
        tokens: launch.integer("max_seq_len")?,
        recomputed,
        // Measured: under autocast norms and residual paths are in float32, too.
        residual: match working {
            Working::Converted => 14.0,
            _ => 7.0,
        },
        // Its tensor parallelism splits norms along the sequence.
        residual_ways: split.tensor,
        attention: Attention::Fused,
    })
}
