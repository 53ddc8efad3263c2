//! The sizes of the ways in which a job is parallel.

use trainer_plugin::{Launch, Parallelism};

/// The sizes as given, `dp_shard` perhaps -1.
pub(super) struct Sizes {
    pub(super) replicate: i64,
    pub(super) shard: i64,
    pub(super) context: i64,
    pub(super) tensor: i64,
    pub(super) pipeline: i64,
}

impl Sizes {
    pub(super) fn of(launch: &Launch) -> Option<Self> {
        Some(Self {
            replicate: launch.integer("dp_replicate")?,
            shard: launch.integer("dp_shard")?,
            context: launch.integer("context_parallel")?,
            tensor: launch.integer("tensor_parallel")?,
            pipeline: launch.integer("pipeline_parallel")?,
        })
    }

    /// The product of all sizes but `dp_shard`.
    pub(super) fn others(&self) -> i64 {
        self.replicate * self.context * self.tensor * self.pipeline
    }

    /// `dp_shard`, or what the others leave of the world.
    pub(super) fn shard_of(&self, world: i64) -> Option<i64> {
        match self.shard {
            -1 => (world % self.others() == 0).then(|| world / self.others()),
            shard => (shard * self.others() == world).then_some(shard),
        }
    }
}

/// Data parallel size: copies times shards.
pub fn parallelism(launch: &Launch) -> Option<Parallelism> {
    let sizes = Sizes::of(launch)?;
    let shard = sizes.shard_of(launch.world_size())?;
    Some(Parallelism {
        data: sizes.replicate * shard,
        tensor: sizes.tensor,
        pipeline: sizes.pipeline,
        context: sizes.context,
        // It multiplies nothing, so the other sizes hold where it was refused.
        expert: launch.integer("expert_parallel").unwrap_or(1),
    })
}
