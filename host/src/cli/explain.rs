//! `trainer explain`: a framework, one of its arguments, or a code.

use std::io::Write;

use clap::{Args, ValueEnum};

use super::client::terminal::visible;
use super::plugins::load;
use crate::config::PlanningSettings;
use crate::explain::{self, Style};
use crate::plugin::Plugin;

/// The arguments of `trainer explain`.
#[derive(Debug, Args)]
pub struct ExplainSettings {
    /// A framework (hf), an argument (hf.lr), or the code of a rule or an error (N01, type). Default:
    /// list the frameworks.
    pub topic: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: ExplainOutput,
    #[command(flatten)]
    pub planning: PlanningSettings,
}

/// Output formats of explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// Text for this terminal.
    Text,
    /// A page of documentation.
    Markdown,
    /// JSON: the schema of a framework's arguments or of one argument, or the rules with a code.
    Json,
}

/// Columns of a table if the output is not a terminal.
const COLUMNS: u16 = 100;

pub(super) fn explain(settings: &ExplainSettings) -> anyhow::Result<()> {
    let columns = terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| width.0);
    let style = match settings.output {
        ExplainOutput::Text => Style::Terminal { columns },
        ExplainOutput::Markdown => Style::Markdown,
        ExplainOutput::Json => Style::Json,
    };
    let topic = settings.topic.as_deref();
    // The service's own codes need no plugin.
    let own = topic.and_then(|topic| explain::own_code(topic, style));
    let text = match own {
        Some(text) => text,
        None => of_plugins(topic, style, &settings.planning)?,
    };
    let text = match settings.output {
        ExplainOutput::Json => text,
        ExplainOutput::Text | ExplainOutput::Markdown => visible(&text).into_owned(),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Prints the descriptions that the plugins publish.
fn of_plugins(
    topic: Option<&str>,
    style: Style,
    settings: &PlanningSettings,
) -> anyhow::Result<String> {
    let plugins = load(settings)?;
    let frameworks: Vec<_> = plugins.all().map(Plugin::framework).collect();
    Ok(match topic {
        Some(topic) => explain::explain(topic, &frameworks, style)?,
        None => explain::overview(&frameworks),
    })
}
