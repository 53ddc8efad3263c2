//! The arguments that frameworks share, by their canonical names. A framework takes an entry and
//! adds its own default and native name; a new framework that does so too is understood at once.

use crate::Literal::{Integer, Number, Text};
use crate::{Argument, Interval, boolean, choice, integer, list, number, text};

/// Which field of a row holds the text. The specification's default is "text".
pub const DATASET_TEXT_FIELD: Argument = text("dataset_text_field", 1, 128)
    .alias(&["text_field", "text_column", "dataset_text_column"])
    .default(Text("text"))
    .about("Name of the dataset field that contains the text");

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
    .about("Sequences per GPU and micro-step (not the global batch size)");

pub const NUM_EPOCHS: Argument = integer("num_epochs", 1, 1000)
    .alias(&["epochs", "num_train_epochs", "max_epochs"])
    .default(Integer(1))
    .unit("epochs")
    .about("Number of passes over the dataset; overridden by max_steps");

pub const MAX_STEPS: Argument = integer("max_steps", 1, 10_000_000)
    .alias(&[
        "steps",
        "train_steps",
        "train_iters",
        "training_steps",
        "total_steps",
    ])
    .unit("steps")
    .example(Integer(6000))
    .about("Number of optimizer steps; overrides num_epochs");

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
    .default(Integer(2048))
    .unit("tokens")
    .about("Maximum sequence length");

pub const GRADIENT_ACCUMULATION: Argument = integer("gradient_accumulation", 1, 65_536)
    .alias(&[
        "gradient_accumulation_steps",
        "grad_accum",
        "grad_accumulation",
        "accumulate_grad_batches",
    ])
    .default(Integer(1))
    .unit("micro-steps")
    .about("Micro-steps per optimizer step");

pub const SAVE_STEPS: Argument = integer("save_steps", 1, 10_000_000)
    .alias(&[
        "save_interval",
        "checkpoint_interval",
        "every_n_train_steps",
        "ckpt_every_steps",
        "save_every",
    ])
    .default(Integer(100))
    .unit("steps")
    .about("Optimizer steps between checkpoints");

pub const EVAL_STEPS: Argument = integer("eval_steps", 1, 10_000_000)
    .alias(&[
        "eval_interval",
        "val_check_interval",
        "val_every_steps",
        "run_val_every_n_steps",
    ])
    .unit("steps")
    .example(Integer(500))
    .about("Optimizer steps between evaluations");

/// More than 0 needs a memory-backed /dev/shm, which the manifest has.
pub const DATALOADER_WORKERS: Argument = integer("dataloader_workers", 0, 128)
    .alias(&[
        "num_workers",
        "dataloader_num_workers",
        "num_workers_dataloader",
    ])
    .unit("processes")
    .about("Data-loading processes per training process");

pub const SAVE_TOTAL_LIMIT: Argument = integer("save_total_limit", 1, 1000)
    .alias(&[
        "keep_last_n",
        "save_top_k",
        "keep_latest_k",
        "most_recent_k",
        "max_recent_checkpoints",
    ])
    .unit("checkpoints")
    .example(Integer(3))
    .about("Maximum number of checkpoints to keep; default: all");

pub const WARMUP_STEPS: Argument = integer("warmup_steps", 0, 10_000_000)
    .alias(&["num_warmup_steps", "warmup_iters", "lr_warmup_iters"])
    .default(Integer(0))
    .unit("steps")
    .about("Optimizer steps of learning-rate warm-up");

pub const WARMUP_RATIO: Argument = number("warmup_ratio", Interval::below(0.0, 1.0))
    .alias(&["lr_warmup_fraction"])
    .example(Number(0.03))
    .about("Warm-up as a fraction of all steps, instead of warmup_steps");

pub const WEIGHT_DECAY: Argument = number("weight_decay", Interval::closed(0.0, 1.0))
    .alias(&["wd"])
    .about("Weight decay (decoupled, as in AdamW)");

pub const MAX_GRAD_NORM: Argument = number("max_grad_norm", Interval::closed(0.0, 1000.0))
    .alias(&[
        "gradient_clip_val",
        "clip_grad",
        "clip_grad_norm",
        "max_norm",
        "grad_clip",
        "gradient_clipping_threshold",
    ])
    .default(Number(1.0))
    .about("Maximum gradient norm for clipping; 0 disables clipping");

