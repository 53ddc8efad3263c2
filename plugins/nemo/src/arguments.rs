//! The arguments of nemo, one line each.
//!
//! Native names: NeMo 2 (`trainer.…`, `optim.…`), where Megatron-Bridge differs after a slash.

use trainer_plugin::Literal::{Integer, List, Number, Text};
use trainer_plugin::Spelling::Text as Word;
use trainer_plugin::vocabulary::*;
use trainer_plugin::{Interval, Table, boolean, choice, integer, list, number, parallel, text};

/// What LoRA adds matrices to (nemo/collections/llm/peft/lora.py): fused layers, not q_proj.
const LINEAR: &[&str] = &["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"];

#[rustfmt::skip]
pub static ARGUMENTS: Table = Table::new(&[
    DATASET_TEXT_FIELD,
    BATCH_SIZE.default(Integer(1)).native("data.micro_batch_size / train.micro_batch_size"),
    NUM_EPOCHS.native("trainer.max_epochs / train.num_epochs"),
    MAX_STEPS.native("trainer.max_steps / train.train_iters"),
    LR.default(Number(2e-5)).native("optim.config.lr / optimizer.lr"),
    MAX_SEQ_LEN.native("data.seq_length and model.config.seq_length"),
    GRADIENT_ACCUMULATION.derived("1, or derived from global_batch_size", parallel::gradient_accumulation),
    SAVE_STEPS.native("log.ckpt.every_n_train_steps / checkpoint.save_interval"),
    SAVE_TOTAL_LIMIT.native("log.ckpt.save_top_k / checkpoint.most_recent_k"),
    WARMUP_STEPS.native("optim.lr_scheduler.warmup_steps / scheduler.lr_warmup_iters"),
    WARMUP_RATIO.native("scheduler.lr_warmup_fraction"),
    WEIGHT_DECAY.default(Number(0.01)).native("optim.config.weight_decay"),
    MAX_GRAD_NORM.native("trainer.gradient_clip_val / optim.config.clip_grad"),
    number("min_lr", Interval::closed(0.0, 1.0)).alias(&["lr_min"]).default(Number(0.0)).native("optim.lr_scheduler.min_lr").about("Final learning rate"),
    SEED.default(Integer(1234)).native("data.seed / rng.seed"),
    LOGGING_STEPS.native("trainer.log_every_n_steps"),
    EVAL_STEPS.native("trainer.val_check_interval / validation.eval_interval"),
    EVAL_BATCH_SIZE.native("validation.eval_micro_batch_size"),
    DATALOADER_WORKERS.default(Integer(2)).native("data.num_workers"),
    TOKENIZER_NAME.native("tokenizer"),
    GLOBAL_BATCH_SIZE.native("data.global_batch_size / train.global_batch_size"),
    TENSOR_PARALLEL.alias(&["tp", "tensor_parallel_size", "tensor_model_parallel_size"]).native("trainer.strategy.tensor_model_parallel_size"),
    PIPELINE_PARALLEL.alias(&["pp", "pipeline_parallel_size", "pipeline_model_parallel_size"]).native("trainer.strategy.pipeline_model_parallel_size"),
    integer("virtual_pipeline_parallel", 1, 64).alias(&["vp", "vpp", "virtual_pipeline_model_parallel_size"]).native("trainer.strategy.virtual_pipeline_model_parallel_size").unit("stages").example(Integer(2)).about("Model chunks per pipeline stage"),
    CONTEXT_PARALLEL.native("trainer.strategy.context_parallel_size"),
    EXPERT_PARALLEL.alias(&["ep", "expert_parallel_size", "expert_model_parallel_size"]).native("trainer.strategy.expert_model_parallel_size"),
    integer("expert_tensor_parallel", 1, 64).alias(&["etp", "expert_tensor_parallel_size"]).same_as("tensor_parallel").native("trainer.strategy.expert_tensor_parallel_size").unit("GPUs").about("Number of GPUs that share each expert"),
    boolean("sequence_parallel").alias(&["sp"]).native("trainer.strategy.sequence_parallel").about("Split layer norms and dropout along the sequence, in addition to tensor_parallel"),
    integer("num_moe_experts", 1, 4096).alias(&["num_experts"]).native("model.config.num_moe_experts").unit("experts").example(Integer(8)).about("Number of experts of the model, to check expert_parallel"),
    choice("precision", &["bf16-mixed", "16-mixed", "32", "bf16-fp8", "bf16-mxfp8"]).alias(&["mixed_precision"]).default(Text("bf16-mixed")).value_alias(&[(Word("bf16"), "bf16-mixed"), (Word("fp16"), "16-mixed"), (Word("fp32"), "32")]).native("MegatronMixedPrecision precision and fp8").about("Number format for training"),
    choice("lr_scheduler", &["cosine", "linear", "constant", "inverse-square-root", "WSD"]).alias(&["lr_scheduler_type", "lr_decay_style", "scheduler"]).default(Text("cosine")).native("optim.lr_scheduler / scheduler.lr_decay_style").about("Schedule of the learning rate after warm-up"),
    PEFT_METHOD.choices(&["none", "lora", "dora"]).alias(&["peft", "peft_scheme"]).native("peft"),
    LORA_RANK.alias(&["lora_r", "lora_dim", "peft_dim"]).default(Integer(32)).native("LoRA dim"),
    LORA_ALPHA.default(Integer(32)).native("LoRA alpha"),
    LORA_DROPOUT.default(Number(0.0)).native("LoRA dropout"),
    LORA_TARGET_MODULES.default(List(LINEAR)).form("linear_qkv, linear_proj, linear_fc1, linear_fc2 or a wildcard", is_target).native("LoRA target_modules"),
    choice("recompute_granularity", &["none", "selective", "full"]).alias(&["activation_checkpointing"]).default(Text("none")).native("model.config.recompute_granularity").about("Which activations to recompute in the backward pass to save memory"),
    PACKING.alias(&["packed_sequence"]).native("data.packed_sequence_specs"),
    boolean("fsdp").alias(&["use_megatron_fsdp"]).native("trainer.strategy.fsdp=megatron").about("Shard parameters, gradients and optimizer with Megatron-FSDP"),
    boolean("async_save").alias(&["ckpt_async_save", "async_checkpoint"]).native("trainer.strategy.ckpt_async_save / checkpoint.async_save").about("Write checkpoints in the background while training continues"),
    boolean("resume_past_end").native("resume.resume_past_end").about("Continue a finished run instead of refusing to resume it"),
    text("restore_from", 1, 512).alias(&["pretrained_checkpoint", "restore_path"]).form("a path or a nemo:// URI", is_restorable).native("resume.restore_config.path / checkpoint.pretrained_checkpoint").example(Text("nemo://meta-llama/Llama-3.1-8B")).about("Initial weights"),
    text("recipe", 1, 128).alias(&["factory"]).form("the name of a recipe: letters, digits and _", is_recipe).native("nemo llm finetune --factory / --recipe").example(Text("llama31_8b")).about("NeMo recipe to start from"),
    choice("gpu_arch", &["ampere", "hopper", "blackwell"]).alias(&["gpu_type"]).default(Text("hopper")).plugin_only().about("GPU generation, which determines some environment variables; not forwarded"),
    list("overrides").alias(&["hydra_overrides"]).default(List(&[])).form("an override such as ++a.b=c", is_override).native("++a.b=c / a.b=c").example(List(&["++trainer.val_check_interval=50"])).about("Overrides for NeMo settings that have no argument here"),
    MODEL_PARAMETERS,
])
.with_options(include_str!("../../sdk/known/nemo.txt"));

/// Hugging Face's names pass here: a rule refuses them with NeMo's own names.
fn is_target(module: &str) -> bool {
    LINEAR.contains(&module) || module.contains('*') || crate::rules::is_hugging_face_name(module)
}

/// AutoResume restores paths and nemo:// alone (nemo/lightning/resume.py).
fn is_restorable(path: &str) -> bool {
    path.starts_with("nemo://") || !path.contains("://")
}

fn is_recipe(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `^[+~]{0,2}[A-Za-z_][\w.@/]*(=.*)?$`
fn is_override(text: &str) -> bool {
    let signs = text.bytes().take_while(|b| b"+~".contains(b)).count();
    let key = text[signs..].split('=').next().unwrap_or_default();
    signs <= 2
        && key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || "_.@/".contains(c))
}
