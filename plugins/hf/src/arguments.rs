//! The arguments of hf, one line each.
//!
//! Native names: transformers' TrainingArguments, TRL's SFTConfig and ModelConfig.

use trainer_plugin::Literal::{Integer, List, Number, Text};
use trainer_plugin::Spelling::Text as Word;
use trainer_plugin::vocabulary::*;
use trainer_plugin::{
    Interval, Kind, Launch, Table, Value, boolean, choice, integer, json, list, number, text,
};

/// `SchedulerType` (transformers/trainer_utils.py).
const SCHEDULERS: &[&str] = &[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
];

/// `OptimizerNames` (transformers/training_args.py).
const OPTIMIZERS: &[&str] = &[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
    "adafactor",
    "adamw_anyprecision",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "ademamix",
    "sgd",
    "adagrad",
    "adamw_bnb_8bit",
    "adamw_8bit",
    "ademamix_8bit",
    "lion_8bit",
    "lion_32bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "galore_adamw",
    "galore_adamw_8bit",
    "galore_adafactor",
    "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise",
    "galore_adafactor_layerwise",
    "lomo",
    "adalomo",
    "grokadamw",
    "schedule_free_radam",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "apollo_adamw",
    "apollo_adamw_layerwise",
    "stable_adamw",
];

/// Where the Trainer can report to (transformers/integrations/integration_utils.py).
const REPORTERS: &[&str] = &[
    "none",
    "all",
    "tensorboard",
    "wandb",
    "mlflow",
    "trackio",
    "comet_ml",
    "clearml",
    "neptune",
    "swanlab",
    "dvclive",
];

