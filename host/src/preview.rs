//! What a request would become, for a person who wants to see it first.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::job::{self, PyTorchJob};
use crate::plan::{CheckpointLayout, Plan, PluginIdentity};
use crate::request::JobRequest;

/// The answer of `POST /train/preview`.
#[derive(Debug, Serialize)]
pub struct Preview {
    pub name: String,
    pub namespace: String,
    pub framework: String,
    pub run_id: String,
    pub plugin: PluginIdentity,
    /// As the process sees it; `$(RANK)` and the like stay.
    pub command: Vec<String>,
    pub env: Vec<Variable>,
    pub checkpoint: CheckpointLayout,
    pub resolved_args: Map<String, Value>,
    pub warnings: Vec<Fault>,
    pub manifest: PyTorchJob,
}

/// A variable of the pod.
#[derive(Debug, Serialize)]
pub struct Variable {
    pub name: String,
    pub value: String,
}

impl Preview {
    /// Shows a request and its plan. `warnings` are those that the request itself gave.
    pub fn of(request: &JobRequest, plan: &Plan, mut warnings: Vec<Fault>) -> Self {
        warnings.extend(plan.warnings.iter().cloned());
        Self {
            name: request.name.as_str().to_string(),
            namespace: request.namespace.clone(),
            framework: request.framework.clone(),
            run_id: request.run_id.clone(),
            plugin: plan.plugin.clone(),
            command: plan
                .command
                .iter()
                .map(|word| word.as_str().to_string())
                .collect(),
            env: job::environment(request, plan)
                .into_iter()
                .map(|(name, value)| Variable {
                    name,
                    value: value.as_str().to_string(),
                })
                .collect(),
            checkpoint: plan.layout.clone(),
            resolved_args: plan.resolved_args.clone(),
            warnings,
            manifest: job::manifest(request, plan),
        }
    }
}
