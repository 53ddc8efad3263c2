//! The rules of nemo across arguments, one line each.

use trainer_plugin::rules::{
    global_batch_agrees, global_batch_of_micro_steps, query_heads_split_by_tensor,
    sequence_within_positions, tensor_parallel_within_node,
};
use trainer_plugin::{Breach, Launch, Parallelism, Rule, Violation, refuse, warn};

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    warn("W06", "tensor_parallel stays within a node", "experience", tensor_parallel_within_node),
    refuse("N01", "tensor * pipeline * context parallel size divides the world size", "nemo/collections/llm/api.py, megatron/core/parallel_state.py", model_parallel_divides_world),
    refuse("N02", "global_batch_size is a multiple of batch_size * data parallel size", "nemo/collections/llm/api.py", global_batch_of_micro_steps),
    refuse("N03", "global_batch_size is batch_size * data parallel size * gradient_accumulation", "definition", global_batch_agrees),
    refuse("N04", "sequence_parallel requires tensor_parallel > 1", "megatron/core/model_parallel_config.py", sequence_parallel_needs_tensor),
    refuse("N05", "virtual_pipeline_parallel requires pipeline_parallel > 1", "megatron/core/parallel_state.py", virtual_needs_pipeline),
    refuse("N06", "with context_parallel, max_seq_len is a multiple of twice its size", "nemo/collections/llm/api.py", sequence_splits_by_context),
    refuse("N07", "expert tensor * expert * pipeline parallel size divides the world size", "megatron/core/parallel_state.py", expert_parallel_divides_world),
    refuse("N08", "num_moe_experts is a multiple of expert_parallel", "nemo/collections/llm/api.py", experts_spread_evenly),
    refuse("N09", "expert_parallel with tensor_parallel requires sequence_parallel", "megatron/core/transformer/transformer_config.py", experts_need_sequence_parallel),
    refuse("N10", "packing requires batch_size 1", "nemo/collections/llm/gpt/data/fine_tuning.py", packing_of_one),
    refuse("N11", "with sequence_parallel, max_seq_len is a multiple of tensor_parallel", "Megatron-Bridge padding", sequence_splits_by_tensor),
    refuse("N12", "lora_target_modules names NeMo's fused layers", "nemo/collections/llm/peft/lora.py", target_modules_are_nemos),
    refuse("N13", "fsdp excludes CUDA_DEVICE_MAX_CONNECTIONS=1", "megatron/training/arguments.py", fsdp_without_one_connection),
    refuse("N14", "with sequence_parallel, max_seq_len / context_parallel is a multiple of \
                   tensor_parallel", "megatron/core/tensor_parallel/mappings.py", parts_split_by_tensor),
    refuse("N15", "with virtual_pipeline_parallel, the number of microbatches is a multiple of \
                   pipeline_parallel", "megatron/core/pipeline_parallel/schedules.py", micro_batches_fill_stages),
    refuse("N16", "the GPUs support the precision: bf16-fp8 requires Hopper, bf16-mxfp8 requires \
                   Blackwell", "Transformer Engine", gpus_have_precision),
    refuse("N17", "nemo requires GPUs", "Megatron, NeMo AutoModel", gpus_are_there),
    refuse("N18", "tensor_parallel divides the model's query heads", "megatron/core/transformer/transformer_config.py", query_heads_split_by_tensor),
    refuse("N19", "pipeline_parallel * virtual_pipeline_parallel divides the model's layers", "megatron/core/transformer/transformer_config.py", layers_split_by_stages),
    warn("W14", "max_seq_len is within the positions that the model was made for", "the model's config.json", sequence_within_positions),
    warn("W12", "precision bf16-mxfp8 requires gpu_arch blackwell", "Transformer Engine", mxfp8_names_its_gpus),
];

/// Data parallel size: what tensor, pipeline and context parallelism leave of the world.
pub fn parallelism(launch: &Launch) -> Option<Parallelism> {
    let [tensor, pipeline, context] = model_parallel(launch)?;
    let (world, model) = (launch.world_size(), tensor * pipeline * context);
    (world % model == 0).then_some(Parallelism {
        data: world / model,
        tensor,
        pipeline,
        context,
        // It multiplies nothing, so the other sizes hold where it was refused.
        expert: launch.integer("expert_parallel").unwrap_or(1),
    })
}

fn model_parallel(launch: &Launch) -> Option<[i64; 3]> {
    Some([
        launch.integer("tensor_parallel")?,
        launch.integer("pipeline_parallel")?,
        launch.integer("context_parallel")?,
    ])
}

