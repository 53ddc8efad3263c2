//! The keys that `extra_args` may not hold, because something else of that name is there already.

/// The fields of the request. A person who writes one of them into `extra_args` put it one level
/// too deep.
const REQUEST_FIELDS: &[&str] = &[
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

/// Whether a key, with `-` made `_`, is a field of the request.
pub(crate) fn is_request_field(key: &str) -> bool {
    REQUEST_FIELDS.contains(&key)
}

/// Whether `--<key>` would be read as an option of `train.py`.
pub(crate) fn is_train_option(key: &str) -> bool {
    let option = key.replace('_', "-");
    TRAIN_OPTIONS.iter().any(|o| o.starts_with(&option))
}
