//! A request to start from, with every argument of a framework as a comment.

use std::fmt::Write;

use serde_json::Value;

use super::Framework;
use super::argument::Argument;

/// The fields that every request has, and the optional ones that most users look for.
const FIELDS: &str = "\
# A name, a path or an id of the Hugging Face Hub, as the framework expects it.
model_id: my-model
# Names the job and its checkpoints.
run_id: run-1
# Where checkpoints are written: s3://, gs://, abfss://, file:// or pvc://, as the service allows.
checkpoint_base_uri: s3://my-bucket/runs
# A trailing slash marks a folder.
dataset_uri: s3://my-bucket/data/

# Container image. Default: the one of the service.
# image: ghcr.io/my-team/my-image:1
# Replicas.
# num_nodes: 1
# GPUs of each replica; 0 trains on the CPU.
# gpus_per_node: 1
# CPUs and memory (GiB) of each replica.
# cpus_per_node: 8
# memory_per_node_gb: 64
# Resume from the newest checkpoint of the run.
# resume_from_checkpoint: true
# Environment variables.
# env:
#   NAME: value
";

/// A request for a framework, as YAML. All of its arguments are there; those that a job must have
/// are not comments.
pub fn request_template(framework: &Framework) -> String {
    let name = framework.name;
    let mut text = format!(
        "# A training job for {name}. Check it with `trainer submit --dry-run -f`, and submit it with\n\
         # `trainer submit -f`.\nframework: {name}\n{FIELDS}\n# The arguments of {name}, each with \
         its default, or an example if it has none. More: `trainer explain {name}`.\nextra_args:\n"
    );
    for argument in Argument::of(framework) {
        let meaning = one_line(argument.text("description"));
        let values = argument.values();
        let mark = if argument.is_required() { "" } else { "# " };
        let value = sample(argument.schema);
        let _ = writeln!(
            text,
            "  # {meaning}\n  # Takes: {values}\n  {mark}{}: {value}",
            argument.name
        );
    }
    text
}

/// The default of an argument, else an example, else a choice. JSON is YAML.
fn sample(schema: &Value) -> String {
    let samples = [
        &schema["default"],
        &schema["examples"][0],
        &schema["enum"][0],
    ];
    let sample = samples.into_iter().find(|sample| !sample.is_null());
    sample.map(Value::to_string).unwrap_or_default()
}

/// Text of a plugin as a part of a comment.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::yaml;

    #[test]
    fn what_is_not_a_comment_is_a_request_with_the_required_arguments() {
        let schema = json!({
            "properties": {
                "lr": {"type": "number", "default": 0.001, "description": "Peak\nrate", "x-order": 1},
                "method": {"enum": ["sft", "dpo"], "description": "How", "x-order": 0},
            },
            "required": ["method"],
        });
        let framework = Framework {
            name: "team",
            version: "1",
            summary: "",
            schema: &schema,
        };
        let text = request_template(&framework);
        let (request, _) = yaml::parse(&text).unwrap();
        assert_eq!(request["framework"], "team");
        assert_eq!(request["extra_args"], json!({"method": "sft"}));
        assert!(
            text.contains("  # Peak rate\n  # Takes: number\n  # lr: 0.001\n"),
            "{text}"
        );
    }
}
