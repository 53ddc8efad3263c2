//! The rules of hf for what the image and the machine have.

use trainer_plugin::{Breach, Launch, Rule, Violation, refuse, warn};

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    refuse("H22", "the image contains the packages that the arguments need", "transformers \
                                                                              import_utils.py", image_has_packages),
    refuse("H23", "fp16, use_liger_kernel and GPU kernels for attention require GPUs", "accelerate, transformers", kernels_need_gpus),
    refuse("H24", "low-rank optimizers require optim_target_modules", "transformers \
                                                                       trainer_optimizer.py", low_rank_needs_modules),
    refuse("H28", "eval_on_start requires evaluation", "transformers trainer.py", evaluation_at_start_needs_data),
    warn("W10", "an image whose packages are not known must contain those of the optimizer and of \
                 reporters", "transformers trainer_optimizer.py, integration_utils.py", image_may_lack_packages),
];

/// Optimizers that need a package.
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

/// Reporters and their packages.
const REPORTERS: &[(&str, &str)] = &[
    ("clearml", "clearml"),
    ("comet_ml", "comet-ml"),
    ("dvclive", "dvclive"),
    ("mlflow", "mlflow"),
    ("neptune", "neptune"),
    ("swanlab", "swanlab"),
    ("tensorboard", "tensorboard"),
    ("trackio", "trackio"),
    ("wandb", "wandb"),
];

/// An argument that needs a package.
struct Need {
    arguments: &'static [&'static str],
    /// The argument and its value.
    shown: String,
    package: &'static str,
}

impl Need {
    fn new(arguments: &'static [&'static str], value: &str, package: &'static str) -> Self {
        let space = if value.is_empty() { "" } else { " " };
        Self {
            arguments,
            shown: ["extra_args.", arguments[0], space, value].concat(),
            package,
        }
    }

    fn breach(&self, remedy: &str) -> Breach {
        let Self { shown, package, .. } = self;
        let detail = format!("{shown} needs the package {package}: {remedy}");
        Breach::new(self.arguments, detail)
    }
}

fn image_has_packages(launch: &Launch) -> Option<Violation> {
    let missing = needs(launch)
        .into_iter()
        .filter(|need| launch.image_has(need.package) == Some(false));
    let image = &launch.job.image;
    let remedy = format!("{image} does not contain it; set image to one that does");
    Violation::all(missing.map(|need| need.breach(&remedy)))
}

fn image_may_lack_packages(launch: &Launch) -> Option<Violation> {
    if launch.packages.is_some() {
        return None;
    }
    let needs = optimizer(launch).into_iter().chain(reporters(launch));
    Violation::all(needs.map(|need| need.breach("make sure that the image contains it")))
}

fn needs(launch: &Launch) -> Vec<Need> {
    let quantized = launch
        .text("peft_method")
        .is_some_and(|method| method == "qlora");
    let sharded = launch.is_given("deepspeed");
    let fused = launch.is_on("use_liger_kernel");
    let attention = launch.text("attn_implementation");
    let on_hopper = attention.is_some_and(|attention| attention == "flash_attention_3");
    let others = [
        on_hopper.then(|| {
            Need::new(
                &["attn_implementation"],
                "flash_attention_3",
                "flash-attn-3",
            )
        }),
        quantized.then(|| Need::new(&["peft_method"], "qlora", "bitsandbytes")),
        sharded.then(|| Need::new(&["deepspeed"], "", "deepspeed")),
        fused.then(|| Need::new(&["use_liger_kernel"], "", "liger-kernel")),
    ];
    let others = others.into_iter().flatten();
    optimizer(launch)
        .into_iter()
        .chain(reporters(launch))
        .chain(others)
        .collect()
}

fn optimizer(launch: &Launch) -> Option<Need> {
    let optimizer = launch.text("optim")?;
    let mut packages = OPTIMIZERS.iter();
    let (package, _) = packages.find(|(_, names)| names.contains(&optimizer.as_ref()))?;
    Some(Need::new(&["optim"], &optimizer, package))
}

fn reporters(launch: &Launch) -> impl Iterator<Item = Need> {
    let named = |item| REPORTERS.iter().find(|(reporter, _)| *reporter == item);
    let named = launch.items("report_to").filter_map(named);
    named.map(|(reporter, package)| Need::new(&["report_to"], reporter, package))
}

fn evaluation_at_start_needs_data(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("eval_on_start") || launch.text("eval_strategy")? != "no" {
        return None;
    }
    Violation::new(
        &["eval_on_start"],
        "extra_args.eval_on_start requires eval_strategy steps or epoch",
    )
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
    if launch.is_on("use_liger_kernel") {
        return Violation::new(
            &["use_liger_kernel"],
            "extra_args.use_liger_kernel requires GPUs; omit it if gpus_per_node is 0",
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
