//! Whether a training fits into a GPU, and what would make it fit.

use super::{Estimate, Recomputed, Stage, Trained, Training, Working};
use crate::{Launch, Violation};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// Of a GPU's memory: above it a training may not fit, since CUDA, NCCL and the gaps between
/// allocations take some.
const CLOSE: f64 = 0.85;
/// Of a GPU's memory: above it no error of the estimate is an excuse.
const FAR: f64 = 1.5;
/// Most GPUs that a sentence advises.
const MOST_GPUS: i64 = 4096;
/// Shortest sequence that a sentence advises.
const SHORTEST: i64 = 512;
/// Most ways out that a sentence names.
const MOST_ADVICE: usize = 4;

/// How a training and the GPUs of a job's profile compare.
struct Comparison<'a> {
    launch: &'a Launch,
    training: &'a Training,
    estimate: Estimate,
    /// Memory of a GPU in GiB, and in bytes.
    gpu_memory_gb: u64,
    memory: f64,
}

/// Refuses a training whose weights, gradients and optimizer states alone exceed a GPU, or that
/// exceeds it by half.
pub fn too_large(launch: &Launch) -> Option<Violation> {
    let compared = Comparison::of(launch)?;
    compared
        .is_too_large()
        .then(|| compared.reported("a GPU cannot hold this training"))?
}

/// Warns of a training that a GPU may not hold.
pub fn nearly_too_large(launch: &Launch) -> Option<Violation> {
    let compared = Comparison::of(launch)?;
    let is_close = compared.estimate.total() > CLOSE * compared.memory;
    if !is_close || compared.is_too_large() {
        return None;
    }
    compared.reported("a GPU may not hold this training")
}

impl<'a> Comparison<'a> {
    fn of(launch: &'a Launch) -> Option<Self> {
        let (training, gpu_memory_gb) = (launch.training.as_ref()?, launch.gpu_memory_gb?);
        (launch.job.gpus_per_node > 0).then(|| Self {
            launch,
            training,
            estimate: training.estimate(),
            gpu_memory_gb,
            memory: gpu_memory_gb as f64 * GIB,
        })
    }

    fn is_too_large(&self) -> bool {
        self.estimate.states() > self.memory || self.estimate.total() > FAR * self.memory
    }

    fn reported(&self, what: &str) -> Option<Violation> {
        let Estimate {
            weights,
            gradients,
            optimizer,
            activations,
            buffers,
            ..
        } = self.estimate;
        let gib = |bytes: f64| format!("{:.1}", bytes / GIB);
        let advice = self.advice();
        let advice = match advice.is_empty() {
            true => "use larger GPUs or a smaller model".to_string(),
            false => format!("it would fit with {}", advice.join(", or with ")),
        };
        Violation::new(
            &["/model_id"],
            format!(
                "{what}: it takes about {} GiB (weights {}, gradients {}, optimizer {}, activations \
                 {}, buffers {}), and a GPU of the profile has {} GiB; {advice}",
                gib(self.estimate.total()),
                gib(weights),
                gib(gradients),
                gib(optimizer),
                gib(activations),
                gib(buffers),
                self.gpu_memory_gb,
            ),
        )
    }

    /// What alone would make it fit; pairs where one alone does not.
    fn advice(&self) -> Vec<String> {
        let advice = &self.training.advice;
        let recomputing = self.training.recomputing();
        let adapted = advice.adapters.and_then(|_| self.training.adapted());
        let alone = |training: Option<&Training>, name: &str| {
            let fits = training.is_some_and(|training| self.fits(training));
            fits.then(|| name.to_string())
        };
        let recompute = alone(recomputing.as_ref(), advice.recompute);
        let more = self.more_gpus(self.training);
        let recompute_on_more = match (&recompute, &more) {
            (None, None) => recomputing
                .as_ref()
                .and_then(|training| self.more_gpus(training))
                .map(|gpus| format!("{} and {gpus}", advice.recompute)),
            _ => None,
        };
        let adapters = advice
            .adapters
            .and_then(|name| alone(adapted.as_ref(), name));
        let both = match (&recompute, &adapters, advice.adapters, &adapted) {
            (None, None, Some(name), Some(adapted)) => {
                let both = adapted.recomputing();
                alone(both.as_ref(), &format!("{name} and {}", advice.recompute))
            }
            _ => None,
        };
        let ways = [
            recompute,
            more,
            recompute_on_more,
            adapters,
            both,
            self.shorter(),
        ];
        ways.into_iter().flatten().take(MOST_ADVICE).collect()
    }

    fn fits(&self, training: &Training) -> bool {
        training.estimate().total() <= CLOSE * self.memory
    }

    /// How many GPUs it takes, by doubling them.
    fn more_gpus(&self, training: &Training) -> Option<String> {
        let world = self.launch.world_size();
        let mut factor = 1;
        let is_sharded = training.sharding.stage == Stage::Weights;
        let shard = training.advice.shard;
        if !is_sharded && shard.is_none() {
            return None;
        }
        while world.saturating_mul(factor) <= MOST_GPUS {
            let changes = factor > 1 || !is_sharded;
            if changes && self.fits(&training.shared_by_more(factor)) {
                let gpus = world * factor;
                return Some(match (is_sharded, shard) {
                    (false, Some(shard)) => format!("{shard} on {gpus} GPUs"),
                    _ => format!("{gpus} GPUs"),
                });
            }
            factor *= 2;
        }
        None
    }

    fn shorter(&self) -> Option<String> {
        let mut shorter = *self.training;
        while shorter.activations.tokens / 2 >= SHORTEST {
            shorter.activations.tokens /= 2;
            if self.fits(&shorter) {
                return Some(format!("max_seq_len {}", shorter.activations.tokens));
            }
        }
        None
    }
}

impl Training {
    /// The same with all activations recomputed, unless they are.
    fn recomputing(&self) -> Option<Self> {
        let mut training = *self;
        training.activations.recomputed = Recomputed::All;
        (self.activations.recomputed != Recomputed::All).then_some(training)
    }

    /// The same with adapters of a usual size, unless it has adapters.
    fn adapted(&self) -> Option<Self> {
        let shape = self.model.shape();
        let adapters = Trained::Adapters {
            rank: 16,
            numbers: shape.linear("q_proj") + shape.linear("v_proj"),
            frozen: self.bytes.weight,
        };
        matches!(self.trained, Trained::All).then_some(Self {
            trained: adapters,
            ..*self
        })
    }

    /// The same with everything sharded over more processes, by a factor.
    fn shared_by_more(&self, factor: i64) -> Self {
        let mut training = *self;
        if self.sharding.stage < Stage::Weights {
            training.sharding.ways = self.split.data;
        }
        training.sharding.stage = Stage::Weights;
        training.sharding.ways = training.sharding.ways.saturating_mul(factor);
        if training.sharding.ways > 1 && self.working != Working::Whole {
            training.working = Working::Layers;
        }
        training
    }
}
