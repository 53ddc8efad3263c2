//! The rules of hf across arguments, one line each.

use trainer_plugin::rules::sequence_within_positions;
use trainer_plugin::{Launch, Rule, Violation, refuse, warn};

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    refuse("H01", "at most one of bf16 and fp16 is true, and precision does not contradict it", "transformers training_args.py", one_precision),
    refuse("H02", "eval_steps requires eval_strategy steps", "transformers training_args.py, which ignores eval_steps otherwise", eval_steps_need_strategy),
    refuse("H03", "load_best_model_at_end requires evaluating whenever a checkpoint is saved", "transformers training_args.py", best_model_evaluates_when_saving),
    refuse("H04", "with load_best_model_at_end, save_steps is a multiple of eval_steps", "transformers training_args.py", best_model_saves_what_it_evaluated),
    refuse("H05", "save_strategy best requires evaluation", "transformers trainer.py", best_needs_evaluation),
    refuse("H06", "fsdp and deepspeed exclude each other", "transformers, accelerate", one_engine),
    refuse("H07", "fsdp_offload requires fsdp", "definition", offload_needs_fsdp),
    refuse("H08", "fsdp requires more than one process", "definition", fsdp_needs_processes),
    refuse("H12", "resume_from_checkpoint excludes save_only_model", "transformers \
                                                                      training_args.py", resume_needs_state),
    refuse("H13", "dataset_streaming requires max_steps", "transformers training_args.py", streaming_needs_steps),
    refuse("H14", "dataloader_prefetch_factor requires dataloader_workers", "transformers training_args.py", prefetch_needs_workers),
    refuse("H19", "report_to none excludes other reporters", "transformers integration_utils.py", none_reports_alone),
    refuse("H20", "dataset_streaming excludes evaluation", "train.py: a stream is read once and in \
                                                            order, so no rows can be held out", streaming_without_evaluation),
    refuse("H21", "train_sampling_strategy group_by_length requires packing or assistant_only_loss", "transformers trainer_pt_utils.py", grouping_needs_columns),
    refuse("H25", "dataset_streaming excludes assistant_only_loss", "TRL, which reads the dataset before it trains", streaming_has_an_effect),
    refuse("H26", "qlora requires a model with weights", "train.py, whose debug models have no pretrained weights", weights_to_quantize),
    refuse("H27", "max_seq_len is within the positions of the model", "config.json of the model; train.py checks it", sequence_within_positions),
    warn("W04", "trust_remote_code runs third-party code", "transformers", remote_code),
    warn("W07", "qlora with deepspeed zero3 depends on bitsandbytes", "experience", quantized_zero3),
    warn("W08", "with fsdp, activation checkpointing should be set in fsdp_config", "transformers \
                                                                                     training_args.py", checkpointing_within_fsdp),
];

fn one_precision(launch: &Launch) -> Option<Violation> {
    let (bf16, fp16) = (launch.is_on("bf16"), launch.is_on("fp16"));
    let precision = launch.text("precision")?;
    if (bf16 || precision == "bf16") && fp16 || (fp16 || precision == "fp16") && bf16 {
        return Violation::new(
            &["fp16", "bf16", "precision"],
            "extra_args: at most one of bf16 and fp16 can be true",
        );
    }
    if precision == "fp32" && (bf16 || fp16) {
        let on = if bf16 { "bf16" } else { "fp16" };
        return Violation::new(
            &["precision"],
            format!("extra_args.precision fp32 contradicts {on}"),
        );
    }
    None
}

fn eval_steps_need_strategy(launch: &Launch) -> Option<Violation> {
    let strategy = launch.text("eval_strategy")?;
    if !launch.is_given("eval_steps") || strategy == "steps" {
        return None;
    }
    Violation::new(
        &["eval_steps"],
        format!("extra_args.eval_steps requires eval_strategy steps, got {strategy}"),
    )
}

fn best_model_evaluates_when_saving(launch: &Launch) -> Option<Violation> {
    let (save, eval) = (launch.text("save_strategy")?, launch.text("eval_strategy")?);
    let same = save == eval && eval != "no";
    if !launch.is_on("load_best_model_at_end") || save == "best" || same {
        return None;
    }
    let mut detail = format!(
        "extra_args.load_best_model_at_end requires save_strategy ({save}) to equal eval_strategy \
         ({eval}), or save_strategy best"
    );
    if save == eval {
        detail.push_str(", and evaluation");
    }
    Violation::new(&["load_best_model_at_end"], detail)
}

fn best_model_saves_what_it_evaluated(launch: &Launch) -> Option<Violation> {
    let by_steps = |name| launch.text(name).as_deref() == Some("steps");
    let (save, eval) = (launch.integer("save_steps")?, launch.integer("eval_steps")?);
    let matters = launch.is_on("load_best_model_at_end")
        && by_steps("save_strategy")
        && by_steps("eval_strategy");
    if !matters || save % eval == 0 {
        return None;
    }
    Violation::new(
        &["save_steps", "eval_steps"],
        format!(
            "extra_args.save_steps ({save}) must be a multiple of eval_steps ({eval}) with \
             load_best_model_at_end"
        ),
    )
}