#[rustfmt::skip]
pub static ARGUMENTS: Table = Table::new(&[
    DATASET_TEXT_FIELD.native("SFTConfig.dataset_text_field"),
    BATCH_SIZE.default(Integer(2)).native("per_device_train_batch_size"),
    NUM_EPOCHS.kind(Kind::Number(Interval::above(0.0, 1000.0))).native("num_train_epochs"),
    MAX_STEPS.native("max_steps"),
    LR.default(Number(5e-5)).native("learning_rate"),
    MAX_SEQ_LEN.native("SFTConfig.max_length"),
    GRADIENT_ACCUMULATION.native("gradient_accumulation_steps"),
    SAVE_STEPS.native("save_steps"),
    SAVE_TOTAL_LIMIT.native("save_total_limit"),
    WARMUP_STEPS.native("warmup_steps"),
    WARMUP_RATIO.native("warmup_ratio; warmup_steps in transformers 5"),
    WEIGHT_DECAY.default(Number(0.0)).native("weight_decay"),
    MAX_GRAD_NORM.native("max_grad_norm"),
    SEED.default(Integer(42)).native("seed"),
    LOGGING_STEPS.native("logging_steps"),
    EVAL_STEPS.derived("100 when eval_strategy is steps", eval_steps).native("eval_steps"),
    EVAL_BATCH_SIZE.native("per_device_eval_batch_size"),
    DATALOADER_WORKERS.default(Integer(0)).native("dataloader_num_workers"),
    integer("dataloader_prefetch_factor", 1, 128).alias(&["prefetch_factor"]).native("dataloader_prefetch_factor").unit("batches").example(Integer(2)).about("Batches that each data-loading process prefetches"),
    TOKENIZER_NAME.native("AutoTokenizer"),
    choice("lr_scheduler", SCHEDULERS).alias(&["lr_scheduler_type", "scheduler"]).default(Text("linear")).native("lr_scheduler_type").about("Schedule of the learning rate after warm-up"),
    number("min_lr", Interval::closed(0.0, 1.0)).alias(&["lr_min"]).example(Number(1e-6)).native("lr_scheduler_kwargs.min_lr").about("Final learning rate, for schedules that support one"),
    integer("decay_steps", 1, 10_000_000).alias(&["num_decay_steps", "lr_wsd_decay_iters"]).unit("steps").example(Integer(600)).native("lr_scheduler_kwargs.num_decay_steps").about("Optimizer steps of the decay phase of warmup_stable_decay"),
    choice("optim", OPTIMIZERS).alias(&["optimizer"]).default(Text("adamw_torch_fused")).native("optim").about("Optimizer"),
    choice("precision", &["bf16", "fp16", "fp32"]).alias(&["mixed_precision"]).default(Text("bf16")).derived("bf16; fp32 without GPUs; fp16 if fp16 is set", precision).value_alias(&[(Word("bf16-mixed"), "bf16"), (Word("16-mixed"), "fp16"), (Word("no"), "fp32")]).native("bf16 and fp16").about("Number format for training"),
    boolean("bf16").native("bf16").about("Same as precision bf16"),
    boolean("fp16").native("fp16").about("Same as precision fp16"),
    choice("eval_strategy", &["no", "steps", "epoch"]).alias(&["evaluation_strategy"]).default(Text("no")).derived("no; steps if eval_steps is set", eval_strategy).native("eval_strategy").about("When to evaluate"),
    choice("save_strategy", &["no", "steps", "epoch", "best"]).default(Text("steps")).native("save_strategy").about("When to save a checkpoint"),
    boolean("load_best_model_at_end").alias(&["load_best"]).native("load_best_model_at_end").about("Load the best checkpoint at the end of training"),
    text("metric_for_best_model", 1, 128).alias(&["best_metric"]).default(Text("loss")).form("loss or eval_loss, the only metrics that are evaluated", is_metric).native("metric_for_best_model").about("Metric that selects the best checkpoint"),
    boolean("save_only_model").native("save_only_model").about("Save only the model, without optimizer state; the run cannot be resumed"),
    boolean("gradient_checkpointing").alias(&["activation_checkpointing"]).native("gradient_checkpointing").about("Recompute activations in the backward pass to save memory"),
    choice("fsdp", &["none", "full_shard", "shard_grad_op", "hybrid_shard", "hybrid_shard_zero2"]).alias(&["fsdp_mode"]).default(Text("none")).native("fsdp and fsdp_config").about("Shard the model across processes with PyTorch FSDP"),
    boolean("fsdp_offload").alias(&["fsdp_cpu_offload"]).native("fsdp_config.cpu_offload").about("Offload FSDP shards to CPU memory"),
    text("deepspeed", 1, 512).alias(&["deepspeed_config", "ds_config"]).form("zero1, zero2, zero3 or the path of a .json file", is_deepspeed).native("deepspeed").example(Text("zero3")).about("Shard the model across processes with DeepSpeed"),
    PEFT_METHOD.choices(&["none", "lora", "qlora", "dora"]).native("ModelConfig.use_peft, load_in_4bit, use_dora"),
    LORA_RANK.default(Integer(16)).native("ModelConfig.lora_r"),
    LORA_ALPHA.default(Integer(32)).native("ModelConfig.lora_alpha"),
    LORA_DROPOUT.default(Number(0.05)).native("ModelConfig.lora_dropout"),
    LORA_TARGET_MODULES.native("ModelConfig.lora_target_modules").example(List(&["q_proj", "v_proj"])),
    PACKING.native("SFTConfig.packing"),
    ASSISTANT_ONLY_LOSS.native("SFTConfig.assistant_only_loss"),
    choice("attn_implementation", &["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]).alias(&["attention"]).default(Text("sdpa")).native("ModelConfig.attn_implementation").about("Attention implementation"),
    boolean("dataset_streaming").alias(&["streaming"]).native("ScriptArguments.dataset_streaming").about("Stream the dataset during training instead of loading it first"),
    list("report_to").alias(&["loggers"]).default(List(&["none"])).form("one of none, all, tensorboard, wandb, mlflow, trackio, comet_ml, clearml, neptune, swanlab, dvclive", is_reporter).native("report_to").example(List(&["tensorboard"])).about("Where to report progress"),
    boolean("trust_remote_code").native("ModelConfig.trust_remote_code").about("Allow code from the model repository to run"),
    MODEL_PARAMETERS,
])
.with_options(include_str!("../../sdk/known/hf.txt"));

fn eval_steps(launch: &Launch) -> Option<Value> {
    (launch.text("eval_strategy")? == "steps").then(|| json!(100))
}

fn eval_strategy(launch: &Launch) -> Option<Value> {
    Some(json!(match launch.is_given("eval_steps") {
        true => "steps",
        false => "no",
    }))
}

/// On a CPU, bfloat16 is slower than float32.
fn precision(launch: &Launch) -> Option<Value> {
    Some(json!(if launch.is_on("fp16") {
        "fp16"
    } else if launch.has_gpus() || launch.is_on("bf16") {
        "bf16"
    } else {
        "fp32"
    }))
}

fn is_deepspeed(text: &str) -> bool {
    matches!(text, "zero1" | "zero2" | "zero3") || text.ends_with(".json")
}

fn is_metric(name: &str) -> bool {
    matches!(name, "loss" | "eval_loss")
}

fn is_reporter(name: &str) -> bool {
    REPORTERS.contains(&name)
}
