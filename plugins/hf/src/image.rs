//! The rules of hf for what the image and the machine have.

use trainer_plugin::{Launch, Rule, Violation, refuse, warn};

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    refuse("H22", "the default image contains the package that the optimizer needs", "transformers \
                                                                                      trainer_optimizer.py", trainer_image_has_optimizer),
    refuse("H23", "fp16 and GPU kernels for attention require GPUs", "accelerate, transformers", kernels_need_gpus),
    refuse("H24", "low-rank optimizers require optim_target_modules", "transformers \
                                                                       trainer_optimizer.py", low_rank_needs_modules),
    warn("W10", "the image must contain the package of each reporter, and a custom image that of \
                 the optimizer", "transformers trainer_optimizer.py, integration_utils.py", image_has_packages),
];

/// The image of this project, whatever its tag.
const TRAINER_IMAGE: &str = "ghcr.io/deepfinery/trainer";

/// Packages that the trainer image does not contain, with the optimizers that need them.
const OPTIMIZERS: &[(&str, &[&str])] = &[
    ("apollo-torch", &["apollo_adamw", "apollo_adamw_layerwise"]),
    (
        "galore-torch",
        &[
            "galore_adafactor",
            "galore_adafactor_layerwise",
            "galore_adamw",
            "galore_adamw_8bit",
            "galore_adamw_8bit_layerwise",
            "galore_adamw_layerwise",
        ],
    ),
    ("grokadamw", &["grokadamw"]),
    ("lomo-optim", &["lomo", "adalomo"]),
    (
        "schedulefree",
        &[
            "schedule_free_adamw",
            "schedule_free_radam",
            "schedule_free_sgd",
        ],
    ),
    ("torch-npu", &["adamw_torch_npu_fused"]),
    ("torch-optimi", &["stable_adamw"]),
    ("torch-xla", &["adamw_torch_xla"]),
    ("torchao", &["adamw_torch_4bit", "adamw_torch_8bit"]),
    ("torchdistx", &["adamw_anyprecision"]),
    (
        "bitsandbytes",
        &[
            "adamw_8bit",
            "adamw_bnb_8bit",
            "ademamix",
            "ademamix_8bit",
            "lion_32bit",
            "lion_8bit",
            "paged_adamw_32bit",
            "paged_adamw_8bit",
            "paged_ademamix_32bit",
            "paged_ademamix_8bit",
            "paged_lion_32bit",
            "paged_lion_8bit",
            "rmsprop_bnb",
            "rmsprop_bnb_32bit",
            "rmsprop_bnb_8bit",
        ],
    ),
];

/// Reporters whose packages the trainer image does not contain. Most have the name of their package.
const REPORTERS: &[(&str, &str)] = &[
    ("clearml", "clearml"),
    ("comet_ml", "comet-ml"),
    ("dvclive", "dvclive"),
    ("mlflow", "mlflow"),
    ("neptune", "neptune"),
    ("swanlab", "swanlab"),
    ("trackio", "trackio"),
    ("wandb", "wandb"),
];

fn trainer_image_has_optimizer(launch: &Launch) -> Option<Violation> {
    optimizer(launch).filter(|_| is_trainer_image(&launch.job.image))
}

/// On the local cluster the packages are those of its Python environment, so a reporter, which many
/// install there, is only warned of.
fn image_has_packages(launch: &Launch) -> Option<Violation> {
    let optimizer = optimizer(launch).filter(|_| !is_trainer_image(&launch.job.image));
    optimizer.or_else(|| reporter(launch))
}

fn optimizer(launch: &Launch) -> Option<Violation> {
    let optimizer = launch.text("optim")?;
    // The weights of qlora need bitsandbytes too, which train.py looks for first.
    let quantized = launch.text("peft_method")? == "qlora";
    let (package, _) = OPTIMIZERS
        .iter()
        .find(|(_, optimizers)| optimizers.contains(&optimizer.as_ref()))
        .filter(|(package, _)| !(quantized && *package == "bitsandbytes"))?;
    Violation::new(
        &["optim"],
        format!(
            "extra_args.optim {optimizer} needs the package {package}: {}",
            remedy(launch)
        ),
    )
}

fn reporter(launch: &Launch) -> Option<Violation> {
    let (reporter, package) = launch
        .items("report_to")
        .find_map(|item| REPORTERS.iter().find(|(reporter, _)| *reporter == item))?;
    Violation::new(
        &["report_to"],
        format!(
            "extra_args.report_to {reporter} needs the package {package}: {}",
            remedy(launch)
        ),
    )
}

fn remedy(launch: &Launch) -> String {
    match is_trainer_image(&launch.job.image) {
        true => format!(
            "{} does not contain it; set image to one that does",
            launch.job.image
        ),
        false => "make sure that the image contains it".to_string(),
    }
}

fn is_trainer_image(image: &str) -> bool {
    let rest = image.strip_prefix(TRAINER_IMAGE);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
}

fn kernels_need_gpus(launch: &Launch) -> Option<Violation> {
    if launch.job.gpus_per_node > 0 {
        return None;
    }
    if launch.text("precision")? == "fp16" {
        return Violation::new(
            &["fp16", "precision"],
            "extra_args.precision fp16 requires GPUs; with gpus_per_node 0 use bf16 or fp32",
        );
    }
    let attention = launch.text("attn_implementation")?;
    let on_gpus = attention.starts_with("flash_attention") || attention == "flex_attention";
    if !on_gpus {
        return None;
    }
    Violation::new(
        &["attn_implementation"],
        format!(
            "extra_args.attn_implementation {attention} requires GPUs; with gpus_per_node 0 use \
             sdpa or eager"
        ),
    )
}

fn low_rank_needs_modules(launch: &Launch) -> Option<Violation> {
    let optimizer = launch.text("optim")?;
    let low_rank = optimizer.starts_with("galore_") || optimizer.starts_with("apollo_");
    if !low_rank || launch.is_given("optim_target_modules") {
        return None;
    }
    Violation::new(
        &["optim"],
        format!("extra_args.optim {optimizer} requires optim_target_modules"),
    )
}
