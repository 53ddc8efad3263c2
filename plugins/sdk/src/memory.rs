//! How much memory a training takes on each GPU: an estimate from the model's shape and from how the
//! framework holds it.
//!
//! Weights, gradients and optimizer states follow from the arguments. Activations depend on kernels,
//! so they are an estimate; what CUDA and NCCL take for themselves is left out.

mod fit;

use serde_json::json;

use crate::model::Model;
use crate::{Launch, Parallelism, json as json_text};

pub use fit::{nearly_too_large, too_large};

/// How a framework holds a model while it trains it.
#[derive(Clone, Copy, Debug)]
pub struct Training {
    pub model: Model,
    pub split: Parallelism,
    pub bytes: Bytes,
    pub sharding: Sharding,
    pub trained: Trained,
    pub working: Working,
    pub activations: Activations,
    /// Which of the arguments would lower the memory.
    pub advice: Advice,
}

/// Bytes of each parameter, and of each number that is computed.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    pub weight: f64,
    pub gradient: f64,
    pub optimizer: f64,
    /// Of a number in a forward pass.
    pub computed: f64,
}

/// What the processes of a data parallel group share among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharding {
    pub stage: Stage,
    /// The processes that share it.
    pub ways: i64,
    pub place: Place,
}

/// The stages of ZeRO: each adds to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Nothing,
    Optimizer,
    Gradients,
    Weights,
}

/// Where weights, gradients and optimizer states wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Gpu,
    Host,
}

/// Which parameters are trained.
#[derive(Clone, Copy, Debug)]
pub enum Trained {
    All,
    Adapters {
        rank: i64,
        /// What enters and leaves the adapted layers of a block, from [`crate::model::Shape::linear`].
        numbers: u64,
        /// Bytes of a frozen weight of a linear layer.
        frozen: f64,
    },
}

impl Trained {
    /// What `peft_method`, `lora_rank` and `lora_target_modules` choose, with PEFT's default modules
    /// for Llama and its relatives. `frozen` is the size of a frozen weight in bytes. `None` if an
    /// argument is unknown.
    pub fn by_peft(launch: &Launch, model: &Model, frozen: f64) -> Option<Self> {
        if launch.text("peft_method")? == "none" {
            return Some(Self::All);
        }
        let given: Vec<&str> = launch.items("lora_target_modules").collect();
        let modules: &[&str] = match given.is_empty() {
            true => &["q_proj", "v_proj"],
            false => given.as_slice(),
        };
        let shape = model.shape();
        Some(Self::Adapters {
            rank: launch.integer("lora_rank")?,
            numbers: modules.iter().map(|module| shape.linear(module)).sum(),
            frozen,
        })
    }
}

/// What a forward pass computes with beside the stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Working {
    /// The stored weights themselves.
    Stored,
    /// Two layers at a time, gathered from all shards.
    Layers,
    /// All weights converted, as long as nobody shares them.
    Converted,
    /// All weights, gathered.
    Whole,
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Activations {
    /// Sequences of a forward pass.
    pub sequences: i64,
    /// Forward passes before the first backward pass, in a pipeline.
    pub in_flight: i64,
    pub tokens: i64,
    pub recomputed: Recomputed,
    /// Numbers of each hidden one that residual paths and norms keep, and the GPUs that share them.
    pub residual: f64,
    pub residual_ways: i64,
    pub attention: Attention,
}

/// How many layers compute their activations a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recomputed {
    None,
    Half,
    All,
}

/// Whether the scores of attention are ever in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    Fused,
    Scores,
}

/// Arguments that lower the memory, as a request spells them.
#[derive(Clone, Copy, Debug)]
pub struct Advice {
    pub recompute: &'static str,
    pub adapters: Option<&'static str>,
    /// What has the processes share weights, where more of them alone do not.
    pub shard: Option<&'static str>,
}

/// Bytes on one GPU.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    pub parameters: f64,
    pub weights: f64,
    pub gradients: f64,
    pub optimizer: f64,
    pub activations: f64,
    /// Gathered or converted weights, and gradients before they are shared out.
    pub buffers: f64,
}

/// A gradient before it is shared out, and a logit in the loss, are in float32.
const FLOAT32: f64 = 4.0;
/// Of a loss: the logits in float32, their logarithms and their gradient.
const LOSS: f64 = 3.0 * FLOAT32;
/// An adapter has its weights in float32.
const ADAPTER: f64 = FLOAT32;

impl Training {
    /// For a framework that does not say how it holds a model.
    pub fn unknown(_: &Launch) -> Option<Self> {
        None
    }

