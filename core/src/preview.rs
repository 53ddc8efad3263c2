//! The preview of a request: what submitting it would create.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::finding::{Code, Finding};
use crate::manifest::{self, Manifest, VariableValue};
use crate::plan::{CheckpointLayout, MemoryPlan, ParallelPlan, Plan, PluginIdentity, Text};
use crate::request::{JobRequest, SecretKey};

/// The answer of `POST /train/preview`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Preview<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub framework: &'a str,
    pub run_id: &'a str,
    pub plugin: &'a PluginIdentity,
    /// As the process sees it; `$(RANK)` and similar references are not expanded.
    pub command: Vec<&'a str>,
    pub env: Vec<Variable>,
    pub checkpoint: &'a CheckpointLayout,
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub resolved_args: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Parallel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    pub warnings: Vec<Cow<'a, Finding>>,
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub manifest: Manifest,
}

/// How the processes share the work.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Parallel {
    #[serde(flatten)]
    sizes: ParallelPlan,
    /// The whole plan in one line.
    pub summary: String,
}

impl Parallel {
    fn of(sizes: ParallelPlan) -> Self {
        let summary = sizes.to_string();
        Self { sizes, summary }
    }
}

/// An estimate of the memory of a GPU.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Memory {
    #[serde(flatten)]
    sizes: MemoryPlan,
    /// Memory of a GPU in GiB, where the profile says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_gb: Option<u32>,
    /// All of it in a line.
    pub summary: String,
}

impl Memory {
    fn of(sizes: MemoryPlan, gpu_memory_gb: Option<u32>) -> Self {
        let mut summary = sizes.to_string();
        if let Some(gib) = gpu_memory_gb {
            summary.push_str(&format!("; a GPU has {gib} GiB"));
        }
        Self {
            sizes,
            gpu_memory_gb,
            summary,
        }
    }
}

/// A variable of the pod.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Variable {
    pub name: String,
    /// Absent if the value comes from a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The key of a secret that the value comes from.
    #[serde(flatten)]
    pub secret: Option<SecretKey>,
}

impl From<(String, VariableValue)> for Variable {
    fn from((name, value): (String, VariableValue)) -> Self {
        let (value, secret) = match value {
            VariableValue::Text(text) => (Some(text.into_string()), None),
            VariableValue::Secret(key) => (None, Some(key)),
        };
        Self {
            name,
            value,
            secret,
        }
    }
}

impl<'a> Preview<'a> {
    /// Previews a request and its plan. `warnings` are those about the request itself.
    pub fn of(request: &'a JobRequest, plan: &'a Plan, warnings: &'a [Finding]) -> Self {
        Self {
            name: request.name.as_str(),
            namespace: &request.namespace,
            framework: &request.framework,
            run_id: &request.run_id,
            plugin: &plan.plugin,
            command: plan.command.iter().map(Text::as_str).collect(),
            env: manifest::environment(request, plan)
                .into_iter()
                .map(Variable::from)
                .collect(),
            checkpoint: &plan.layout,
            resolved_args: &plan.resolved_args,
            parallel: plan.parallel.map(Parallel::of),
            memory: plan
                .memory
                .map(|sizes| Memory::of(sizes, request.gpu_memory_gb())),
            warnings: warnings
                .iter()
                .chain(&plan.warnings)
                .map(Cow::Borrowed)
                .collect(),
            manifest: Manifest::of(manifest::manifest(request, plan), request.job_kind),
        }
    }

    /// Adds warnings of the cluster about the queue of the job.
    pub fn add_queue_warnings(&mut self, sentences: Vec<String>) {
        let found = |sentence| Cow::Owned(Finding::new(Code::Queue, "", sentence));
        self.warnings.extend(sentences.into_iter().map(found));
    }
}
