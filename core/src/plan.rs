//! The data of step 2: a plugin's proposal for a job, and the plan that the host makes from it.
//!
//! Plugins are third-party code, so a [`Proposal`] is checked before anything uses it.

mod parallel;

pub use parallel::{MemoryPlan, ParallelPlan};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::finding::Finding;
use crate::metadata;
use crate::request::JobRequest;

/// The maximum number of words in a command, and of variables in an environment.
const MAX_ITEMS: usize = 1024;
/// The maximum length of one word or value in bytes: Linux's limit for a string in exec
/// (MAX_ARG_STRLEN).
const MAX_TEXT_BYTES: usize = 128 * 1024;
/// The maximum size of command and environment together, in bytes. Larger objects come close to
/// etcd's limit of 1.5 MiB.
const MAX_BYTES: usize = 512 * 1024;
/// The maximum number of findings.
const MAX_WARNINGS: usize = 256;
/// The maximum length of a URI of the layout, and of JSON text that is only displayed, in bytes.
const MAX_URI_BYTES: usize = 4 * 1024;
const MAX_JSON_BYTES: usize = 512 * 1024;
const MAX_JSON_DEPTH: usize = 64;
/// Most bytes of what a plugin printed.
const MAX_LOG_BYTES: usize = 8 * 1024;
const MAX_FINDING_BYTES: usize = 8 * 1024;

/// One word of a command, or the value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Reaches the process unchanged.
    Literal(String),
    /// `$(NAME)` in it is replaced by the pod's variable NAME.
    Template(String),
}

/// A variable that the plugin sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: Text,
}

/// Where a run writes its files: URIs without trailing slashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CheckpointLayout {
    pub prefix: String,
    pub checkpoints_uri: String,
    pub logs_uri: String,
    pub config_uri: String,
    pub run_config_uri: String,
    pub step_pattern: String,
}

/// Identifies the plugin that made a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginIdentity {
    pub name: String,
    pub version: String,
    /// `sha256:` followed by the hash of the plugin's file.
    pub digest: String,
}

/// What a plugin returned, unchecked.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub command: Vec<Text>,
    pub environment: Vec<Setting>,
    pub layout: CheckpointLayout,
    /// A JSON object, as text.
    pub resolved_args: String,
    pub warnings: Vec<Finding>,
    /// A JSON object, as text.
    pub extensions: String,
}

/// How a job is launched.
#[derive(Clone, Debug)]
pub struct Plan {
    pub plugin: PluginIdentity,
    pub command: Vec<Text>,
    pub environment: Vec<Setting>,
    pub layout: CheckpointLayout,
    /// A JSON object, as the plugin wrote it.
    pub resolved_args: Box<RawValue>,
    /// How the processes share the work, if the plugin states it.
    pub parallel: Option<ParallelPlan>,
    /// What a GPU will hold, where the plugin says so.
    pub memory: Option<MemoryPlan>,
    /// What the plugin printed, for its author.
    pub log: Option<String>,
    pub warnings: Vec<Finding>,
}

/// Why a proposal is not a valid plan.
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
    /// Checks a plugin's proposal for a request.
    ///
    /// # Errors
    ///
    /// The first invalid part of the proposal.
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
        let Extensions {
            parallel,
            memory,
            log,
        } = serde_json::from_str(&extensions).or_else(|error| {
            no(format!(
                "extensions does not match the plugin contract: {error}"
            ))
        })?;
        Ok(Self {
            plugin,
            command,
            environment,
            layout,
            resolved_args: object("resolved-args", resolved_args)?,
            parallel,
            memory,
            log: log.filter(|log| !log.is_empty()).map(shortened),
            warnings,
        })
    }
}

/// Checks that the findings are neither too many nor too long.
///
/// # Errors
///
/// The first limit that is exceeded.
pub fn check_findings(findings: &[Finding]) -> Result<(), InvalidPlan> {
    if findings.len() > MAX_WARNINGS {
        let count = findings.len();
        return no(format!(
            "{count} findings, but at most {MAX_WARNINGS} are allowed"
        ));
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
        Some(_) => no(format!(
            "a finding is longer than {MAX_FINDING_BYTES} bytes"
        )),
        None => Ok(()),
    }
}

