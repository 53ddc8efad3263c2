//! Step 2's data: what a plugin proposes for a job, and the plan that the host makes of it.
//!
//! A plugin is somebody else's program, so a [`Proposal`] is checked before anything uses it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::finding::Finding;
use crate::request::{JobRequest, metadata};

/// Most words of a command, and most variables of an environment.
const MAX_ITEMS: usize = 1024;
/// Most bytes of one word or value: Linux takes no longer string in an exec (MAX_ARG_STRLEN).
const MAX_TEXT_BYTES: usize = 128 * 1024;
/// Most bytes of command and environment together. Above it an object nears etcd's 1.5 MiB.
const MAX_BYTES: usize = 512 * 1024;
/// Most warnings, and most bytes of one.
const MAX_WARNINGS: usize = 256;
/// Most bytes of a URI of the layout, and of a text of JSON that is only shown.
const MAX_URI_BYTES: usize = 4 * 1024;
const MAX_JSON_BYTES: usize = 512 * 1024;
const MAX_JSON_DEPTH: usize = 64;
const MAX_FINDING_BYTES: usize = 8 * 1024;

/// One word of a command, or the value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Reaches the process exactly as it is.
    Literal(String),
    /// `$(NAME)` in it stands for the pod's variable NAME.
    Template(String),
}

/// A variable that the plugin sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: Text,
}

/// Where a run keeps its files: URIs without trailing slashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CheckpointLayout {
    pub prefix: String,
    pub checkpoints_uri: String,
    pub logs_uri: String,
    pub config_uri: String,
    pub run_config_uri: String,
    pub step_pattern: String,
}

/// Which plugin made a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginIdentity {
    pub name: String,
    pub version: String,
    /// `sha256:` and the hash of the plugin's file.
    pub digest: String,
}

/// What a plugin answers, unchecked.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub command: Vec<Text>,
    pub environment: Vec<Setting>,
    pub layout: CheckpointLayout,
    /// JSON text of an object.
    pub resolved_args: String,
    pub warnings: Vec<Finding>,
    /// JSON text of an object.
    pub extensions: String,
}

/// How a job is launched.
#[derive(Clone, Debug)]
pub struct Plan {
    pub plugin: PluginIdentity,
    pub command: Vec<Text>,
    pub environment: Vec<Setting>,
    pub layout: CheckpointLayout,
    /// An object, as the plugin wrote it: it is only ever shown.
    pub resolved_args: Box<RawValue>,
    /// How the processes share the work, where the plugin says so.
    pub parallel: Option<ParallelPlan>,
    pub warnings: Vec<Finding>,
}

/// How the processes of a job share the work, and what one optimizer step takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParallelPlan {
    pub world_size: u64,
    /// The ways that data, layers, stages and sequences are split: together the world size.
    pub data: u64,
    pub tensor: u64,
    pub pipeline: u64,
    pub context: u64,
    /// GPUs that the experts are spread over, inside of the others.
    pub expert: u64,
    /// Sequences per process and micro step.
    pub batch_size: u64,
    /// Micro steps of an optimizer step.
    pub gradient_accumulation: u64,
    /// Sequences of an optimizer step.
    pub global_batch_size: u64,
    pub tokens_per_step: u64,
}

impl fmt::Display for ParallelPlan {
    /// A line that a person can check at a glance.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            world_size,
            data,
            tensor,
            pipeline,
            context,
            expert,
            batch_size,
            gradient_accumulation,
            global_batch_size,
            tokens_per_step,
        } = self;
        write!(
            formatter,
            "world size {world_size} = data {data} * tensor {tensor} * pipeline {pipeline} * \
             context {context}"
        )?;
        if *expert > 1 {
            write!(formatter, ", experts spread over {expert}")?;
        }
        write!(
            formatter,
            "; global batch {global_batch_size} = batch_size {batch_size} * data {data} * \
             gradient_accumulation {gradient_accumulation}; {tokens_per_step} tokens a step"
        )
    }
}

/// Why a proposal is no plan: the plugin answered nonsense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPlan(String);

impl InvalidPlan {
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl Text {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Literal(text) | Self::Template(text) => text,
        }
    }

    pub fn into_string(self) -> String {
        match self {
            Self::Literal(text) | Self::Template(text) => text,
        }
    }
}

impl Plan {
    /// Checks what a plugin proposes for a request.
    ///
    /// # Errors
    ///
    /// The first thing in the proposal that makes no sense.
    pub fn check(
        proposal: Proposal,
        request: &JobRequest,
        plugin: PluginIdentity,
    ) -> Result<Self, InvalidPlan> {
        let Proposal {
            command,
            environment,
            layout,
            resolved_args,
            warnings,
            extensions,
        } = proposal;
        check_sizes(&command, &environment)?;
        check_names(&environment)?;
        check_layout(&layout, request)?;
        check_findings(&warnings)?;
        for (name, text) in [
            ("resolved-args", &resolved_args),
            ("extensions", &extensions),
        ] {
            check_json(name, text)?;
        }
        let Extensions { parallel } = serde_json::from_str(&extensions)
            .or_else(|error| no(format!("extensions is not as the contract says: {error}")))?;
        Ok(Self {
            plugin,
            command,
            environment,
            layout,
            resolved_args: object("resolved-args", resolved_args)?,
            parallel,
            warnings,
        })
    }
}

