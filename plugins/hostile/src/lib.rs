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
        let attack = on_describe();
        let mut description = Description {
            name: "hostile".to_string(),
            version: "0.1.0".to_string(),
            summary: "Attacks its host".to_string(),
            args_schema: r#"{"type":"object"}"#.to_string(),
        };
        match attack.as_str() {
            "bad-name" => description.name = "../etc".to_string(),
            "punycode" => description.name = "xn--mta-hdc".to_string(),
            "bad-schema" => description.args_schema = r#"{"type":"nonsense"}"#.to_string(),
            "not-json" => description.args_schema = "{".to_string(),
            "remote" => description.args_schema = r#"{"$ref":"http://localhost/x"}"#.to_string(),
            "two-lines" => description.summary = "one\ntwo".to_string(),
            "empty-name" => description.name.clear(),
            "long-name" => description.name = "a".repeat(64),
            "upper-name" => description.name = "Hostile".to_string(),
            "unicode-name" => description.name = "höstile".to_string(),
            "nul-name" => description.name = "a\0b".to_string(),
            "huge-name" => description.name = "a".repeat(MIB),
            "empty-version" => description.version.clear(),
            "long-version" => description.version = "1".repeat(2000),
            "nul-version" => description.version = "1\0".to_string(),
            "huge-summary" => description.summary = "x".repeat(2 * MIB),
            "escape-summary" => description.summary = "\u{1b}[2J".to_string(),
            "huge-schema" => description.args_schema = format!("\"{}\"", "x".repeat(6 * MIB)),
            "deep-schema" => description.args_schema = deep(100_000),
            "deep-not-schema" => description.args_schema = nested_not(100),
            "schema-number" => description.args_schema = "1".to_string(),
            "bad-pattern" => description.args_schema = r#"{"pattern":"("}"#.to_string(),
            "back-reference" => description.args_schema = r#"{"pattern":"(a*)*\\1b"}"#.to_string(),
            "strict" => {
                description.args_schema =
                    r#"{"type":"object","required":["attack"],"properties":{"attack":{"type":"string"}}}"#
                        .to_string();
            }
            "remote-file" => {
                description.args_schema = r#"{"$ref":"file:///etc/passwd"}"#.to_string();
            }
            attack => attack_host(attack),
        }
        description
    }

    fn plan(job: Job) -> Result<LaunchPlan, Vec<Finding>> {
        let arguments: serde_json::Value =
            serde_json::from_str(&job.extra_args).unwrap_or_default();
        // A plugin that takes for granted what its schema says, or should say.
        if matches!(on_describe().as_str(), "strict" | "careless")
            && !arguments["attack"].is_string()
        {
            trap();
        }
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
            "many-variables" => {
                plan.environment = (0..2000).map(|n| setting(&format!("A{n}"))).collect();
            }
            "empty-variable" => plan.environment.push(setting("")),
            "nul-variable" => plan.environment.push(setting("A\0")),
            "long-value" | "nul-value" => plan.environment.push(Setting {
                name: "A".to_string(),
                value: Text::Template(match attack {
                    "nul-value" => "\0".to_string(),
                    _ => "x".repeat(MIB / 4),
                }),
            }),
            "large-command" => plan.command.extend(vec![literal(&"x".repeat(100_000)); 6]),
            "prefix-empty" => plan.layout.prefix.clear(),
            "prefix-above" => plan.layout.prefix = job.checkpoint_base_uri.clone(),
            "prefix-of-another-run" => plan.layout.prefix += "/../../run-2",
            "checkpoints-elsewhere" => plan.layout.checkpoints_uri = "file:///etc".to_string(),
            "config-elsewhere" => plan.layout.config_uri = "s3://elsewhere".to_string(),
            "run-config-up" => plan.layout.run_config_uri += "/../../../x",
            "layout-new-line" => plan.layout.logs_uri += "/a\nb",
            "layout-space" => plan.layout.logs_uri += "/a b",
            "layout-double-slash" => plan.layout.logs_uri += "//x",
            "layout-long" => plan.layout.logs_uri += &format!("/{}", "x".repeat(MIB)),
            "pattern-long" => plan.layout.step_pattern = "x".repeat(MIB),
            "resolved-deep" => plan.resolved_args = format!("{{\"a\":{}}}", deep(100_000)),
            "resolved-large" => plan.resolved_args = format!("{{\"a\":\"{}\"}}", "x".repeat(MIB)),
            "resolved-number" => plan.resolved_args = "1".to_string(),
            "extensions-deep" => plan.extensions = format!("{{\"a\":{}}}", deep(100_000)),
            "extensions-large" => plan.extensions = format!("{{\"a\":\"{}\"}}", "x".repeat(MIB)),
            "extensions-array" => plan.extensions = "[1]".to_string(),
            "parallel-text" => plan.extensions = r#"{"parallel":"all"}"#.to_string(),
            "parallel-negative" => {
                plan.extensions = r#"{"parallel":{"world_size":-1}}"#.to_string();
            }
            "warning-long" => plan.warnings = vec![finding("x".repeat(MIB))],
            "many-reasons" => {
                return Err((0..10_000).map(|n| finding(n.to_string())).collect());
            }
            "no-reason" => return Err(Vec::new()),
            "long-reason" => return Err(vec![finding("x".repeat(MIB))]),
            _ => {}
        }
        Ok(plan)
    }
}

fn on_describe() -> String {
    let word = String::from_utf8_lossy(black_box(&ON_DESCRIBE)).into_owned();
    let attack = word.split(':').nth(1).unwrap_or_default();
    attack.trim().to_string()
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

/// Arrays in arrays.
fn deep(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// A schema whose check doubles with each level, for a validator that does not take care.
fn nested_not(levels: usize) -> String {
    r#"{"anyOf":[{"type":"string"},"#.repeat(levels) + "true" + &"]}".repeat(levels)
}

fn attack_host(attack: &str) {
    match attack {
        "divide" => drop(black_box(1 / black_box(0_u32))),
        "grow" =>
        {
            #[cfg(target_family = "wasm")]
            while core::arch::wasm32::memory_grow(0, 1) != usize::MAX {}
        }
        "overflow-index" => drop(black_box([0_u8; 4][black_box(4)])),
        "loop" => loop {
            black_box(0);
        },
        "allocate" => {
            let mut kept = Vec::new();
            loop {
                // One byte of each page of WebAssembly. To touch every page of the machine can take
                // longer than a call may, so the limit of time would come first.
                let mut block = Vec::<u8>::with_capacity(MIB);
                let pages = block.spare_capacity_mut().iter_mut().step_by(64 * 1024);
                pages.for_each(|byte| {
                    byte.write(1);
                });
                kept.push(black_box(block));
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
