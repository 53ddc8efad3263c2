//! The rules of meta across arguments, one line each.

mod sizes;

use sizes::Sizes;
pub use sizes::parallelism;

use trainer_plugin::rules::{
    global_batch_agrees, global_batch_of_micro_steps, key_value_heads_split_by_tensor,
    query_heads_split_by_tensor, sequence_within_positions, tensor_parallel_within_node,
};
use trainer_plugin::{Breach, Launch, Rule, Violation, refuse, warn};

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    warn("W06", "tensor_parallel stays within a node", "experience", tensor_parallel_within_node),
    refuse("M01", "if dp_shard is -1, the product of the other sizes divides the world size", "torchtitan/distributed/parallel_dims.py", sizes_divide_world),
    refuse("M02", "if dp_shard is set, the product of all sizes equals the world size", "torchtitan/distributed/parallel_dims.py", sizes_make_world),
    refuse("M03", "expert_parallel divides dp_shard * context_parallel * tensor_parallel", "torchtitan/distributed/parallel_dims.py", experts_spread_evenly),
    refuse("M05", "global_batch_size is a multiple of batch_size * data parallel size", "torchtitan/train.py", global_batch_of_micro_steps),
    refuse("M05", "global_batch_size is batch_size * data parallel size * gradient_accumulation", "torchtitan/train.py", global_batch_agrees),
    refuse("M06", "optimizer_in_bwd excludes gradient accumulation and clipping", "train.py", optimizer_in_backward_is_alone),
    refuse("M08", "float8 excludes context_parallel", "torchtune recipes/full_finetune_distributed.py", float8_without_context),
    refuse("M09", "activation_offloading requires activation_checkpoint", "train.py", offloading_needs_checkpoint),
    refuse("M10", "with pipeline_parallel, batch_size is a multiple of pipeline_microbatch_size", "torchtitan/distributed/pipeline_parallel.py", batch_of_microbatches),
    refuse("M11", "pipeline arguments require pipeline_parallel > 1", "torchtitan/distributed/pipeline_parallel.py", pipeline_arguments_need_pipeline),
    refuse("M12", "the backend supports the requested parallelism", "train.py", backend_has_parallelism),
    refuse("M13", "max_seq_len is a multiple of tensor_parallel * 2 * context_parallel", "torchtitan/distributed/parallel_dims.py seq_len_divisor", sequence_splits_evenly),
    refuse("M14", "backend torchtitan requires max_steps", "torchtitan/config/job_config.py", titan_trains_by_steps),
    refuse("M15", "backend torchtitan does not support peft_method", "torchtitan/config/job_config.py", titan_has_no_adapters),
    refuse("M16", "backend fsdp does not support qlora", "train.py", plain_loop_is_not_quantized),
    refuse("M17", "save_hf excludes peft_method", "train.py", whole_weights_are_saved),
    refuse("M18", "backend torchtitan does not support optimizer_in_bwd, activation_offloading and assistant_only_loss", "torchtitan/config", titan_lacks),
    refuse("M19", "float8 and torchtitan require GPUs", "train.py, torchao", gpus_are_there),
    refuse("M20", "init random excludes initial_load_path", "definition", random_weights_are_not_loaded),
    refuse("M21", "tensor_parallel divides the model's query heads", "torchtitan/models/llama3", query_heads_split_by_tensor),
    refuse("M21", "tensor_parallel divides the model's heads of keys and values", "torchtitan/models/llama3", key_value_heads_split_by_tensor),
    refuse("M22", "each stage of pipeline_parallel has a layer of the model", "torchtitan/distributed/pipeline_parallel.py", stages_have_layers),
    warn("W14", "max_seq_len is within the positions that the model was made for", "the model's config.json", sequence_within_positions),
    warn("W09", "there are at least as many pipeline microbatches as stages", "torchtitan/distributed/pipeline_parallel.py", enough_microbatches),
];

const SIZES: &[&str] = &[
    "tensor_parallel",
    "pipeline_parallel",
    "context_parallel",
    "dp_replicate",
    "dp_shard",
];

fn sizes_divide_world(launch: &Launch) -> Option<Violation> {
    let sizes = Sizes::of(launch)?;
    let product = sizes.others();
    if sizes.shard != -1 || launch.world_size() % product == 0 {
        return None;
    }
    let Sizes {
        replicate,
        context,
        tensor,
        pipeline,
        ..
    } = sizes;
    Violation::new(
        SIZES,
        format!(
            "extra_args: dp_replicate ({replicate}) * context_parallel ({context}) * \
             tensor_parallel ({tensor}) * pipeline_parallel ({pipeline}) = {product} does not \
             divide {}",
            launch.world()
        ),
    )
}

