//! The descriptions of the plugins, in the form that people read.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use trainer_host::explain::{Style, Unexplained, explain, overview, own_codes};
use trainer_host::plugin::{Limits, Plugin, Plugins, UnknownArguments};

use crate::service::built_plugins;

const STYLE: Style = Style::Terminal { columns: 100 };

/// The built plugins, which all tests share, because loading them takes a second.
fn plugins() -> Arc<Plugins> {
    static PLUGINS: LazyLock<Arc<Plugins>> = LazyLock::new(|| {
        let cache = tempfile::tempdir().unwrap();
        let unknown = UnknownArguments::default();
        Plugins::load(built_plugins(), cache.path(), Limits::default(), unknown).unwrap()
    });
    PLUGINS.clone()
}

fn explained(topic: &str) -> Result<String, Unexplained> {
    let plugins = plugins();
    let frameworks: Vec<_> = plugins.all().map(Plugin::framework).collect();
    explain(topic, &frameworks, STYLE)
}

#[test]
fn an_argument_is_explained_under_each_of_its_names() {
    let expected = "\
hf.lr: Peak learning rate

  takes        number (0,1]
  default      0.00005
  also called  learning_rate, max_lr
  native name  learning_rate
  example      \"lr\": 0.00005
";
    for topic in ["hf.lr", "hf.learning_rate", "hf.max-lr"] {
        assert_eq!(explained(topic).unwrap(), expected, "{topic}");
    }
    let precision = explained("nemo.precision").unwrap();
    assert!(
        precision.contains("one of bf16-mixed, 16-mixed, 32, bf16-fp8, bf16-mxfp8\n"),
        "{precision}"
    );
    assert!(
        precision.contains("bf16 for bf16-mixed, fp16 for 16-mixed"),
        "{precision}"
    );
    let precision = explained("hf.precision").unwrap();
    assert!(
        precision.contains("bf16; fp32 without GPUs; fp16 if fp16 is set\n"),
        "{precision}"
    );
    let recipe = explained("nemo.recipe").unwrap();
    assert!(
        recipe.contains("string of 1..128 characters: the name of a recipe"),
        "{recipe}"
    );
    let shard = explained("meta.dp_shard").unwrap();
    assert!(shard.contains("integer -1 or 1..16384 (GPUs)"), "{shard}");
}

#[test]
fn a_rule_is_explained_with_its_source_and_frameworks() {
    let expected = "\
N01 (refuses the job): tensor * pipeline * context parallel size divides the world size

  source       nemo/collections/llm/api.py, megatron/core/parallel_state.py
  frameworks   nemo
";
    assert_eq!(explained("N01").unwrap(), expected);
    assert_eq!(explained("n01").unwrap(), expected);
    assert!(
        explained("X01")
            .unwrap()
            .ends_with("frameworks   hf, meta, nemo\n")
    );
    assert!(
        explained("E05")
            .unwrap()
            .starts_with("E05 (refuses the job): a value has")
    );
    assert_eq!(explained("M05").unwrap().matches("M05").count(), 2);
}

#[test]
fn every_code_of_the_service_and_of_each_framework_is_explained() {
    for code in own_codes() {
        let reported = explained(code).unwrap();
        assert!(reported.contains("\n  remedy       "), "{reported}");
    }
    for plugin in plugins().all() {
        let schema = plugin.framework().schema;
        for member in ["x-rules", "x-checks"] {
            for rule in schema[member].as_array().unwrap() {
                explained(rule["code"].as_str().unwrap()).unwrap();
            }
        }
        for code in schema["x-codes"].as_object().unwrap().values() {
            explained(code.as_str().unwrap()).unwrap();
        }
    }
}

#[test]
fn a_framework_is_a_table_of_its_arguments_and_rules_within_the_terminal() {
    let text = explained("hf").unwrap();
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    for word in ["gradient_accumulation", "H09", "Peak learning rate", "E05"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let plugins = plugins();
    let frameworks: Vec<_> = plugins.all().map(Plugin::framework).collect();
    assert_eq!(overview(&frameworks).lines().count(), 5);
}

#[test]
fn a_program_gets_json() {
    let plugins = plugins();
    let frameworks: Vec<_> = plugins.all().map(Plugin::framework).collect();
    let json = |topic| -> Value {
        serde_json::from_str(&explain(topic, &frameworks, Style::Json).unwrap()).unwrap()
    };
    assert_eq!(json("hf")["properties"]["lr"], json("hf.learning_rate"));
    assert_eq!(json("hf.lr")["default"], 5e-5);
    let rule = json!([{
        "code": "H06",
        "effect": "refuse",
        "about": "fsdp and deepspeed exclude each other",
        "source": "transformers, accelerate",
        "frameworks": ["hf"],
    }]);
    assert_eq!(json("H06"), rule);
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let reported = |topic| explained(topic).unwrap_err().to_string();
    assert_eq!(
        reported("hf.lrr"),
        "hf has no argument lrr, did you mean hf.lr?"
    );
    assert_eq!(reported("hf.zzzzzzz"), "hf has no argument zzzzzzz");
    let expected = "unknown topic Q99: neither a framework (hf, meta, nemo) nor the code of a rule or an \
                    error";
    assert_eq!(reported("Q99"), expected);
    assert!(reported("tpye").starts_with("unknown topic tpye (did you mean type?): "));
}

#[test]
fn the_pages_of_the_frameworks_are_those_that_the_plugins_give() {
    let plugins = plugins();
    let frameworks: Vec<_> = plugins.all().map(Plugin::framework).collect();
    for framework in &frameworks {
        let page = explain(framework.name, &frameworks, Style::Markdown).unwrap();
        let file = format!(
            "{}/../docs/frameworks/{}.md",
            env!("CARGO_MANIFEST_DIR"),
            framework.name
        );
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(there, page, "`make docs` writes {file}");
    }
}

#[test]
fn a_form_can_be_drawn_from_every_schema() {
    for plugin in plugins().all() {
        let framework = plugin.framework();
        let arguments = framework.schema["properties"].as_object().unwrap();
        assert!(arguments.len() >= 44, "{}", framework.name);
        for (name, schema) in arguments {
            let validator = jsonschema::validator_for(schema).unwrap();
            let example = &schema["examples"][0];
            assert!(validator.is_valid(example), "{name}: {example}");
            if let Some(default) = schema.get("default") {
                assert!(validator.is_valid(default), "{name}: {default}");
            }
            for member in ["title", "description"] {
                assert!(
                    schema[member].as_str().is_some_and(|t| !t.is_empty()),
                    "{name}"
                );
            }
        }
    }
}