fn check_sizes(command: &[Text], environment: &[Setting]) -> Result<(), InvalidPlan> {
    let Some(program) = command.first() else {
        return no("the command is empty");
    };
    if program.as_str().is_empty() {
        return no("the first word of the command is empty");
    }
    let items = command.len().max(environment.len());
    if items > MAX_ITEMS {
        return no(format!(
            "{items} command words or variables, but at most {MAX_ITEMS} are allowed"
        ));
    }
    let texts = || {
        command
            .iter()
            .chain(environment.iter().map(|set| &set.value))
    };
    if texts().any(|text| text.as_str().len() > MAX_TEXT_BYTES) {
        return no(format!(
            "a command word or variable is longer than {MAX_TEXT_BYTES} bytes"
        ));
    }
    if texts().any(|text| text.as_str().contains('\0')) {
        return no("a command word or variable contains NUL");
    }
    let size: usize = texts().map(|text| text.as_str().len()).sum();
    match size > MAX_BYTES {
        true => no(format!(
            "command and environment have {size} bytes, but at most {MAX_BYTES} are allowed"
        )),
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

/// Checks that every file of the run is under the request's own prefix.
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
    if !is_under(prefix, &own) {
        return no(misplaced("the layout's prefix", prefix, &own));
    }
    let uris = [checkpoints_uri, logs_uri, config_uri, run_config_uri];
    if let Some(uri) = uris.iter().find(|uri| !is_under(uri, prefix)) {
        return no(misplaced("the layout's URI", uri, prefix));
    }
    if let Some(long) = uris.iter().find(|uri| uri.len() > MAX_URI_BYTES) {
        let size = long.len();
        return no(format!(
            "a URI of the layout has {size} bytes, but at most {MAX_URI_BYTES} are allowed"
        ));
    }
    match step_pattern.is_empty() || step_pattern.len() > 128 {
        true => no("the layout's step pattern is empty or longer than 128 bytes"),
        false => Ok(()),
    }
}

/// Why a URI of the layout is wrong.
fn misplaced(what: &str, uri: &str, prefix: &str) -> String {
    match uri.ends_with('/') {
        true => format!("{what} {uri:?} ends with a slash; leave it out"),
        false => format!("{what} {uri:?} is not under {prefix}"),
    }
}

fn is_under(uri: &str, prefix: &str) -> bool {
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

/// A log without what exceeds its limit.
fn shortened(mut log: String) -> String {
    log.truncate(log.floor_char_boundary(MAX_LOG_BYTES));
    log
}

/// The members of `extensions` that this host knows.
#[derive(Deserialize)]
struct Extensions {
    parallel: Option<ParallelPlan>,
    memory: Option<MemoryPlan>,
    log: Option<String>,
}

/// Checks size and depth of JSON text, which serde_json does not limit when it only passes text on.
fn check_json(name: &str, text: &str) -> Result<(), InvalidPlan> {
    if text.len() > MAX_JSON_BYTES {
        let size = text.len();
        return no(format!(
            "{name} has {size} bytes, but at most {MAX_JSON_BYTES} are allowed"
        ));
    }
    // Text with few opening brackets cannot be nested deeply, and counting is much faster than
    // parsing.
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
            return no(format!(
                "{name} has more than {MAX_JSON_DEPTH} levels of nesting"
            ));
        }
    }
    Ok(())
}

fn object(name: &str, text: String) -> Result<Box<RawValue>, InvalidPlan> {
    let opens_object = text.trim_start().starts_with('{');
    match RawValue::from_string(text) {
        Ok(value) if opens_object => Ok(value),
        Ok(_) => no(format!("{name} is not a JSON object")),
        Err(error) => no(format!("{name} is not a JSON object: {error}")),
    }
}

fn no<T>(why: impl Into<String>) -> Result<T, InvalidPlan> {
    Err(InvalidPlan::new(why))
}