fn best_needs_evaluation(launch: &Launch) -> Option<Violation> {
    if launch.text("save_strategy")? != "best" || launch.text("eval_strategy")? != "no" {
        return None;
    }
    Violation::new(
        &["save_strategy"],
        "extra_args.save_strategy best requires eval_strategy steps or epoch",
    )
}

fn uses_fsdp(launch: &Launch) -> Option<bool> {
    Some(launch.text("fsdp")? != "none")
}

fn one_engine(launch: &Launch) -> Option<Violation> {
    launch.text("deepspeed")?;
    if !uses_fsdp(launch)? {
        return None;
    }
    Violation::new(
        &["deepspeed"],
        "extra_args: fsdp and deepspeed are mutually exclusive",
    )
}

fn offload_needs_fsdp(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("fsdp_offload") || uses_fsdp(launch)? {
        return None;
    }
    Violation::new(&["fsdp_offload"], "extra_args.fsdp_offload requires fsdp")
}

fn fsdp_needs_processes(launch: &Launch) -> Option<Violation> {
    if !uses_fsdp(launch)? || launch.world_size() > 1 {
        return None;
    }
    Violation::new(&["fsdp"], "extra_args.fsdp requires a world size > 1")
}

fn resume_needs_state(launch: &Launch) -> Option<Violation> {
    if !launch.job.resume_from_checkpoint || !launch.is_on("save_only_model") {
        return None;
    }
    Violation::new(
        &["save_only_model"],
        "resume_from_checkpoint cannot restore a run saved with extra_args.save_only_model",
    )
}

fn streaming_needs_steps(launch: &Launch) -> Option<Violation> {
    let refused = launch.arguments.is_refused("max_steps");
    if !launch.is_on("dataset_streaming") || launch.is_given("max_steps") || refused {
        return None;
    }
    Violation::new(
        &["dataset_streaming"],
        "extra_args.dataset_streaming requires max_steps",
    )
}

fn prefetch_needs_workers(launch: &Launch) -> Option<Violation> {
    if !launch.is_given("dataloader_prefetch_factor") || launch.integer("dataloader_workers")? > 0 {
        return None;
    }
    Violation::new(
        &["dataloader_prefetch_factor"],
        "extra_args.dataloader_prefetch_factor requires dataloader_workers > 0",
    )
}

fn none_reports_alone(launch: &Launch) -> Option<Violation> {
    let reporters: Vec<&str> = launch.items("report_to").collect();
    if reporters.len() < 2 || !reporters.contains(&"none") {
        return None;
    }
    let others = reporters.into_iter().filter(|name| *name != "none");
    let others: Vec<&str> = others.collect();
    Violation::new(
        &["report_to"],
        format!(
            "extra_args.report_to: none cannot be combined with {}; remove one of them",
            others.join(", ")
        ),
    )
}

fn streaming_without_evaluation(launch: &Launch) -> Option<Violation> {
    let strategy = launch.text("eval_strategy")?;
    if !launch.is_on("dataset_streaming") || strategy == "no" {
        return None;
    }
    Violation::new(
        &["dataset_streaming"],
        format!(
            "extra_args.dataset_streaming cannot be combined with eval_strategy {strategy}, \
             because a stream is read once and in order, so no rows can be held out"
        ),
    )
}

fn grouping_needs_columns(launch: &Launch) -> Option<Violation> {
    let grouped = launch.text("train_sampling_strategy")? == "group_by_length";
    if !grouped || launch.is_on("packing") || launch.is_on("assistant_only_loss") {
        return None;
    }
    Violation::new(
        &["train_sampling_strategy"],
        "extra_args.train_sampling_strategy group_by_length requires packing or \
         assistant_only_loss; otherwise all sequences have the same length",
    )
}

fn streaming_has_an_effect(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("dataset_streaming") || !launch.is_on("assistant_only_loss") {
        return None;
    }
    Violation::new(
        &["dataset_streaming"],
        "extra_args.dataset_streaming cannot be combined with assistant_only_loss, which reads the \
         whole dataset before training",
    )
}

fn weights_to_quantize(launch: &Launch) -> Option<Violation> {
    let model = launch.job.model_id.as_str();
    let is_made = matches!(model, "llama-debug" | "gpt2-debug");
    if !is_made || launch.text("peft_method")? != "qlora" {
        return None;
    }
    Violation::new(
        &["peft_method"],
        format!(
            "extra_args.peft_method qlora: {model} has no pretrained weights to quantize; use \
             lora, or a model with weights"
        ),
    )
}

fn remote_code(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("trust_remote_code") {
        return None;
    }
    Violation::new(
        &["trust_remote_code"],
        "trust_remote_code runs code from the model repository",
    )
}

fn quantized_zero3(launch: &Launch) -> Option<Violation> {
    if launch.text("peft_method")? != "qlora" || launch.text("deepspeed")? != "zero3" {
        return None;
    }
    Violation::new(
        &["peft_method"],
        "qlora with deepspeed zero3: check bitsandbytes support",
    )
}

fn checkpointing_within_fsdp(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("gradient_checkpointing") || !uses_fsdp(launch)? {
        return None;
    }
    Violation::new(
        &["gradient_checkpointing"],
        "with fsdp prefer fsdp_config.activation_checkpointing over gradient_checkpointing",
    )
}
