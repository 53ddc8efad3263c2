//! The arguments of meta, one line each.

use trainer_plugin::Argument;
use trainer_plugin::Fallback::{Integer, Number};
use trainer_plugin::vocabulary::*;

pub const ARGUMENTS: &[Argument] = &[
    DATASET_TEXT_FIELD,
    BATCH_SIZE
        .default(Integer(1))
        .native("training.local_batch_size"),
    NUM_EPOCHS.native("epochs"),
    MAX_STEPS.native("training.steps"),
    LR.default(Number(2e-5)).native("optimizer.lr"),
    MAX_SEQ_LEN.native("training.seq_len"),
    GRADIENT_ACCUMULATION.native("gradient_accumulation_steps"),
    SAVE_STEPS.native("checkpoint.interval"),
];
