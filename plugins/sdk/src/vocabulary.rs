//! The arguments that frameworks share, by their canonical names. A framework takes an entry and
//! adds its own default and native name; a new framework that does so too is understood at once.

use crate::{Argument, Fallback, Interval, integer, number, text};

/// Which field of a row holds the text. The specification's default is "text".
pub const DATASET_TEXT_FIELD: Argument = text("dataset_text_field", 1, 128)
    .alias(&["text_field", "text_column", "dataset_text_column"])
    .default(Fallback::Text("text"))
    .about("Field of a dataset row that holds the text");

/// Sequences of one process in one micro step: never the global batch.
pub const BATCH_SIZE: Argument = integer("batch_size", 1, 4096)
    .alias(&[
        "per_device_train_batch_size",
        "micro_batch_size",
        "train_batch_size",
        "local_batch_size",
        "batch_size_training",
        "mbs",
    ])
    .unit("sequences")
    .about("Sequences per GPU and micro step (not the global batch)");

pub const NUM_EPOCHS: Argument = integer("num_epochs", 1, 1000)
    .alias(&["epochs", "num_train_epochs", "max_epochs"])
    .default(Fallback::Integer(1))
    .unit("epochs")
    .about("Passes over the dataset; max_steps overrides it");

pub const MAX_STEPS: Argument = integer("max_steps", 1, 10_000_000)
    .alias(&[
        "steps",
        "train_steps",
        "train_iters",
        "training_steps",
        "total_steps",
    ])
    .unit("steps")
    .about("Optimizer steps to train for");

pub const LR: Argument = number("lr", Interval::above(0.0, 1.0))
    .alias(&["learning_rate", "max_lr"])
    .about("Peak learning rate");

pub const MAX_SEQ_LEN: Argument = integer("max_seq_len", 8, 1_048_576)
    .alias(&[
        "max_seq_length",
        "seq_length",
        "seq_len",
        "sequence_length",
        "max_length",
        "context_length",
        "block_size",
    ])
    .default(Fallback::Integer(2048))
    .unit("tokens")
    .about("Longest sequence");

pub const GRADIENT_ACCUMULATION: Argument = integer("gradient_accumulation", 1, 65_536)
    .alias(&[
        "gradient_accumulation_steps",
        "grad_accum",
        "grad_accumulation",
        "accumulate_grad_batches",
    ])
    .default(Fallback::Integer(1))
    .unit("micro steps")
    .about("Micro steps that make one optimizer step");

pub const SAVE_STEPS: Argument = integer("save_steps", 1, 10_000_000)
    .alias(&[
        "save_interval",
        "checkpoint_interval",
        "every_n_train_steps",
        "ckpt_every_steps",
        "save_every",
    ])
    .default(Fallback::Integer(100))
    .unit("steps")
    .about("Steps between two checkpoints");

pub const EVAL_STEPS: Argument = integer("eval_steps", 1, 10_000_000)
    .alias(&[
        "eval_interval",
        "val_check_interval",
        "val_every_steps",
        "run_val_every_n_steps",
    ])
    .unit("steps")
    .about("Steps between two evaluations");

/// More than 0 needs a memory-backed /dev/shm, which the manifest has.
pub const DATALOADER_WORKERS: Argument = integer("dataloader_workers", 0, 128)
    .alias(&[
        "num_workers",
        "dataloader_num_workers",
        "num_workers_dataloader",
    ])
    .unit("processes")
    .about("Processes that read data, for each training process");
