//! The keys that `extra_args` may not hold, because something else of that name is there already.

/// The fields of the request. A person who writes one of them into `extra_args` put it one level
/// too deep.
pub(crate) const REQUEST_FIELDS: &[&str] = &[
    "annotations",
    "checkpoint_base_uri",
    "config_path",
    "cpus_per_node",
    "dataset_uri",
    "env",
    "extra_args",
    "framework",
    "gpus_per_node",
    "image",
    "job_name",
    "labels",
    "memory_per_node_gb",
    "model_id",
    "namespace",
    "num_nodes",
    "resume_from_checkpoint",
    "run_id",
];

/// The options of `train.py` itself. Python's argparse also takes each prefix of them, so a key
/// that is one would be swallowed: `--dataset x` would overwrite the dataset's URI.
const TRAIN_OPTIONS: &[&str] = &[
    "framework",
    "run-id",
    "checkpoint-base-uri",
    "checkpoint-prefix",
    "dataset-uri",
    "logs-uri",
    "config-uri",
    "config",
    "model-id",
    "resume",
    "extra-args-json",
    "help",
];

/// The options of torchrun, written from its source. Its parser looks at the words behind `train.py`
/// too, and stops at one that could be several of its options.
const TORCHRUN_OPTIONS: &str = include_str!("../known/torchrun.txt");

/// The option of torchrun that `--<key>` is, or begins.
pub(crate) fn torchrun_option(key: &str) -> Option<&'static str> {
    let options = TORCHRUN_OPTIONS
        .lines()
        .filter(|line| !line.starts_with('#'));
    let mut beginning = options.filter(|option| option.starts_with(key));
    beginning
        .clone()
        .find(|option| *option == key)
        .or_else(|| beginning.next())
}

/// Whether a key, with `-` made `_`, is a field of the request.
pub(crate) fn is_request_field(key: &str) -> bool {
    REQUEST_FIELDS.contains(&key)
}

/// Whether `--<key>` would be read as an option of `train.py`.
pub(crate) fn is_train_option(key: &str) -> bool {
    let option = key.replace('_', "-");
    TRAIN_OPTIONS.iter().any(|o| o.starts_with(&option))
}
