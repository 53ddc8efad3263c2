//! `trainer explain`: a framework, one of its arguments, or a rule.

use std::io::Write;

use clap::{Args, ValueEnum};

use super::client::terminal::visible;
use super::plugins::load;
use crate::config::PlanningSettings;
use crate::explain::{self, Style};
use crate::plugin::Plugin;

/// What `trainer explain` takes.
#[derive(Debug, Args)]
pub struct ExplainSettings {
    /// A framework (hf), an argument (hf.lr) or a rule (N01). Left out: which frameworks there are.
    pub topic: Option<String>,
    /// How to write it.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: ExplainOutput,
    #[command(flatten)]
    pub planning: PlanningSettings,
}

/// How an explanation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// For this terminal.
    Text,
    /// As a page of documentation.
    Markdown,
    /// For a program: the JSON Schema of a framework's arguments or of one, the rules of a code.
    Json,
}

/// Columns of a table that goes to no terminal.
const COLUMNS: u16 = 100;

pub(super) fn explain(settings: &ExplainSettings) -> anyhow::Result<()> {
    let plugins = load(&settings.planning)?;
    let frameworks: Vec<_> = plugins.all().map(Plugin::framework).collect();
    let columns = terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| width.0);
    let style = match settings.output {
        ExplainOutput::Text => Style::Terminal { columns },
        ExplainOutput::Markdown => Style::Markdown,
        ExplainOutput::Json => Style::Json,
    };
    let text = match &settings.topic {
        Some(topic) => explain::explain(topic, &frameworks, style)?,
        None => explain::overview(&frameworks),
    };
    let text = match settings.output {
        ExplainOutput::Json => text,
        ExplainOutput::Text | ExplainOutput::Markdown => visible(&text).into_owned(),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