    /// The bytes that the training takes on the fullest GPU.
    pub fn estimate(&self) -> Estimate {
        let shape = self.model.shape();
        let parameters = self.model.parameters();
        let scale = parameters / shape.parameters() as f64;
        let tensor = self.split.tensor.max(1) as f64;
        let layers = self.layers();
        let layer = shape.layer() as f64 * scale / tensor;
        let ends = match self.split.pipeline {
            ..=1 => shape.ends(),
            // The first stage has the embedding, the last one the output.
            _ => shape.vocabulary * shape.hidden,
        };
        let ends = ends as f64 * scale / tensor;
        let held = layers * layer + ends;
        let Bytes {
            weight,
            gradient,
            optimizer,
            computed,
        } = self.bytes;
        let (trained, weights) = match self.trained {
            Trained::All => (held, held * weight),
            Trained::Adapters {
                rank,
                numbers,
                frozen,
            } => {
                let adapters = layers * rank as f64 * numbers as f64 / tensor;
                let base = layers * layer * frozen + ends * weight;
                (adapters, base + adapters * ADAPTER)
            }
        };
        let converted = match self.working {
            Working::Stored => 0.0,
            Working::Layers => (2.0 * layer + ends) * computed + layer * FLOAT32,
            Working::Converted | Working::Whole => held * computed,
        };
        Estimate {
            parameters,
            weights: self.share(weights, Stage::Weights),
            gradients: self.share(trained * gradient, Stage::Gradients),
            optimizer: self.share(trained * optimizer, Stage::Optimizer),
            activations: self.activations(layers),
            buffers: converted,
        }
    }

    /// Layers on one GPU.
    fn layers(&self) -> f64 {
        let stages = self.split.pipeline.max(1) as f64;
        (self.model.shape().layers as f64 / stages).ceil()
    }

    fn share(&self, bytes: f64, stage: Stage) -> f64 {
        match self.sharding.place {
            Place::Host => 0.0,
            Place::Gpu if self.sharding.stage < stage => bytes,
            Place::Gpu => bytes / self.sharding.ways.max(1) as f64,
        }
    }

    /// What a layer keeps for each token, when it keeps all: the inputs of its norms and matrices,
    /// queries, keys, values and what attention makes of them, and the four products of the
    /// feed-forward part.
    fn activations(&self, layers: f64) -> f64 {
        let shape = self.model.shape();
        let Activations {
            sequences,
            in_flight,
            tokens,
            recomputed,
            residual,
            residual_ways,
            attention,
        } = self.activations;
        let computed = self.bytes.computed;
        let tensor = self.split.tensor.max(1) as f64;
        let here = sequences as f64 * tokens as f64 / self.split.context.max(1) as f64;
        let heads = (shape.heads + shape.key_value_heads) * shape.head_size;
        let split = (2 * heads + 4 * shape.feed_forward) as f64 / tensor;
        let scores = match attention {
            Attention::Fused => 0.0,
            // In float32, and converted.
            Attention::Scores => shape.heads as f64 / tensor * tokens as f64 * (FLOAT32 + computed),
        };
        let hidden = shape.hidden as f64 / residual_ways.max(1) as f64;
        let layer = here * ((residual * hidden + split) * computed + scores);
        let input = here * hidden * computed;
        let kept = match recomputed {
            Recomputed::None => layers * layer,
            Recomputed::Half => layers / 2.0 * (layer + input),
            Recomputed::All => layers * input + layer,
        };
        let logits = here * shape.vocabulary as f64 / tensor * (computed + LOSS);
        kept * in_flight.max(1) as f64 + logits
    }
}

impl Estimate {
    /// What does not depend on the batch: weights, gradients and optimizer states.
    pub fn states(&self) -> f64 {
        self.weights + self.gradients + self.optimizer
    }

    pub fn total(&self) -> f64 {
        self.states() + self.activations + self.buffers
    }

    /// What the host shows in a preview, as JSON.
    pub(crate) fn to_json(self) -> String {
        let whole = |number: f64| json!(number as u64);
        json_text::object(
            [
                ("parameters", whole(self.parameters)),
                ("weights_bytes", whole(self.weights)),
                ("gradients_bytes", whole(self.gradients)),
                ("optimizer_bytes", whole(self.optimizer)),
                ("activations_bytes", whole(self.activations)),
                ("buffers_bytes", whole(self.buffers)),
                ("total_bytes", whole(self.total())),
            ]
            .into_iter(),
        )
    }
}

#[cfg(test)]
mod tests;
