//! `trainer preview`: the manifest of a request, without a server or a cluster.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::client::source::Source;
use super::client::terminal::visible;
use super::plugins::load;
use crate::config::PlanningSettings;
use crate::finding::Finding;
use crate::plugin::PlanError;
use crate::preview::Preview;
use crate::{manifest, request};

/// The arguments of `trainer preview`.
#[derive(Debug, Args)]
pub struct PreviewSettings {
    /// File with a request as JSON or YAML, or - for standard input.
    pub file: PathBuf,
    /// Print the whole preview as JSON instead of the manifest as YAML.
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub output: PreviewOutput,
    #[command(flatten)]
    pub planning: PlanningSettings,
}

/// The output of a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PreviewOutput {
    /// Only the manifest.
    Yaml,
    /// The response of POST /train/preview.
    Json,
}

pub(super) async fn preview(settings: PreviewSettings) -> anyhow::Result<()> {
    let plugins = load(&settings.planning)?;
    let (source, value) = Source::read(&settings.file, &[])?;
    let refused = |findings: Vec<Finding>| source.refusal(&findings);
    let policy = settings.planning.policy()?;
    let checked = request::check(value, plugins.schemas(), &policy).map_err(refused)?;
    let plan = plugins.plan(&checked).await.map_err(|error| match error {
        PlanError::Refused(findings) => refused(findings),
        error => error.into(),
    })?;
    let request = &checked.request;
    let preview = Preview::of(request, &plan, &checked.warnings);
    let job = manifest::manifest(request, &plan);
    manifest::check_size(&job, request.job_kind).map_err(|large| refused(vec![large]))?;
    if let Some(parallel) = &preview.parallel {
        remark(&parallel.summary);
    }
    if let Some(memory) = &preview.memory {
        remark(&memory.summary);
    }
    for warning in &preview.warnings {
        remark(&format!("warning: {} {}", warning.code, warning.detail));
    }
    let text = match settings.output {
        PreviewOutput::Yaml => serde_saphyr::to_string(&preview.manifest)?,
        PreviewOutput::Json => serde_json::to_string_pretty(&preview)? + "\n",
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Prints to standard error. A closed stream is not a failure.
fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(text));
}
