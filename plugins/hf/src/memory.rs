//! How the Trainer holds a model on the GPUs.

use trainer_plugin::memory::{
    Activations, Advice, Attention, Bytes, Place, Recomputed, Sharding, Stage, Trained, Working,
};
use trainer_plugin::{Launch, Model, Training};

/// Bytes of a weight of a linear layer in 4 bits, with its share of the scales (bitsandbytes' NF4).
const QUANTIZED: f64 = 0.56;

/// Weights in float32, which the precision converts while it computes.
pub fn training(launch: &Launch) -> Option<Training> {
    let (model, split) = (launch.model?, launch.parallelism?);
    let engine = Engine::of(launch)?;
    let computed = match launch.text("precision")?.as_ref() {
        "fp32" => 4.0,
        _ => 2.0,
    };
    let trained = trained(launch, &model)?;
    let bytes = engine.bytes(launch, computed)?;
    let sharding = engine.sharding(launch)?;
    Some(Training {
        model,
        split,
        bytes,
        sharding,
        trained,
        working: match (engine, trained) {
            (
                Engine::Fsdp {
                    keeps_gathered: Gathered::Whole,
                    ..
                },
                _,
            ) => Working::Whole,
            _ if sharding.stage == Stage::Weights && sharding.ways > 1 => Working::Layers,
            // Autocast keeps what it has converted of trained weights.
            (Engine::Plain, Trained::All) if computed < bytes.weight => Working::Converted,
            _ => Working::Stored,
        },
        activations: activations(launch, computed)?,
        advice: Advice {
            recompute: "gradient_checkpointing true",
            adapters: Some("peft_method lora"),
            shard: Some("fsdp full_shard"),
        },
    })
}

/// What spreads a model over the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    /// Each process has all of it.
    Plain,
    Fsdp {
        ways: i64,
        keeps_gathered: Gathered,
    },
    /// DeepSpeed with a stage of ZeRO.
    Zero(Stage),
}

/// What FSDP keeps of gathered weights between the passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathered {
    Nothing,
    Whole,
}

impl Engine {
    /// `None` where a file of DeepSpeed's settings says it.
    fn of(launch: &Launch) -> Option<Self> {
        match launch.text("deepspeed").as_deref() {
            Some("zero1") => return Some(Self::Zero(Stage::Optimizer)),
            Some("zero2") => return Some(Self::Zero(Stage::Gradients)),
            Some("zero3") => return Some(Self::Zero(Stage::Weights)),
            Some(_) => return None,
            None => {}
        }
        let (world, node) = (launch.world_size(), launch.processes_per_node());
        let fsdp = |ways, keeps_gathered| Self::Fsdp {
            ways,
            keeps_gathered,
        };
        Some(match launch.text("fsdp")?.as_ref() {
            "full_shard" => fsdp(world, Gathered::Nothing),
            "shard_grad_op" => fsdp(world, Gathered::Whole),
            "hybrid_shard" => fsdp(node, Gathered::Nothing),
            "hybrid_shard_zero2" => fsdp(node, Gathered::Whole),
            _ => Self::Plain,
        })
    }

    fn sharding(self, launch: &Launch) -> Option<Sharding> {
        let world = launch.world_size();
        let (stage, ways) = match self {
            Self::Plain => (Stage::Nothing, world),
            Self::Fsdp { ways, .. } => (Stage::Weights, ways),
            Self::Zero(stage) => (stage, world),
        };
        let place = match launch.is_on("fsdp_offload") {
            true => Place::Host,
            false => Place::Gpu,
        };
        Some(Sharding { stage, ways, place })
    }

    fn bytes(self, launch: &Launch, computed: f64) -> Option<Bytes> {
        let moments = moments(&launch.text("optim")?);
        Some(match self {
            // DeepSpeed converts the weights and keeps a float32 copy with the optimizer's states.
            Self::Zero(_) if computed < 4.0 => Bytes {
                weight: computed,
                gradient: computed,
                optimizer: 4.0 + moments,
                computed,
            },
            _ => Bytes {
                weight: 4.0,
                gradient: match self {
                    // DistributedDataParallel has them a second time, in its buckets.
                    Self::Plain if launch.world_size() > 1 => 8.0,
                    _ => 4.0,
                },
                optimizer: moments,
                computed,
            },
        })
    }
}

/// Bytes of the states of an optimizer for each parameter on the GPU.
fn moments(optimizer: &str) -> f64 {
    match optimizer {
        // Paged ones are in the host's memory; the others keep a row and a column, or nothing.
        _ if optimizer.starts_with("paged_") => 0.0,
        _ if optimizer.starts_with("galore_") || optimizer.starts_with("apollo_") => 1.0,
        "adafactor" | "sgd" | "lomo" | "adalomo" => 0.0,
        "adamw_torch_4bit" | "lion_8bit" | "rmsprop_bnb_8bit" => 1.0,
        "adamw_torch_8bit" | "adamw_bnb_8bit" | "adamw_8bit" => 2.0,
        "ademamix_8bit" => 3.0,
        "adagrad" | "lion_32bit" | "rmsprop" | "rmsprop_bnb" | "rmsprop_bnb_32bit" => 4.0,
        "ademamix" | "grokadamw" => 12.0,
        _ => 8.0,
    }
}

fn trained(launch: &Launch, model: &Model) -> Option<Trained> {
    let frozen = match launch.text("peft_method")?.as_ref() {
        "qlora" => QUANTIZED,
        _ => 4.0,
    };
    Trained::by_peft(launch, model, frozen)
}

fn activations(launch: &Launch, computed: f64) -> Option<Activations> {
    Some(Activations {
        sequences: launch.integer("batch_size")?,
        in_flight: 1,
        tokens: launch.integer("max_seq_len")?,
        recomputed: match launch.is_on("gradient_checkpointing") {
            true => Recomputed::All,
            false => Recomputed::None,
        },
        // Measured with transformers 5: under autocast norms and residual paths are in float32, too.
        residual: match computed < 4.0 {
            true => 13.0,
            false => 6.0,
        },
        residual_ways: 1,
        attention: match launch.text("attn_implementation")?.as_ref() {
            "eager" => Attention::Scores,
            _ => Attention::Fused,
        },
    })
}