pub const SEED: Argument = integer("seed", 0, 4_294_967_295)
    .alias(&["random_seed"])
    .about("Random seed for weights, data order and dropout");

pub const LOGGING_STEPS: Argument = integer("logging_steps", 1, 1_000_000)
    .alias(&["log_every_n_steps", "log_freq", "log_interval", "log_every"])
    .default(Integer(10))
    .unit("steps")
    .about("Optimizer steps between progress lines");

pub const EVAL_BATCH_SIZE: Argument = integer("eval_batch_size", 1, 4096)
    .alias(&[
        "per_device_eval_batch_size",
        "val_batch_size",
        "batch_size_val",
    ])
    .same_as("batch_size")
    .unit("sequences")
    .example(Integer(8))
    .about("Sequences per GPU during evaluation");

pub const TOKENIZER_NAME: Argument = text("tokenizer_name", 1, 512)
    .alias(&["tokenizer", "tokenizer_id", "tokenizer_path"])
    .same_as_model_id()
    .example(Text("meta-llama/Llama-3.1-8B"))
    .about("Tokenizer: a name on the Hugging Face Hub, or a path");

/// How lists, words and switches of fine-tuning with adapters are called everywhere.
pub const PEFT_METHOD: Argument = choice("peft_method", &["none", "lora"])
    .alias(&["peft"])
    .default(Text("none"))
    .about("Parameter-efficient fine-tuning method");

pub const LORA_RANK: Argument = integer("lora_rank", 1, 1024)
    .alias(&["lora_r"])
    .about("Rank of the LoRA matrices");

pub const LORA_ALPHA: Argument = integer("lora_alpha", 1, 4096)
    .about("LoRA scaling factor; the scale is lora_alpha / lora_rank");

pub const LORA_DROPOUT: Argument =
    number("lora_dropout", Interval::below(0.0, 1.0)).about("Dropout for the LoRA layers");

pub const LORA_TARGET_MODULES: Argument = list("lora_target_modules")
    .alias(&["target_modules"])
    .about("Modules to apply LoRA to");

pub const PACKING: Argument =
    boolean("packing").about("Pack several samples into one sequence instead of padding each");

/// For rows that are conversations.
pub const ASSISTANT_ONLY_LOSS: Argument = boolean("assistant_only_loss")
    .about("Learn from the assistant's turns alone; needs conversational data");

/// What the plugin cannot know of a model that is not in [`crate::model`]'s table.
pub const MODEL_PARAMETERS: Argument = number("model_parameters", Interval::above(0.0, 100_000.0))
    .plugin_only()
    .unit("billions")
    .example(Number(8.0))
    .about("Parameters of the model, to estimate the memory of a GPU; not forwarded");

pub const GLOBAL_BATCH_SIZE: Argument = integer("global_batch_size", 1, 1_048_576)
    .alias(&["gbs"])
    .unit("sequences")
    .example(Integer(256))
    .about("Sequences per optimizer step across all GPUs");

pub const TENSOR_PARALLEL: Argument = integer("tensor_parallel", 1, 64)
    .alias(&["tp", "tensor_parallel_size"])
    .default(Integer(1))
    .unit("GPUs")
    .about("Degree of tensor parallelism: GPUs that share each layer");

pub const PIPELINE_PARALLEL: Argument = integer("pipeline_parallel", 1, 128)
    .alias(&["pp", "pipeline_parallel_size"])
    .default(Integer(1))
    .unit("stages")
    .about("Degree of pipeline parallelism: stages that the layers are split into");

pub const CONTEXT_PARALLEL: Argument = integer("context_parallel", 1, 64)
    .alias(&["cp", "context_parallel_size"])
    .default(Integer(1))
    .unit("GPUs")
    .about("Degree of context parallelism: GPUs that share each sequence");

pub const EXPERT_PARALLEL: Argument = integer("expert_parallel", 1, 256)
    .alias(&["ep", "expert_parallel_size"])
    .default(Integer(1))
    .unit("GPUs")
    .about("Degree of expert parallelism: GPUs that the experts are distributed over");