fn sizes_make_world(launch: &Launch) -> Option<Violation> {
    let sizes = Sizes::of(launch)?;
    let product = sizes.shard * sizes.others();
    if sizes.shard == -1 || product == launch.world_size() {
        return None;
    }
    let Sizes {
        replicate,
        shard,
        context,
        tensor,
        pipeline,
    } = sizes;
    Violation::new(
        &["dp_shard"],
        format!(
            "extra_args: dp_replicate ({replicate}) * dp_shard ({shard}) * context_parallel \
             ({context}) * tensor_parallel ({tensor}) * pipeline_parallel ({pipeline}) = {product} \
             must equal {}",
            launch.world()
        ),
    )
}

fn experts_spread_evenly(launch: &Launch) -> Option<Violation> {
    let expert = launch.parallelism?.expert;
    if expert == 1 {
        return None;
    }
    let sizes = Sizes::of(launch)?;
    let product = sizes.shard_of(launch.world_size())? * sizes.context * sizes.tensor;
    if product % expert == 0 {
        return None;
    }
    Violation::new(
        &["expert_parallel"],
        format!(
            "extra_args.expert_parallel ({expert}) must divide dp_shard * context_parallel * \
             tensor_parallel ({product})"
        ),
    )
}

fn optimizer_in_backward_is_alone(launch: &Launch) -> Option<Violation> {
    const IT: &[&str] = &["optimizer_in_bwd"];
    if !launch.is_on("optimizer_in_bwd") {
        return None;
    }
    let requires = |what: &str| {
        let detail = format!("extra_args.optimizer_in_bwd requires {what}");
        Breach::new(IT, detail)
    };
    let accumulates = launch
        .integer("gradient_accumulation")
        .is_some_and(|n| n != 1);
    let clips = launch.number("max_grad_norm").is_some_and(|n| n != 0.0);
    let breaches = [
        accumulates.then(|| requires("gradient_accumulation 1")),
        clips.then(|| requires("max_grad_norm 0")),
    ];
    Violation::all(breaches.into_iter().flatten())
}

fn float8_without_context(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("float8") || launch.integer("context_parallel")? == 1 {
        return None;
    }
    Violation::new(
        &["float8"],
        "extra_args.float8 is not supported with context_parallel > 1",
    )
}

fn offloading_needs_checkpoint(launch: &Launch) -> Option<Violation> {
    let on = launch.is_on("activation_offloading");
    if !on || launch.text("activation_checkpoint")? != "none" {
        return None;
    }
    Violation::new(
        &["activation_offloading"],
        "extra_args.activation_offloading requires activation_checkpoint",
    )
}

fn batch_of_microbatches(launch: &Launch) -> Option<Violation> {
    if launch.integer("pipeline_parallel")? == 1 {
        return None;
    }
    let batch = launch.integer("batch_size")?;
    let micro = launch.integer("pipeline_microbatch_size")?;
    if batch % micro == 0 {
        return None;
    }
    Violation::new(
        &["batch_size", "pipeline_microbatch_size"],
        format!(
            "extra_args.batch_size ({batch}) must be a multiple of pipeline_microbatch_size \
             ({micro})"
        ),
    )
}

fn pipeline_arguments_need_pipeline(launch: &Launch) -> Option<Violation> {
    const ARGUMENTS: [&[&str]; 2] = [&["pipeline_schedule"], &["pipeline_microbatch_size"]];
    if launch.integer("pipeline_parallel")? > 1 {
        return None;
    }
    let given = ARGUMENTS
        .into_iter()
        .filter(|name| launch.is_given(name[0]));
    Violation::all(given.map(|name| {
        let detail = format!("extra_args.{} requires pipeline_parallel > 1", name[0]);
        Breach::new(name, detail)
    }))
}

fn backend_has_parallelism(launch: &Launch) -> Option<Violation> {
    let backend = launch.text("backend")?;
    if backend != "fsdp" {
        return None;
    }
    let split = |name| launch.integer(name).is_some_and(|size| size > 1);
    let stages = split("pipeline_parallel") || split("expert_parallel");
    let layers = split("tensor_parallel") || split("context_parallel");
    let breaches = [
        stages.then(|| {
            let detail = format!(
                "extra_args: pipeline_parallel and expert_parallel need backend torchtitan, got \
                 {backend}"
            );
            Breach::new(&["pipeline_parallel", "expert_parallel"], detail)
        }),
        layers.then(|| {
            // Golden refusals fix the sentence. A request for torchtune is refused with the reason.
            let detail = format!(
                "extra_args: tensor_parallel and context_parallel need backend torchtitan or \
                 torchtune, got {backend}"
            );
            Breach::new(&["tensor_parallel", "context_parallel"], detail)
        }),
    ];
    Violation::all(breaches.into_iter().flatten())
}