fn model_parallel_divides_world(launch: &Launch) -> Option<Violation> {
    if launch.parallelism.is_some() {
        return None;
    }
    let [tensor, pipeline, context] = model_parallel(launch)?;
    let product = tensor * pipeline * context;
    if launch.world_size() % product == 0 {
        return None;
    }
    Violation::new(
        &["tensor_parallel", "pipeline_parallel", "context_parallel"],
        format!(
            "extra_args: tensor_parallel ({tensor}) * pipeline_parallel ({pipeline}) * \
             context_parallel ({context}) = {product} does not divide {}",
            launch.world()
        ),
    )
}

fn sequence_parallel_needs_tensor(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("sequence_parallel") || launch.integer("tensor_parallel")? > 1 {
        return None;
    }
    Violation::new(
        &["sequence_parallel"],
        "extra_args.sequence_parallel requires tensor_parallel > 1",
    )
}

fn virtual_needs_pipeline(launch: &Launch) -> Option<Violation> {
    launch.integer("virtual_pipeline_parallel")?;
    if launch.integer("pipeline_parallel")? > 1 {
        return None;
    }
    Violation::new(
        &["virtual_pipeline_parallel"],
        "extra_args.virtual_pipeline_parallel requires pipeline_parallel > 1",
    )
}

fn sequence_splits_by_context(launch: &Launch) -> Option<Violation> {
    let (context, length) = (
        launch.integer("context_parallel")?,
        launch.integer("max_seq_len")?,
    );
    let pieces = 2 * context;
    if context == 1 || length % pieces == 0 {
        return None;
    }
    Violation::new(
        &["max_seq_len", "context_parallel"],
        format!(
            "extra_args.max_seq_len ({length}) must be a multiple of 2 * context_parallel \
             ({pieces})"
        ),
    )
}

fn expert_parallel_divides_world(launch: &Launch) -> Option<Violation> {
    let expert_tensor = launch.integer("expert_tensor_parallel")?;
    let expert = launch.integer("expert_parallel")?;
    let pipeline = launch.integer("pipeline_parallel")?;
    let product = expert_tensor * expert * pipeline;
    // Without experts it says nothing that N01 does not say.
    let asked = expert > 1 || launch.is_given("expert_tensor_parallel");
    if !asked || launch.world_size() % product == 0 {
        return None;
    }
    Violation::new(
        &[
            "expert_parallel",
            "expert_tensor_parallel",
            "pipeline_parallel",
        ],
        format!(
            "extra_args: expert_tensor_parallel ({expert_tensor}) * expert_parallel ({expert}) * \
             pipeline_parallel ({pipeline}) = {product} does not divide {}",
            launch.world()
        ),
    )
}

fn experts_spread_evenly(launch: &Launch) -> Option<Violation> {
    let (experts, expert) = (
        launch.integer("num_moe_experts")?,
        launch.integer("expert_parallel")?,
    );
    if experts % expert == 0 {
        return None;
    }
    Violation::new(
        &["num_moe_experts"],
        format!(
            "extra_args.num_moe_experts ({experts}) must be a multiple of expert_parallel \
             ({expert})"
        ),
    )
}

fn experts_need_sequence_parallel(launch: &Launch) -> Option<Violation> {
    let both = launch.integer("expert_parallel")? > 1 && launch.integer("tensor_parallel")? > 1;
    if !both || launch.is_on("sequence_parallel") {
        return None;
    }
    Violation::new(
        &["expert_parallel"],
        "extra_args: expert_parallel > 1 with tensor_parallel > 1 requires sequence_parallel",
    )
}

fn packing_of_one(launch: &Launch) -> Option<Violation> {
    let batch = launch.integer("batch_size")?;
    if !launch.is_on("packing") || batch == 1 {
        return None;
    }
    Violation::new(
        &["packing"],
        format!("extra_args.packing requires batch_size 1, got {batch}"),
    )
}

fn sequence_splits_by_tensor(launch: &Launch) -> Option<Violation> {
    let (tensor, length) = (
        launch.integer("tensor_parallel")?,
        launch.integer("max_seq_len")?,
    );
    if !launch.is_on("sequence_parallel") || length % tensor == 0 {
        return None;
    }
    Violation::new(
        &["max_seq_len", "sequence_parallel"],
        format!(
            "extra_args.max_seq_len ({length}) must be a multiple of tensor_parallel ({tensor}) \
             with sequence_parallel"
        ),
    )
}

fn target_modules_are_nemos(launch: &Launch) -> Option<Violation> {
    let foreign = launch
        .items("lora_target_modules")
        .filter(|module| is_hugging_face_name(module));
    Violation::all(foreign.map(|module| {
        let detail = format!(
            "extra_args.lora_target_modules: {module} is a Hugging Face name; use linear_qkv, \
             linear_proj, linear_fc1 or linear_fc2"
        );
        Breach::new(&["lora_target_modules"], detail)
    }))
}

