//! How Megatron holds a model on the GPUs.

use trainer_plugin::memory::{
    Activations, Advice, Attention, Bytes, Place, Recomputed, Sharding, Stage, Trained, Working,
};
use trainer_plugin::{Launch, Training};

/// Weights in bfloat16 or float16, gradients in float32, and an optimizer that data parallel processes
/// share: a float32 copy of the weights and Adam's two moments (Megatron-Bridge, which train.py sets up
/// with the distributed optimizer).
pub fn training(launch: &Launch) -> Option<Training> {
    let (model, split) = (launch.model?, launch.parallelism?);
    if launch.is_given("recipe") {
        // It names a model of its own.
        return None;
    }
    let bytes = match launch.text("precision")?.as_ref() {
        "32" => Bytes {
            weight: 4.0,
            gradient: 4.0,
            optimizer: 8.0,
            computed: 4.0,
        },
        _ => Bytes {
            weight: 2.0,
            gradient: 4.0,
            optimizer: 12.0,
            computed: 2.0,
        },
    };
    let fsdp = launch.is_on("fsdp");
    Some(Training {
        model,
        split,
        bytes,
        sharding: Sharding {
            stage: match fsdp {
                true => Stage::Weights,
                false => Stage::Optimizer,
            },
            // The optimizer is shared over the context parallel group, too.
            ways: split.data.saturating_mul(split.context),
            place: Place::Gpu,
        },
        trained: trained(launch, bytes.weight)?,
        working: match fsdp {
            true => Working::Layers,
            false => Working::Stored,
        },
        activations: activations(launch)?,
        advice: Advice {
            recompute: "recompute_granularity full",
            adapters: Some("peft_method lora"),
            shard: Some("fsdp"),
        },
    })
}

fn trained(launch: &Launch, frozen: f64) -> Option<Trained> {
    const FUSED: [&str; 4] = ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"];
    if launch.text("peft_method")? == "none" {
        return Some(Trained::All);
    }
    let given: Vec<&str> = launch.items("lora_target_modules").collect();
    let is_adapted = |layer: &&&str| {
        let named = |module: &&str| module.rsplit(['.', '*']).next() == Some(**layer);
        given.is_empty() || given.iter().any(named)
    };
    let shape = launch.model.as_ref()?.shape();
    let adapted = FUSED.iter().filter(is_adapted);
    Some(Trained::Adapters {
        rank: launch.integer("lora_rank")?,
        numbers: adapted.map(|layer| shape.linear(layer)).sum(),
        frozen,
    })
}

fn activations(launch: &Launch) -> Option<Activations> {
    let split = launch.parallelism?;
    let recomputed = match launch.text("recompute_granularity")?.as_ref() {
        "full" => Recomputed::All,
        // It recomputes the scores of attention, which fused kernels never keep.
        _ => Recomputed::None,
    };
    Some(Activations {
        sequences: launch.integer("batch_size")?,
        in_flight: launch
            .integer("gradient_accumulation")?
            .clamp(1, split.pipeline.max(1)),
        tokens: launch.integer("max_seq_len")?,
        recomputed,
        // As the plain loop of meta, whose layers keep the same.
        residual: 7.0,
        residual_ways: match launch.is_on("sequence_parallel") {
            true => split.tensor,
            false => 1,
        },
        attention: Attention::Fused,
    })
}