/// Checks that there are not absurdly many findings, nor absurdly long ones.
///
/// # Errors
///
/// The first limit that is passed.
pub fn check_findings(findings: &[Finding]) -> Result<(), InvalidPlan> {
    if findings.len() > MAX_WARNINGS {
        let count = findings.len();
        return no(format!("{count} findings are more than {MAX_WARNINGS}"));
    }
    let size = |finding: &Finding| {
        let Finding {
            code,
            pointer,
            detail,
        } = finding;
        code.len() + pointer.len() + detail.len()
    };
    match findings
        .iter()
        .find(|finding| size(finding) > MAX_FINDING_BYTES)
    {
        Some(_) => no(format!("a finding of more than {MAX_FINDING_BYTES} bytes")),
        None => Ok(()),
    }
}

fn check_sizes(command: &[Text], environment: &[Setting]) -> Result<(), InvalidPlan> {
    let Some(program) = command.first() else {
        return no("the command is empty");
    };
    if program.as_str().is_empty() {
        return no("the command's program is empty");
    }
    let items = command.len().max(environment.len());
    if items > MAX_ITEMS {
        return no(format!(
            "{items} words or variables are more than {MAX_ITEMS}"
        ));
    }
    let texts = || {
        command
            .iter()
            .chain(environment.iter().map(|set| &set.value))
    };
    if texts().any(|text| text.as_str().len() > MAX_TEXT_BYTES) {
        return no(format!("a text of more than {MAX_TEXT_BYTES} bytes"));
    }
    if texts().any(|text| text.as_str().contains('\0')) {
        return no("a text with a NUL character");
    }
    let size: usize = texts().map(|text| text.as_str().len()).sum();
    match size > MAX_BYTES {
        true => no(format!("{size} bytes are more than {MAX_BYTES}")),
        false => Ok(()),
    }
}

fn check_names(environment: &[Setting]) -> Result<(), InvalidPlan> {
    let mut names: Vec<&str> = environment.iter().map(|set| set.name.as_str()).collect();
    names.sort_unstable();
    for name in &names {
        if let Err(finding) = metadata::check_plugin_variable(name) {
            return no(format!("environment variable {name:?}: {finding}"));
        }
    }
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => no(format!("environment variable {} is set twice", pair[0])),
        None => Ok(()),
    }
}

/// Checks that every file of the run stays beneath the request's own prefix.
fn check_layout(layout: &CheckpointLayout, request: &JobRequest) -> Result<(), InvalidPlan> {
    let CheckpointLayout {
        prefix,
        checkpoints_uri,
        logs_uri,
        config_uri,
        run_config_uri,
        step_pattern,
    } = layout;
    let own = format!(
        "{}/{}",
        request.checkpoint_base_uri.as_str(),
        request.run_id
    );
    if !is_beneath(prefix, &own) {
        return no(format!(
            "the layout's prefix {prefix:?} is not beneath {own}"
        ));
    }
    let uris = [checkpoints_uri, logs_uri, config_uri, run_config_uri];
    if let Some(uri) = uris.iter().find(|uri| !is_beneath(uri, prefix)) {
        return no(format!(
            "{uri:?} is not beneath the layout's prefix {prefix}"
        ));
    }
    if let Some(long) = uris.iter().find(|uri| uri.len() > MAX_URI_BYTES) {
        let size = long.len();
        return no(format!(
            "a URI of {size} bytes, {MAX_URI_BYTES} are allowed"
        ));
    }
    match step_pattern.is_empty() || step_pattern.len() > 128 {
        true => no("the layout's step pattern is empty or longer than 128 bytes"),
        false => Ok(()),
    }
}

fn is_beneath(uri: &str, prefix: &str) -> bool {
    let Some(path) = uri
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('/'))
    else {
        return false;
    };
    let mut segments = path.split('/');
    !segments.any(|segment| matches!(segment, "" | "." | ".."))
        && !path.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// The members of `extensions` that this host knows.
#[derive(Deserialize)]
struct Extensions {
    parallel: Option<ParallelPlan>,
}

/// Checks what no reader of JSON checks that only passes it on.
fn check_json(name: &str, text: &str) -> Result<(), InvalidPlan> {
    if text.len() > MAX_JSON_BYTES {
        let size = text.len();
        return no(format!(
            "{name} has {size} bytes, {MAX_JSON_BYTES} are allowed"
        ));
    }
    // What opens so few cannot be nested deeply, and counting is much quicker than reading.
    let opens = |byte: &u8| matches!(byte, b'[' | b'{');
    if text.as_bytes().iter().filter(|byte| opens(byte)).count() <= MAX_JSON_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_JSON_DEPTH {
            return no(format!("{name} is nested more than {MAX_JSON_DEPTH} deep"));
        }
    }
    Ok(())
}

fn object(name: &str, text: String) -> Result<Box<RawValue>, InvalidPlan> {
    let begins_one = text.trim_start().starts_with('{');
    match RawValue::from_string(text) {
        Ok(value) if begins_one => Ok(value),
        Ok(_) => no(format!("{name} is not a JSON object")),
        Err(error) => no(format!("{name} is not a JSON object: {error}")),
    }
}

fn no<T>(why: impl Into<String>) -> Result<T, InvalidPlan> {
    Err(InvalidPlan::new(why))
}
