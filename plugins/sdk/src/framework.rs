//! A framework that `train.py` runs: its table, its rules, its environment, and the plan they give.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    Arguments, Description, Environment, Finding, Job, Launch, LaunchPlan, Parallelism, Rule,
    Table, Training,
    arguments::{CHECKS, Findings, SCHEMA_CODES, Unknown, checked, finding},
    model::Model,
    parallel, reserved,
    rule::{Effect, Violation},
};

/// What a plugin does. For a [`Framework`], `export_framework!` writes it.
pub trait Plugin {
    /// Says who the plugin is. The host asks once, when it loads the plugin.
    fn describe() -> Description;

    /// Plans the launch of a job.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the job, not only the first thing.
    fn plan(job: Job) -> Result<LaunchPlan, Vec<Finding>>;
}

/// A framework that is started as `torchrun … train.py …`.
#[derive(Clone, Copy, Debug)]
pub struct Framework {
    pub name: &'static str,
    pub version: &'static str,
    pub summary: &'static str,
    pub arguments: &'static Table,
    /// The rules, list by list, such as [`crate::rules::SHARED`] and the framework's own.
    pub rules: &'static [&'static [Rule]],
    /// How the processes share the work.
    pub parallelism: fn(&Launch) -> Option<Parallelism>,
    /// How the framework holds the model of [`Launch::model`] on its GPUs, to estimate their memory.
    /// [`Training::unknown`] estimates nothing.
    pub training: fn(&Launch) -> Option<Training>,
    /// Adds the arguments that follow from the given ones.
    pub imply: fn(&mut Arguments),
    /// Adds the framework's own variables to those that every framework gets.
    pub environment: fn(&Launch, &mut Environment),
}

impl Framework {
    /// The description that the host asks for.
    pub fn describe(&self) -> Description {
        Description {
            name: self.name.to_string(),
            version: self.version.to_string(),
            summary: self.summary.to_string(),
            args_schema: self.schema().to_string(),
        }
    }

