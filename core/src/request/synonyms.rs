//! Names from other launchers, schedulers and libraries that people use for fields of a request.

/// A name that people use, and the field that they mean.
const SYNONYMS: &[(&str, &str)] = &[
    ("model", "model_id"),
    ("model_name", "model_id"),
    ("model_name_or_path", "model_id"),
    ("base_model", "model_id"),
    ("pretrained_model", "model_id"),
    ("dataset", "dataset_uri"),
    ("data", "dataset_uri"),
    ("data_path", "dataset_uri"),
    ("data_uri", "dataset_uri"),
    ("dataset_path", "dataset_uri"),
    ("dataset_name", "dataset_uri"),
    ("train_data", "dataset_uri"),
    ("train_file", "dataset_uri"),
    ("run", "run_id"),
    ("run_name", "run_id"),
    ("experiment", "run_id"),
    ("experiment_name", "run_id"),
    ("output", "checkpoint_base_uri"),
    ("output_dir", "checkpoint_base_uri"),
    ("output_uri", "checkpoint_base_uri"),
    ("checkpoint_dir", "checkpoint_base_uri"),
    ("checkpoint_uri", "checkpoint_base_uri"),
    ("checkpoint_path", "checkpoint_base_uri"),
    ("save_dir", "checkpoint_base_uri"),
    ("gpus", "gpus_per_node"),
    ("gpu", "gpus_per_node"),
    ("num_gpus", "gpus_per_node"),
    ("n_gpus", "gpus_per_node"),
    ("gpu_count", "gpus_per_node"),
    ("devices", "gpus_per_node"),
    ("nproc_per_node", "gpus_per_node"),
    ("nodes", "num_nodes"),
    ("nnodes", "num_nodes"),
    ("n_nodes", "num_nodes"),
    ("node_count", "num_nodes"),
    ("replicas", "num_nodes"),
    ("workers", "num_nodes"),
    ("num_workers", "num_nodes"),
    ("cpu", "cpus_per_node"),
    ("cpus", "cpus_per_node"),
    ("num_cpus", "cpus_per_node"),
    ("memory", "memory_per_node_gb"),
    ("mem", "memory_per_node_gb"),
    ("memory_gb", "memory_per_node_gb"),
    ("ram", "memory_per_node_gb"),
    ("config", "config_path"),
    ("config_file", "config_path"),
    ("resume", "resume_from_checkpoint"),
    ("continue", "resume_from_checkpoint"),
    ("args", "extra_args"),
    ("arguments", "extra_args"),
    ("hyperparameters", "extra_args"),
    ("hyperparams", "extra_args"),
    ("hparams", "extra_args"),
    ("params", "extra_args"),
    ("parameters", "extra_args"),
    ("overrides", "extra_args"),
    ("training_args", "extra_args"),
    ("environment", "env"),
    ("envs", "env"),
    ("env_vars", "env"),
    ("container", "image"),
    ("container_image", "image"),
    ("docker_image", "image"),
    ("tags", "labels"),
    ("name", "job_name"),
    ("job", "job_name"),
    ("trainer", "framework"),
    ("backend", "framework"),
    ("engine", "framework"),
];

/// The maximum length of names that are looked up.
const MAX_BYTES: usize = 64;

/// The field that is probably meant by an unknown name. Case, and `-` versus `_`, are ignored.
pub fn field_meant(name: &str) -> Option<&'static str> {
    if name.len() > MAX_BYTES {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('-', "_");
    let found = SYNONYMS.iter().find(|(written, _)| *written == name);
    found.map(|(_, field)| *field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::json_schema;

    #[test]
    fn every_synonym_means_a_field_and_is_none() {
        let properties = json_schema()["properties"].as_object().unwrap();
        for (written, field) in SYNONYMS {
            assert!(properties.contains_key(*field), "{field}");
            assert!(!properties.contains_key(*written), "{written}");
        }
    }

    #[test]
    fn spelling_does_not_matter() {
        assert_eq!(field_meant("Output-Dir"), Some("checkpoint_base_uri"));
        assert_eq!(field_meant("something"), None);
    }
}