/// Names of layers in transformers' models, which NeMo fuses into others. In a wildcard such as
/// `*.layers.0.*.linear_proj` the last name counts; those that begin with `linear` are Megatron's.
pub fn is_hugging_face_name(module: &str) -> bool {
    let layer = module.rsplit(['.', '*']).next().unwrap_or(module);
    let projection = layer.strip_suffix("_proj");
    projection.is_some_and(|of| !of.is_empty() && !of.starts_with("linear"))
        || ["all-linear", "c_attn", "c_fc", "query_key_value"].contains(&layer)
}

fn fsdp_without_one_connection(launch: &Launch) -> Option<Violation> {
    let mut variables = launch.job.environment.iter();
    let one = variables.any(|v| v.name == "CUDA_DEVICE_MAX_CONNECTIONS" && v.value == "1");
    if !(one && launch.is_on("fsdp")) {
        return None;
    }
    Violation::new(
        &["/env/CUDA_DEVICE_MAX_CONNECTIONS"],
        "env.CUDA_DEVICE_MAX_CONNECTIONS must not be 1 with extra_args.fsdp, because Megatron \
         rejects it",
    )
}

fn parts_split_by_tensor(launch: &Launch) -> Option<Violation> {
    let (context, tensor) = (
        launch.integer("context_parallel")?,
        launch.integer("tensor_parallel")?,
    );
    let length = launch.integer("max_seq_len")?;
    // Where it does not split by one of them alone, N06 and N11 say so.
    let splits = length % (2 * context) == 0 && length % tensor == 0;
    if !launch.is_on("sequence_parallel") || context == 1 || !splits {
        return None;
    }
    let part = length / context;
    if part % tensor == 0 {
        return None;
    }
    Violation::new(
        &["max_seq_len", "context_parallel", "tensor_parallel"],
        format!(
            "extra_args.max_seq_len ({length}) must be a multiple of context_parallel ({context}) \
             * tensor_parallel ({tensor}) = {} with sequence_parallel",
            context * tensor
        ),
    )
}

fn micro_batches_fill_stages(launch: &Launch) -> Option<Violation> {
    let (virtual_stages, stages) = (
        launch.integer("virtual_pipeline_parallel")?,
        launch.integer("pipeline_parallel")?,
    );
    // It follows from global_batch_size, where that is given.
    let micro_batches = launch.integer("gradient_accumulation")?;
    if virtual_stages == 1 || stages == 1 || micro_batches % stages == 0 {
        return None;
    }
    Violation::new(
        &[
            "gradient_accumulation",
            "global_batch_size",
            "virtual_pipeline_parallel",
        ],
        format!(
            "extra_args.virtual_pipeline_parallel: the number of microbatches per step \
             ({micro_batches}, gradient_accumulation) must be a multiple of pipeline_parallel \
             ({stages})"
        ),
    )
}

fn gpus_have_precision(launch: &Launch) -> Option<Violation> {
    let (precision, gpus) = (launch.text("precision")?, launch.text("gpu_arch")?);
    let fits = match precision.as_ref() {
        "bf16-fp8" => gpus != "ampere",
        "bf16-mxfp8" => gpus == "blackwell" || !launch.is_given("gpu_arch"),
        _ => true,
    };
    if fits {
        return None;
    }
    let from = if precision == "bf16-fp8" {
        "hopper"
    } else {
        "blackwell"
    };
    Violation::new(
        &["precision"],
        format!(
            "extra_args.precision {precision} requires gpu_arch {from} or later, got {gpus}; use \
             bf16-mixed"
        ),
    )
}

fn mxfp8_names_its_gpus(launch: &Launch) -> Option<Violation> {
    if launch.text("precision")? != "bf16-mxfp8" || launch.is_given("gpu_arch") {
        return None;
    }
    Violation::new(
        &["precision"],
        "extra_args.precision bf16-mxfp8 requires GPUs of the Blackwell generation; set gpu_arch \
         to blackwell",
    )
}

fn layers_split_by_stages(launch: &Launch) -> Option<Violation> {
    let (stages, layers) = (launch.integer("pipeline_parallel")?, launch.shape()?.layers);
    let pieces = stages * launch.integer("virtual_pipeline_parallel").unwrap_or(1);
    if u64::try_from(pieces).is_ok_and(|pieces| layers.is_multiple_of(pieces)) {
        return None;
    }
    Violation::new(
        &["pipeline_parallel", "virtual_pipeline_parallel"],
        format!(
            "extra_args: pipeline_parallel * virtual_pipeline_parallel ({pieces}) must divide the \
             {layers} layers of {}",
            launch.job.model_id
        ),
    )
}

fn gpus_are_there(launch: &Launch) -> Option<Violation> {
    if launch.job.gpus_per_node > 0 {
        return None;
    }
    Violation::new(
        &["/gpus_per_node"],
        "gpus_per_node: framework nemo requires GPUs; use framework hf or meta on CPUs",
    )
}