    /// The JSON Schema (draft 2020-12) of `extra_args`. It is open: frameworks have more arguments
    /// than any table. The rules are in `x-rules`, since no schema can say them.
    fn schema(&self) -> Value {
        let properties: serde_json::Map<_, _> = self
            .arguments
            .arguments()
            .iter()
            .enumerate()
            .map(|(order, argument)| {
                let mut schema = argument.schema();
                schema["x-order"] = json!(order);
                (argument.name.to_string(), schema)
            })
            .collect();
        let rules: Vec<Value> = self
            .rules
            .iter()
            .copied()
            .flatten()
            .map(|rule| {
                let effect = match rule.effect {
                    Effect::Refuse => "refuse",
                    Effect::Warn => "warn",
                };
                json!({
                    "code": rule.code,
                    "effect": effect,
                    "about": rule.about,
                    "source": rule.source,
                })
            })
            .collect();
        let checks: Vec<Value> = CHECKS
            .iter()
            .map(|(code, effect, about)| {
                json!({"code": code, "effect": effect, "about": about, "source": "every framework"})
            })
            .collect();
        let codes: serde_json::Map<_, _> = SCHEMA_CODES
            .iter()
            .map(|(found, code)| ((*found).to_string(), json!(code)))
            .collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": format!("extra_args of {}", self.name),
            "description": self.summary,
            "type": "object",
            "properties": properties,
            "additionalProperties": true,
            "x-rules": rules,
            "x-checks": checks,
            "x-codes": codes,
        })
    }

    /// What is wrong with the table itself, for a test of the plugin: names that are taken twice or
    /// reserved, defaults outside of their own range.
    pub fn validate(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut taken = BTreeSet::new();
        for argument in self.arguments.arguments() {
            for name in std::iter::once(&argument.name).chain(argument.aliases) {
                if !taken.insert(*name) {
                    mistakes.push(format!("{name} is the name of two arguments"));
                }
                if reserved::is_request_field(name) || reserved::is_train_option(name) {
                    mistakes.push(format!(
                        "{name} is reserved and cannot be used as an argument"
                    ));
                }
            }
            if reserved::torchrun_option(argument.name).is_some() {
                mistakes.push(format!("torchrun would read --{}", argument.name));
            }
            if let Some(literal) = argument.default.literal()
                && let Err(wrong) = checked(argument, literal.value())
            {
                mistakes.push(format!("the default of {}: {wrong}", argument.name));
            }
            if let Err(wrong) = checked(argument, argument.an_example()) {
                mistakes.push(format!("the example of {}: {wrong}", argument.name));
            }
            if argument.about.is_empty() {
                mistakes.push(format!("{} has no description", argument.name));
            }
        }
        mistakes
    }

    /// Plans the launch of a job.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the job's arguments, values first, then rules.
    // Inlined where the framework is a constant, so that its rules become direct calls: a fresh instance
    // asks the host for each entry of a table of functions when it first calls it.
    #[inline(always)]
    pub fn plan(&self, job: Job) -> Result<LaunchPlan, Vec<Finding>> {
        let mut findings = Findings::default();
        let context = Context::read(&job.context);
        let mut arguments = Arguments::read(
            self.name,
            self.arguments,
            &job.extra_args,
            context.unknown,
            &mut findings,
        );
        (self.imply)(&mut arguments);
        let mut launch = Launch {
            job,
            arguments,
            parallelism: None,
            model: None,
            training: None,
            gpu_memory_gb: context.gpu_memory_gb,
            packages: context.packages,
        };
        launch.parallelism = (self.parallelism)(&launch);
        launch.model = Model::find(&launch.job.model_id, launch.number("model_parameters"));
        launch.training = (self.training)(&launch);
        for rules in self.rules {
            for rule in *rules {
                if let Some(broken) = (rule.check)(&launch) {
                    report(rule, broken, &launch, &mut findings);
                }
            }
        }
        if !findings.refusals.is_empty() {
            return Err(findings.refusals);
        }
        let layout = launch.layout();
        let mut environment = launch.environment();
        (self.environment)(&launch, &mut environment);
        Ok(LaunchPlan {
            command: launch.command(&layout),
            environment: environment.into_settings(),
            layout,
            resolved_args: launch.resolved(),
            warnings: findings.warnings,
            extensions: extensions(&launch),
        })
    }
}

/// Adds to the findings how a job breaks a rule.
#[cold]
fn report(rule: &Rule, broken: Violation, launch: &Launch, findings: &mut Findings) {
    let message = match rule.effect {
        Effect::Refuse => &mut findings.refusals,
        Effect::Warn => &mut findings.warnings,
    };
    message.extend(broken.0.into_iter().map(|breach| {
        let pointer = launch.arguments.pointer_to_first(breach.arguments);
        finding(rule.code, pointer, breach.detail)
    }));
}

/// What the host shows in a preview beside the plan.
fn extensions(launch: &Launch) -> String {
    let parallel = parallel::plan(launch);
    let memory = launch
        .training
        .map(|training| training.estimate().to_json());
    let members = [("parallel", parallel), ("memory", memory)];
    let known = members
        .into_iter()
        .filter_map(|(name, json)| Some(["\"", name, "\":", &json?].concat()));
    ["{", &known.collect::<Vec<_>>().join(","), "}"].concat()
}

/// The context from the host, in addition to the job.
struct Context {
    /// The handling of arguments that are not in the table.
    unknown: Unknown,
    gpu_memory_gb: Option<u64>,
    packages: Option<String>,
}

impl Context {
    fn read(text: &str) -> Self {
        let context: Value = serde_json::from_str(text).unwrap_or_default();
        let unknown = match (
            &context["strict_arguments"],
            context["unknown_arguments"].as_str(),
        ) {
            (Value::Bool(true), _) | (_, Some("refuse")) => Unknown::Refuse,
            (_, Some("suggest")) => Unknown::Suggest,
            _ => Unknown::Forward,
        };
        Self {
            unknown,
            gpu_memory_gb: context["gpu_memory_gb"].as_u64(),
            packages: context["packages"].as_str().map(str::to_string),
        }
    }
}
