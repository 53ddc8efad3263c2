//! The rules that frameworks share. A framework lists [`SHARED`] beside its own.

use crate::{Breach, Launch, Rule, Violation, memory, refuse, warn};

/// The rules that hold wherever their arguments are known.
pub const SHARED: &[Rule] = &[
    refuse(
        "X01",
        "warmup_steps and warmup_ratio exclude each other",
        "Megatron-Bridge SchedulerConfig",
        one_warmup,
    ),
    refuse(
        "X02",
        "warmup_steps is less than max_steps",
        "definition",
        warmup_ends,
    ),
    refuse(
        "X03",
        "min_lr does not exceed lr",
        "definition",
        min_lr_below_lr,
    ),
    refuse(
        "X04",
        "the lora arguments require peft_method",
        "definition",
        lora_needs_peft,
    ),
    warn(
        "W01",
        "max_steps overrides num_epochs",
        "transformers training_args.py",
        steps_or_epochs,
    ),
    warn(
        "W02",
        "save_steps does not exceed max_steps, otherwise only the final checkpoint is written",
        "definition",
        saves_before_the_end,
    ),
    warn("W03", "lr does not exceed 0.01", "experience", usual_lr),
    refuse(
        "X05",
        "the training fits the GPU memory of the profile, if the size of the model is known",
        "definition",
        memory::too_large,
    ),
    warn(
        "W13",
        "the training uses at most 85 % of that memory",
        "experience",
        memory::nearly_too_large,
    ),
];

/// A learning rate above it is a slip more often than a wish.
const HIGHEST_USUAL_LR: f64 = 1e-2;

fn one_warmup(launch: &Launch) -> Option<Violation> {
    if !(launch.is_given("warmup_steps") && launch.is_given("warmup_ratio")) {
        return None;
    }
    Violation::new(
        &["warmup_ratio"],
        "extra_args: warmup_steps and warmup_ratio are mutually exclusive",
    )
}

fn warmup_ends(launch: &Launch) -> Option<Violation> {
    let (warmup, steps) = (
        launch.integer("warmup_steps")?,
        launch.integer("max_steps")?,
    );
    if warmup < steps {
        return None;
    }
    Violation::new(
        &["warmup_steps"],
        format!("extra_args.warmup_steps ({warmup}) must be less than max_steps ({steps})"),
    )
}

fn min_lr_below_lr(launch: &Launch) -> Option<Violation> {
    let (min_lr, lr) = (launch.value("min_lr")?, launch.value("lr")?);
    if min_lr.as_f64()? <= lr.as_f64()? {
        return None;
    }
    Violation::new(
        &["min_lr", "lr"],
        format!("extra_args.min_lr ({min_lr}) must not exceed lr ({lr})"),
    )
}

fn lora_needs_peft(launch: &Launch) -> Option<Violation> {
    const LORA: [&[&str]; 4] = [
        &["lora_rank"],
        &["lora_alpha"],
        &["lora_dropout"],
        &["lora_target_modules"],
    ];
    if launch.text("peft_method")? != "none" {
        return None;
    }
    let given = LORA.into_iter().filter(|name| launch.is_given(name[0]));
    Violation::all(given.map(|name| {
        let detail = format!("extra_args.{} requires peft_method (lora, ...)", name[0]);
        Breach::new(name, detail)
    }))
}

fn steps_or_epochs(launch: &Launch) -> Option<Violation> {
    if !(launch.is_given("max_steps") && launch.is_given("num_epochs")) {
        return None;
    }
    Violation::new(
        &["num_epochs"],
        "extra_args: max_steps overrides num_epochs",
    )
}

fn saves_before_the_end(launch: &Launch) -> Option<Violation> {
    let (save, steps) = (launch.integer("save_steps")?, launch.integer("max_steps")?);
    // Where a framework can save otherwise than by steps, save_steps may mean nothing.
    let by_steps = launch.text("save_strategy").is_none_or(|s| s == "steps");
    if save <= steps || !by_steps {
        return None;
    }
    Violation::new(
        &["save_steps", "max_steps"],
        format!(
            "save_steps ({save}) is greater than max_steps ({steps}): \
             only the final checkpoint is written"
        ),
    )
}

