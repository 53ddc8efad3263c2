//! The arguments of meta, one line each.
//!
//! Native names: torchtitan 0.3.

use trainer_plugin::Literal::{Integer, List, Number, Text};
use trainer_plugin::Spelling::{Boolean, Text as Word};
use trainer_plugin::vocabulary::*;
use trainer_plugin::{
    Excluded, Kind, Launch, Table, Value, boolean, choice, integer, json, parallel, text,
};

/// Backends of the frameworks that people come from, which cannot keep what a run is promised.
const EXCLUDED: &[Excluded] = &[
    // recipes/full_finetune_distributed.py of torchtune 0.6.1, its last release.
    Excluded {
        value: "torchtune",
        why: "torchtune saves only at the ends of epochs and does not record the step, so a run \
              could not resume; to use it, bring an image with your own train.py and a plugin for it",
    },
    // utils/train_utils.py and finetuning.py of llama-cookbook 0.0.5, its last release.
    Excluded {
        value: "llama_cookbook",
        why: "llama-cookbook saves only at the ends of epochs and resumes only adapters, so a run \
              could not resume; to use it, bring an image with your own train.py and a plugin for it",
    },
];

#[rustfmt::skip]
pub static ARGUMENTS: Table = Table::new(&[
    DATASET_TEXT_FIELD,
    BATCH_SIZE.default(Integer(1)).native("titan training.local_batch_size"),
    NUM_EPOCHS,
    MAX_STEPS.native("titan training.steps"),
    LR.default(Number(2e-5)).native("titan optimizer.lr"),
    MAX_SEQ_LEN.native("titan training.seq_len"),
    GRADIENT_ACCUMULATION.derived("1, or derived from global_batch_size", parallel::gradient_accumulation),
    SAVE_STEPS.native("titan checkpoint.interval"),
    SAVE_TOTAL_LIMIT.kind(Kind::Integer { minimum: 2, maximum: 1000, also: None }).native("titan checkpoint.keep_latest_k"),
    WARMUP_STEPS.native("titan lr_scheduler.warmup_steps"),
    WARMUP_RATIO,
    WEIGHT_DECAY.default(Number(0.01)).native("titan optimizer.weight_decay"),
    MAX_GRAD_NORM.native("titan training.max_norm"),
    SEED.default(Integer(42)).native("titan debug.seed"),
    LOGGING_STEPS.native("titan metrics.log_freq"),
    EVAL_STEPS.native("titan validation.freq"),
    DATALOADER_WORKERS.default(Integer(0)).native("titan training.dataloader.num_workers"),
    TOKENIZER_NAME.native("AutoTokenizer"),
    choice("backend", &["fsdp", "torchtitan"]).excludes(EXCLUDED).alias(&["trainer_backend"]).default(Text("fsdp")).about("Training loop of train.py"),
    GLOBAL_BATCH_SIZE.native("titan training.global_batch_size"),
    integer("dp_replicate", 1, 1024).alias(&["data_parallel_replicate_degree", "data_parallel_replicate_dim", "dp_replicate_size", "replica_group_size"]).default(Integer(1)).native("titan parallelism.data_parallel_replicate_degree").unit("copies").about("Number of replicas of the sharded model; more than 1 means HSDP"),
    integer("dp_shard", 1, 16384).also(-1).alias(&["data_parallel_shard_degree", "data_parallel_shard_dim", "dp_shard_size", "sharding_group_size"]).default(Integer(-1)).native("titan parallelism.data_parallel_shard_degree").unit("GPUs").about("Number of GPUs per sharded replica; -1 uses all remaining GPUs"),
    TENSOR_PARALLEL.alias(&["tp", "tensor_parallel_degree", "tensor_parallel_dim", "tensor_parallel_size"]).native("titan parallelism.tensor_parallel_degree"),
    PIPELINE_PARALLEL.alias(&["pp", "pipeline_parallel_degree", "pipeline_parallel_size"]).native("titan parallelism.pipeline_parallel_degree"),
    CONTEXT_PARALLEL.alias(&["cp", "context_parallel_degree", "context_parallel_dim", "context_parallel_size"]).native("titan parallelism.context_parallel_degree"),
    EXPERT_PARALLEL.alias(&["ep", "expert_parallel_degree"]).native("titan parallelism.expert_parallel_degree"),
    choice("pipeline_schedule", &["1F1B", "GPipe", "Interleaved1F1B", "LoopedBFS", "ZBVZeroBubble", "InterleavedZeroBubble", "DualPipeV"]).alias(&["pipeline_parallel_schedule"]).default(Text("1F1B")).native("titan parallelism.pipeline_parallel_schedule").about("Pipeline schedule"),
    integer("pipeline_microbatch_size", 1, 4096).alias(&["pipeline_parallel_microbatch_size"]).default(Integer(1)).native("titan parallelism.pipeline_parallel_microbatch_size").unit("sequences").about("Sequences per pipeline microbatch"),
    boolean("cpu_offload").alias(&["fsdp_cpu_offload", "enable_cpu_offload"]).native("titan training.enable_cpu_offload").about("Offload parameters to CPU memory"),
    choice("precision", &["bf16", "fp32", "bf16-mixed"]).alias(&["dtype", "mixed_precision"]).default(Text("bf16-mixed")).derived("bf16-mixed; fp32 without GPUs", precision).value_alias(&[(Word("bfloat16"), "bf16"), (Word("float32"), "fp32")]).native("titan training.mixed_precision_param").about("Number format for training; no backend supports fp16"),
    boolean("float8").alias(&["enable_fp8", "fp8"]).native("titan model.converters=float8").about("Compute linear layers in float8; requires Hopper or later"),
    choice("activation_checkpoint", &["none", "selective", "full"]).alias(&["activation_checkpointing", "gradient_checkpointing", "recompute"]).default(Text("none")).value_alias(&[(Boolean(true), "full"), (Boolean(false), "none")]).native("titan activation_checkpoint.mode").about("Which activations to recompute in the backward pass to save memory"),
    boolean("activation_offloading").alias(&["enable_activation_offloading"]).about("Offload activations to CPU memory"),
    boolean("compile").alias(&["torch_compile"]).native("titan compile.enable").about("Compile the model with torch.compile"),
    boolean("optimizer_in_bwd").alias(&["early_step_in_backward"]).native("titan optimizer.early_step_in_backward").about("Update each weight as soon as its gradient is available, to save memory"),
    choice("lr_scheduler", &["linear", "sqrt", "cosine", "constant"]).alias(&["lr_scheduler_type", "decay_type"]).default(Text("linear")).native("titan lr_scheduler.decay_type").about("Schedule of the learning rate after warm-up"),
    PEFT_METHOD.choices(&["none", "lora", "qlora"]),
    LORA_RANK.default(Integer(8)),
    LORA_ALPHA.default(Integer(16)),
    LORA_DROPOUT.default(Number(0.0)),
    LORA_TARGET_MODULES.alias(&["target_modules", "lora_attn_modules"]).default(List(&["q_proj", "v_proj"])),
    ASSISTANT_ONLY_LOSS,
    PACKING.alias(&["packed"]),
    choice("async_checkpoint", &["disabled", "async", "async_with_pinned_mem"]).alias(&["async_mode"]).default(Text("disabled")).native("titan checkpoint.async_mode").about("Write checkpoints in the background while training continues"),
    boolean("save_hf").alias(&["last_save_in_hf"]).native("titan checkpoint.last_save_in_hf").about("Save the last checkpoint in Hugging Face format"),
    choice("init", &["pretrained", "random"]).alias(&["initialization"]).default(Text("pretrained")).about("Initial weights: those of the model, or random ones from its configuration"),
    text("initial_load_path", 1, 512).alias(&["checkpoint_dir", "pretrained_path"]).form("an absolute path or a URI", is_loadable).native("titan checkpoint.initial_load_path").example(Text("/models/llama-3.1-8b")).about("Initial weights; ignored if the run has checkpoints"),
    MODEL_PARAMETERS,
])
.with_options(include_str!("../../sdk/known/meta.txt"));

/// On a CPU, bfloat16 is slower than float32.
fn precision(launch: &Launch) -> Option<Value> {
    Some(json!(match launch.has_gpus() {
        true => "bf16-mixed",
        false => "fp32",
    }))
}

fn is_loadable(path: &str) -> bool {
    path.starts_with('/') || path.contains("://")
}
