//! The arguments of nemo, one line each.

use trainer_plugin::Argument;
use trainer_plugin::Fallback::{Integer, Number};
use trainer_plugin::vocabulary::*;

pub const ARGUMENTS: &[Argument] = &[
    DATASET_TEXT_FIELD,
    BATCH_SIZE
        .default(Integer(1))
        .native("data.micro_batch_size"),
    NUM_EPOCHS.native("trainer.max_epochs"),
    MAX_STEPS.native("trainer.max_steps"),
    LR.default(Number(2e-5)).native("optim.config.lr"),
    MAX_SEQ_LEN.native("data.seq_length"),
    GRADIENT_ACCUMULATION,
    SAVE_STEPS.native("log.ckpt.every_n_train_steps"),
    DATALOADER_WORKERS
        .default(Integer(2))
        .native("data.num_workers"),
];
