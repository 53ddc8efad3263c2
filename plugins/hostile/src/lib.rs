//! A plugin that attacks its host, for the tests of the sandbox. The request names the attack in
//! `extra_args.attack`; the attack on `describe` is named by bytes that a test writes into the file.

use std::hint::black_box;

use trainer_plugin::{Description, Finding, Job, LaunchPlan, Layout, Plugin, Setting, Text};

/// A test writes another word of this length over the one here.
static ON_DESCRIBE: [u8; 32] = *b"on-describe:nothing             ";

const MIB: usize = 1024 * 1024;

/// The plugin.
pub struct Hostile;

impl Plugin for Hostile {
    fn describe() -> Description {
        let attack = String::from_utf8_lossy(black_box(&ON_DESCRIBE)).into_owned();
        let attack = attack
            .split(':')
            .nth(1)
            .unwrap_or_default()
            .trim()
            .to_string();
        let mut description = Description {
            name: "hostile".to_string(),
            version: "0.1.0".to_string(),
            summary: "Attacks its host".to_string(),
            args_schema: r#"{"type":"object"}"#.to_string(),
        };
        match attack.as_str() {
            "bad-name" => description.name = "../etc".to_string(),
            "bad-schema" => description.args_schema = r#"{"type":"nonsense"}"#.to_string(),
            "not-json" => description.args_schema = "{".to_string(),
            "remote" => description.args_schema = r#"{"$ref":"http://localhost/x"}"#.to_string(),
            "two-lines" => description.summary = "one\ntwo".to_string(),
            attack => attack_host(attack),
        }
        description
    }

    fn plan(job: Job) -> Result<LaunchPlan, Vec<Finding>> {
        let arguments: serde_json::Value =
            serde_json::from_str(&job.extra_args).unwrap_or_default();
        let attack = arguments["attack"].as_str().unwrap_or_default();
        attack_host(attack);
        let mut plan = honest(&job);
        let literal = |text: &str| Text::Literal(text.to_string());
        let setting = |name: &str| Setting {
            name: name.to_string(),
            value: literal("x"),
        };
        let finding = |detail: String| Finding {
            code: "X".to_string(),
            pointer: String::new(),
            detail,
        };
        match attack {
            "large-answer" => plan.command.push(Text::Literal("x".repeat(100 * MIB))),
            "many-words" => plan.command = vec![literal("x"); 100_000],
            "long-word" => plan.command.push(Text::Literal("x".repeat(MIB / 2))),
            "empty-command" => plan.command.clear(),
            "empty-program" => plan.command = vec![literal("")],
            "nul" => plan.command.push(literal("a\0b")),
            "not-json" => plan.resolved_args = "{".to_string(),
            "not-an-object" => plan.resolved_args = "[]".to_string(),
            "extensions" => plan.extensions = "nonsense".to_string(),
            "identity" => plan.environment.push(setting("RUN_ID")),
            "operator" => plan.environment.push(setting("PET_NNODES")),
            "variable" => plan.environment.push(setting("A=B")),
            "twice" => plan.environment.extend([setting("A"), setting("A")]),
            "layout" => plan.layout.prefix = "s3://elsewhere/run".to_string(),
            "layout-up" => plan.layout.logs_uri = format!("{}/../logs", plan.layout.prefix),
            "layout-beside" => plan.layout.logs_uri = format!("{}x", plan.layout.prefix),
            "pattern" => plan.layout.step_pattern = String::new(),
            "warnings" => plan.warnings = (0..10_000).map(|n| finding(n.to_string())).collect(),
            "no-reason" => return Err(Vec::new()),
            "long-reason" => return Err(vec![finding("x".repeat(MIB))]),
            _ => {}
        }
        Ok(plan)
    }
}

fn honest(job: &Job) -> LaunchPlan {
    let prefix = format!(
        "{}/{}/framework={}",
        job.checkpoint_base_uri, job.run_id, job.framework
    );
    LaunchPlan {
        command: vec![Text::Literal("true".to_string())],
        environment: Vec::new(),
        layout: Layout {
            checkpoints_uri: format!("{prefix}/checkpoints"),
            logs_uri: format!("{prefix}/logs"),
            config_uri: format!("{prefix}/config"),
            run_config_uri: format!("{prefix}/config/run.json"),
            step_pattern: "step-{:06}".to_string(),
            prefix,
        },
        resolved_args: "{}".to_string(),
        warnings: Vec::new(),
        extensions: "{}".to_string(),
    }
}

fn attack_host(attack: &str) {
    match attack {
        "loop" => loop {
            black_box(0);
        },
        "allocate" => {
            let mut kept = Vec::new();
            loop {
                kept.push(black_box(vec![1_u8; MIB]));
            }
        }
        "recurse" => drop(black_box(recurse(1))),
        "recurse-natively" => drop(black_box(recurse_natively(black_box(u64::MAX)))),
        "trap" => trap(),
        _ => {}
    }
}

/// Its frames are in linear memory, whose end it runs into.
#[expect(unconditional_recursion, reason = "that is the attack")]
fn recurse(depth: u64) -> u64 {
    black_box([depth; 64]).iter().sum::<u64>() + recurse(black_box(depth + 1))
}

/// It keeps nothing in linear memory, so it is the native stack that ends.
fn recurse_natively(number: u64) -> u64 {
    match number {
        0 | 1 => number,
        _ => recurse_natively(number - 1) ^ recurse_natively(number - 2),
    }
}

#[expect(clippy::panic, reason = "that is the attack")]
fn trap() {
    panic!("trap");
}

trainer_plugin::export!(Hostile);