fn sequence_splits_evenly(launch: &Launch) -> Option<Violation> {
    let length = launch.integer("max_seq_len")?;
    let (tensor, context) = (
        launch.integer("tensor_parallel")?,
        launch.integer("context_parallel")?,
    );
    // torchtitan asks for it with sizes of 1 too; other backends have nothing to split then.
    let splits = tensor * context > 1 || launch.text("backend")? == "torchtitan";
    let pieces = tensor * 2 * context;
    if !splits || length % pieces == 0 {
        return None;
    }
    Violation::new(
        &["max_seq_len", "tensor_parallel", "context_parallel"],
        format!(
            "extra_args.max_seq_len ({length}) must be a multiple of tensor_parallel * 2 * \
             context_parallel ({pieces})"
        ),
    )
}

fn titan_trains_by_steps(launch: &Launch) -> Option<Violation> {
    let by_steps = launch.is_given("max_steps") || launch.arguments.is_refused("max_steps");
    if launch.text("backend")? != "torchtitan" || by_steps {
        return None;
    }
    Violation::new(
        &["num_epochs", "backend"],
        "backend torchtitan trains by steps: give max_steps",
    )
}

fn plain_loop_is_not_quantized(launch: &Launch) -> Option<Violation> {
    if launch.text("backend")? != "fsdp" || launch.text("peft_method")? != "qlora" {
        return None;
    }
    Violation::new(
        &["peft_method"],
        "extra_args.peft_method qlora: backend fsdp does not support 4-bit weights; use lora, or \
         framework hf",
    )
}

fn whole_weights_are_saved(launch: &Launch) -> Option<Violation> {
    let method = launch.text("peft_method")?;
    if !launch.is_on("save_hf") || launch.text("backend")? != "fsdp" || method == "none" {
        return None;
    }
    Violation::new(
        &["save_hf"],
        format!(
            "extra_args.save_hf writes full weights, which peft_method {method} does not train; \
             remove one of them"
        ),
    )
}

fn titan_lacks(launch: &Launch) -> Option<Violation> {
    const ARGUMENTS: [&[&str]; 3] = [
        &["optimizer_in_bwd"],
        &["activation_offloading"],
        &["assistant_only_loss"],
    ];
    if launch.text("backend")? != "torchtitan" {
        return None;
    }
    let on = ARGUMENTS.into_iter().filter(|name| launch.is_on(name[0]));
    Violation::all(on.map(|name| {
        let detail = format!(
            "extra_args.{}: not supported by backend torchtitan; remove it",
            name[0]
        );
        Breach::new(name, detail)
    }))
}

fn random_weights_are_not_loaded(launch: &Launch) -> Option<Violation> {
    if launch.text("init")? != "random" || !launch.is_given("initial_load_path") {
        return None;
    }
    Violation::new(
        &["init"],
        "extra_args.init random excludes initial_load_path: leave one of them out",
    )
}

fn gpus_are_there(launch: &Launch) -> Option<Violation> {
    if launch.job.gpus_per_node > 0 {
        return None;
    }
    if launch.text("backend")? == "torchtitan" {
        return Violation::new(
            &["backend"],
            "extra_args.backend torchtitan requires GPUs; omit it if gpus_per_node is 0",
        );
    }
    if !launch.is_on("float8") {
        return None;
    }
    Violation::new(
        &["float8"],
        "extra_args.float8 requires GPUs of the Hopper generation or later; omit it if \
         gpus_per_node is 0",
    )
}

fn titan_has_no_adapters(launch: &Launch) -> Option<Violation> {
    if launch.text("backend")? != "torchtitan" || launch.text("peft_method")? == "none" {
        return None;
    }
    Violation::new(
        &["peft_method"],
        "backend torchtitan does not support peft_method; omit backend or peft_method",
    )
}

fn stages_have_layers(launch: &Launch) -> Option<Violation> {
    let (stages, layers) = (launch.integer("pipeline_parallel")?, launch.shape()?.layers);
    if u64::try_from(stages).is_ok_and(|stages| stages <= layers) {
        return None;
    }
    Violation::new(
        &["pipeline_parallel"],
        format!(
            "extra_args.pipeline_parallel ({stages}) must not exceed the {layers} layers of {}",
            launch.job.model_id
        ),
    )
}

fn enough_microbatches(launch: &Launch) -> Option<Violation> {
    let stages = launch.integer("pipeline_parallel")?;
    if stages == 1 {
        return None;
    }
    let batches = launch.integer("batch_size")? / launch.integer("pipeline_microbatch_size")?;
    if batches >= stages {
        return None;
    }
    Violation::new(
        &["pipeline_parallel"],
        format!(
            "fewer pipeline microbatches ({batches}) than pipeline_parallel ({stages}): some \
             stages will be idle"
        ),
    )
}
