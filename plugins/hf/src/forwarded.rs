//! The rules of hf for arguments that are only forwarded to transformers, which refuses some values.

use trainer_plugin::{Breach, Launch, Rule, Violation, refuse};

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    refuse("H29", "dataloader_persistent_workers requires dataloader_workers", "torch DataLoader", persistent_needs_workers),
    refuse("H30", "tf32 requires GPUs", "transformers training_args.py", tf32_needs_gpus),
    refuse("H31", "arguments that are forwarded have values that transformers accepts", "transformers training_args.py", words_are_known),
    refuse("H32", "numbers that are forwarded are in the range that transformers accepts", "transformers training_args.py, torch.optim", numbers_are_in_range),
];

/// Arguments with few values.
const WORDS: &[(&[&str], &[&str])] = &[
    (
        &["train_sampling_strategy"],
        &["random", "sequential", "group_by_length"],
    ),
    (&["logging_strategy"], &["no", "steps", "epoch"]),
    (&["log_level"], LEVELS),
    (&["log_level_replica"], LEVELS),
    (
        &["hub_strategy"],
        &["end", "every_save", "checkpoint", "all_checkpoints"],
    ),
    (
        &["dataloader_multiprocessing_context"],
        &["fork", "spawn", "forkserver"],
    ),
    (
        &["torch_compile_mode"],
        &[
            "default",
            "reduce-overhead",
            "max-autotune",
            "max-autotune-no-cudagraphs",
        ],
    ),
];
const LEVELS: &[&str] = &[
    "passive", "detail", "debug", "info", "warning", "error", "critical",
];

/// Numbers with a minimum, and perhaps a limit that they must stay below.
const NUMBERS: &[(&[&str], f64, Option<f64>)] = &[
    (&["eval_accumulation_steps"], 1.0, None),
    (&["torch_empty_cache_steps"], 1.0, None),
    (&["neftune_noise_alpha"], 0.0, None),
    (&["adam_beta1"], 0.0, Some(1.0)),
    (&["adam_beta2"], 0.0, Some(1.0)),
    (&["adam_epsilon"], 0.0, None),
    (&["label_smoothing_factor"], 0.0, Some(1.0)),
];

fn persistent_needs_workers(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("dataloader_persistent_workers") || launch.integer("dataloader_workers")? > 0 {
        return None;
    }
    Violation::new(
        &["dataloader_persistent_workers"],
        "extra_args.dataloader_persistent_workers requires dataloader_workers > 0",
    )
}

fn tf32_needs_gpus(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("tf32") || launch.has_gpus() {
        return None;
    }
    Violation::new(
        &["tf32"],
        "extra_args.tf32 requires GPUs of the Ampere generation or later; omit it if gpus_per_node \
         is 0",
    )
}

fn words_are_known(launch: &Launch) -> Option<Violation> {
    let wrong = WORDS.iter().filter_map(|(arguments, words)| {
        let given = launch.text(arguments[0])?;
        let detail = || {
            let (name, words) = (arguments[0], words.join(", "));
            format!("extra_args.{name}: {given:?} is unknown; choose one of {words}")
        };
        (!words.contains(&given.as_ref())).then(|| Breach::new(arguments, detail()))
    });
    Violation::all(wrong)
}

fn numbers_are_in_range(launch: &Launch) -> Option<Violation> {
    let wrong = NUMBERS.iter().filter_map(|(arguments, least, below)| {
        let given = launch.number(arguments[0])?;
        let is_right = given >= *least && below.is_none_or(|below| given < below);
        let upper = below.map_or(String::new(), |below| format!(" and less than {below}"));
        let name = arguments[0];
        let detail = || format!("extra_args.{name} ({given}) must be at least {least}{upper}");
        (!is_right).then(|| Breach::new(arguments, detail()))
    });
    Violation::all(wrong)
}
