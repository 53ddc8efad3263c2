//! The arguments of hf, one line each.

use trainer_plugin::Fallback::{Integer, Number};
use trainer_plugin::vocabulary::*;
use trainer_plugin::{Argument, Interval, Kind};

pub const ARGUMENTS: &[Argument] = &[
    DATASET_TEXT_FIELD.native("SFTConfig.dataset_text_field"),
    BATCH_SIZE
        .default(Integer(2))
        .native("per_device_train_batch_size"),
    NUM_EPOCHS
        .kind(Kind::Number(Interval::above(0.0, 1000.0)))
        .native("num_train_epochs"),
    MAX_STEPS.native("max_steps"),
    LR.default(Number(5e-5)).native("learning_rate"),
    MAX_SEQ_LEN.native("SFTConfig.max_length"),
    GRADIENT_ACCUMULATION.native("gradient_accumulation_steps"),
    SAVE_STEPS.native("save_steps"),
    EVAL_STEPS.default(Integer(100)).native("eval_steps"),
];