fn usual_lr(launch: &Launch) -> Option<Violation> {
    let lr = launch.value("lr")?;
    if lr.as_f64()? <= HIGHEST_USUAL_LR {
        return None;
    }
    Violation::new(&["lr"], format!("extra_args.lr ({lr}) is unusually high"))
}

/// `tensor_parallel` stays inside a node, where the fast links are.
pub fn tensor_parallel_within_node(launch: &Launch) -> Option<Violation> {
    let tensor = launch.integer("tensor_parallel")?;
    let processes = launch.processes_per_node();
    if tensor <= processes {
        return None;
    }
    Violation::new(
        &["tensor_parallel"],
        format!(
            "tensor_parallel ({tensor}) spans nodes (gpus_per_node {processes}): \
             expect slow all-reduce"
        ),
    )
}

/// `max_seq_len` is no longer than what the model was made for.
pub fn sequence_within_positions(launch: &Launch) -> Option<Violation> {
    let (length, positions) = (launch.integer("max_seq_len")?, launch.shape()?.positions);
    if u64::try_from(length).is_ok_and(|length| length <= positions) {
        return None;
    }
    Violation::new(
        &["max_seq_len"],
        format!(
            "extra_args.max_seq_len ({length}) is longer than the {positions} positions that {} was \
             made for",
            launch.job.model_id
        ),
    )
}

/// `tensor_parallel` splits the query heads of the model evenly.
pub fn query_heads_split_by_tensor(launch: &Launch) -> Option<Violation> {
    split_by_tensor(launch, launch.shape()?.heads, "query heads")
}

/// `tensor_parallel` splits the heads of keys and values evenly.
pub fn key_value_heads_split_by_tensor(launch: &Launch) -> Option<Violation> {
    let heads = launch.shape()?.key_value_heads;
    split_by_tensor(launch, heads, "heads of keys and values")
}

fn split_by_tensor(launch: &Launch, heads: u64, what: &str) -> Option<Violation> {
    let tensor = launch.integer("tensor_parallel")?;
    if u64::try_from(tensor).is_ok_and(|tensor| heads.is_multiple_of(tensor)) {
        return None;
    }
    Violation::new(
        &["tensor_parallel"],
        format!(
            "extra_args.tensor_parallel ({tensor}) must divide the {heads} {what} of {}",
            launch.job.model_id
        ),
    )
}

/// `global_batch_size` is made of whole micro steps.
pub fn global_batch_of_micro_steps(launch: &Launch) -> Option<Violation> {
    let global = launch.integer("global_batch_size")?;
    let batch = launch.integer("batch_size")?;
    let data = launch.parallelism?.data;
    let micro = batch.saturating_mul(data);
    if global % micro == 0 {
        return None;
    }
    Violation::new(
        &["global_batch_size"],
        format!(
            "extra_args.global_batch_size ({global}) must be a multiple of batch_size ({batch}) \
             * data parallel size ({data}) = {micro}"
        ),
    )
}

/// `global_batch_size` is what the other arguments make, where all of them are given.
pub fn global_batch_agrees(launch: &Launch) -> Option<Violation> {
    if !launch.is_given("gradient_accumulation") {
        return None;
    }
    let global = launch.integer("global_batch_size")?;
    let batch = launch.integer("batch_size")?;
    let accumulation = launch.integer("gradient_accumulation")?;
    let data = launch.parallelism?.data;
    let product = batch.saturating_mul(data).saturating_mul(accumulation);
    if global == product {
        return None;
    }
    Violation::new(
        &["global_batch_size"],
        format!(
            "extra_args.global_batch_size ({global}) must equal batch_size ({batch}) * data \
             parallel size ({data}) * gradient_accumulation ({accumulation}) = {product}"
        ),
    )
}
