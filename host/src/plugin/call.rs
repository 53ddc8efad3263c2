//! Calls into plugins. Each call gets a fresh instance with all limits.

use std::time::Duration;

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store, Trap};

use super::bindings::exports::deepfinery::trainer::framework as contract;
use super::bindings::{Plugin, PluginPre};
use super::engine::TICK;
use super::limits::{CallLimits, Exceeded, Limiter, Limits};
use super::{CallError, Description, failure};
use crate::finding::Finding;
use crate::plan::{CheckpointLayout, Proposal, Setting, Text};
use crate::request::JobRequest;

/// A plugin that can be called.
pub(super) struct Callable {
    pre: PluginPre<Limiter>,
    limits: CallLimits,
    table_elements: usize,
    stack_bytes: usize,
}

/// The result of a call, and its peak memory.
pub(super) struct Answered<T> {
    pub(super) answer: T,
    pub(super) memory_bytes: usize,
}

/// A plugin's response to a job.
pub(super) type Answer = Result<Proposal, Vec<Finding>>;

impl Callable {
    /// Links a component without imports.
    pub(super) fn new(
        engine: &Engine,
        component: &Component,
        limits: CallLimits,
        host: &Limits,
    ) -> wasmtime::Result<Self> {
        let pre = Linker::new(engine).instantiate_pre(component)?;
        let pre = PluginPre::new(pre)?;
        Ok(Self {
            pre,
            limits,
            table_elements: host.table_elements,
            stack_bytes: host.stack_bytes,
        })
    }

    /// Calls `describe`.
    pub(super) fn describe(&self) -> Result<Description, CallError> {
        let description = self
            .call(self.limits.time, |plugin, store| {
                plugin.deepfinery_trainer_framework().call_describe(store)
            })?
            .answer;
        if let Some(words) = failure::of_description(&description) {
            return Err(CallError::Raised { words });
        }
        let contract::Description {
            name,
            version,
            summary,
            args_schema,
        } = description;
        Ok(Description {
            name,
            version,
            summary,
            args_schema,
        })
    }

    /// Calls `plan` with a time limit.
    pub(super) fn plan(
        &self,
        request: &JobRequest,
        context: &str,
        time: Duration,
    ) -> Result<Answered<Answer>, CallError> {
        let variables = request.env.iter();
        let environment: Vec<_> = variables
            .map(|(name, value)| contract::Variable { name, value })
            .collect();
        let extra_args = serde_json::to_string(&request.extra_args).unwrap_or_default();
        let job = job(request, &environment, &extra_args, context);
        let answered = self.call(time, |plugin, store| {
            plugin.deepfinery_trainer_framework().call_plan(store, job)
        })?;
        let plan = answered.answer.as_ref().ok();
        if let Some(words) = plan.and_then(failure::of_plan) {
            return Err(CallError::Raised { words });
        }
        Ok(Answered {
            answer: answered
                .answer
                .map(proposal)
                .map_err(|findings| findings.into_iter().map(finding).collect()),
            memory_bytes: answered.memory_bytes,
        })
    }

    pub(super) fn limits(&self) -> &CallLimits {
        &self.limits
    }

    fn call<T>(
        &self,
        time: Duration,
        function: impl FnOnce(&Plugin, &mut Store<Limiter>) -> wasmtime::Result<T>,
    ) -> Result<Answered<T>, CallError> {
        let limiter = Limiter::new(&self.limits, self.table_elements);
        let mut store = Store::new(self.pre.engine(), limiter);
        store.limiter(|limiter| limiter);
        // A store without a deadline traps immediately. One extra tick, because the first may be
        // due already.
        store.set_epoch_deadline(ticks(time) + 1);
        store.set_hostcall_fuel(self.limits.output_bytes);
        self.pre
            .instantiate(&mut store)
            .and_then(|plugin| function(&plugin, &mut store))
            .map(|answer| Answered {
                answer,
                memory_bytes: store.data().used_bytes,
            })
            .map_err(|error| self.classify(error, time, &store))
    }

    /// Classifies a failed call by the type of the error, never by its text.
    fn classify(
        &self,
        error: wasmtime::Error,
        time: Duration,
        store: &Store<Limiter>,
    ) -> CallError {
        if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
            return CallError::Exceeded(*exceeded);
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => CallError::Time { allowed: time },
            Some(Trap::StackOverflow) => CallError::Stack {
                allowed: self.stack_bytes,
            },
            Some(trap) => CallError::Trap {
                trap: *trap,
                words: failure::of_trap(store, &error),
            },
            // Everything else is an invalid response: bad UTF-8, an invalid pointer or enum case,
            // or too much data.
            None => CallError::Answer {
                allowed: self.limits.output_bytes,
                why: error.root_cause().to_string(),
            },
        }
    }
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX - 1)
}

/// Converts a job to the contract's types, borrowing where possible.
fn job<'a>(
    request: &'a JobRequest,
    environment: &'a [contract::Variable<'a>],
    extra_args: &'a str,
    context: &'a str,
) -> contract::Job<'a> {
    // A new field breaks the build here, so that it cannot be forgotten.
    let JobRequest {
        framework,
        model_id,
        run_id,
        checkpoint_base_uri,
        dataset_uri,
        image,
        num_nodes,
        gpus_per_node,
        cpus_per_node,
        memory_per_node_gb,
        config_path,
        resume_from_checkpoint,
        overwrite: _,
        extra_args: _,
        env: _,
        secrets: _,
        labels: _,
        annotations: _,
        namespace: _,
        name: _,
        job_kind: _,
        profile: _,
        packages: _,
    } = request;
    contract::Job {
        framework,
        model_id,
        run_id,
        checkpoint_base_uri: checkpoint_base_uri.as_str(),
        dataset_uri: dataset_uri.as_str(),
        image,
        num_nodes: *num_nodes,
        gpus_per_node: *gpus_per_node,
        cpus_per_node: *cpus_per_node,
        memory_per_node_gb: *memory_per_node_gb,
        config_path: config_path.as_deref(),
        resume_from_checkpoint: *resume_from_checkpoint,
        environment,
        extra_args,
        context,
    }
}

fn proposal(plan: contract::LaunchPlan) -> Proposal {
    let contract::LaunchPlan {
        command,
        environment,
        layout:
            contract::Layout {
                prefix,
                checkpoints_uri,
                logs_uri,
                config_uri,
                run_config_uri,
                step_pattern,
            },
        resolved_args,
        warnings,
        extensions,
    } = plan;
    Proposal {
        command: command.into_iter().map(text).collect(),
        environment: environment
            .into_iter()
            .map(|contract::Setting { name, value }| Setting {
                name,
                value: text(value),
            })
            .collect(),
        layout: CheckpointLayout {
            prefix,
            checkpoints_uri,
            logs_uri,
            config_uri,
            run_config_uri,
            step_pattern,
        },
        resolved_args,
        warnings: warnings.into_iter().map(finding).collect(),
        extensions,
    }
}

fn text(text: contract::Text) -> Text {
    match text {
        contract::Text::Literal(text) => Text::Literal(text),
        contract::Text::Template(text) => Text::Template(text),
    }
}

fn finding(finding: contract::Finding) -> Finding {
    let contract::Finding {
        code,
        pointer,
        detail,
    } = finding;
    Finding::of_plugin(code, pointer, detail)
}
