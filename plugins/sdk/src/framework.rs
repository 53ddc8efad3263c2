//! A framework that `train.py` runs: its table, its rules, its environment, and the plan they give.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    Argument, Arguments, Description, Environment, Finding, Job, Launch, LaunchPlan, Rule,
    arguments::{Findings, Unknown, finding},
    reserved,
    rule::Effect,
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
    pub arguments: &'static [Argument],
    pub rules: &'static [Rule],
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
            .iter()
            .map(|argument| (argument.name.to_string(), argument.schema()))
            .collect();
        let rules: Vec<Value> = self
            .rules
            .iter()
            .map(|rule| {
                let effect = match rule.effect {
                    Effect::Refuse => "refuse",
                    Effect::Warn => "warn",
                };
                json!({"code": rule.code, "effect": effect, "about": rule.about})
            })
            .collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": format!("extra_args of {}", self.name),
            "description": self.summary,
            "type": "object",
            "properties": properties,
            "additionalProperties": true,
            "x-rules": rules,
        })
    }

    /// What is wrong with the table itself, for a test of the plugin: names that are taken twice or
    /// reserved, defaults outside of their own range.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut taken = BTreeSet::new();
        for argument in self.arguments {
            for name in std::iter::once(&argument.name).chain(argument.aliases) {
                if !taken.insert(*name) {
                    mistakes.push(format!("{name} is the name of two arguments"));
                }
                if reserved::is_request_field(name) || reserved::is_train_option(name) {
                    mistakes.push(format!("{name} is reserved, so nobody can give it"));
                }
            }
            let default = argument.default.value();
            if let Some(range) = default.and_then(|value| argument.kind.out_of_range(&value)) {
                mistakes.push(format!("the default of {}: {range}", argument.name));
            }
        }
        mistakes
    }

    /// Plans the launch of a job.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the job's arguments, values first, then rules.
    pub fn plan(&self, job: Job) -> Result<LaunchPlan, Vec<Finding>> {
        let mut findings = Findings::default();
        let mut arguments = Arguments::read(
            self.name,
            self.arguments,
            &job.extra_args,
            unknown(&job.context),
            &mut findings,
        );
        (self.imply)(&mut arguments);
        let launch = Launch { job, arguments };
        for rule in self.rules {
            let Some(broken) = (rule.check)(&launch) else {
                continue;
            };
            let pointer = match broken.argument.strip_prefix('/') {
                Some(_) => broken.argument.to_string(),
                None => launch.arguments.pointer(broken.argument),
            };
            let finding = finding(rule.code, pointer, broken.detail);
            match rule.effect {
                Effect::Refuse => findings.refusals.push(finding),
                Effect::Warn => findings.warnings.push(finding),
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
            resolved_args: Value::Object(launch.resolved()).to_string(),
            warnings: findings.warnings,
            extensions: "{}".to_string(),
        })
    }
}

/// What the host's context says of arguments that are in no table.
fn unknown(context: &str) -> Unknown {
    let context: Value = serde_json::from_str(context).unwrap_or_default();
    match context["strict_arguments"] {
        Value::Bool(true) => Unknown::Refuse,
        _ => Unknown::Forward,
    }
}
