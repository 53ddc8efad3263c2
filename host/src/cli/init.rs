//! `trainer init`: a file with a request to start from.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::client::terminal::visible;
use super::plugins::load;
use crate::config::PlanningSettings;
use crate::explain;
use crate::plugin::Plugin;
use crate::suggestion::nearest;

/// The arguments of `trainer init`.
#[derive(Debug, Args)]
pub struct InitSettings {
    /// Framework of the job.
    pub framework: String,
    /// File to write, or - for standard output. An existing file is not replaced.
    #[arg(short, long, default_value = "job.yaml")]
    pub file: PathBuf,
    #[command(flatten)]
    pub planning: PlanningSettings,
}

pub(super) fn init(settings: &InitSettings) -> anyhow::Result<()> {
    let plugins = load(&settings.planning)?;
    let frameworks: Vec<_> = plugins.all().map(Plugin::framework).collect();
    let name = &settings.framework;
    let Some(framework) = frameworks.iter().find(|known| known.name == name) else {
        let names: Vec<&str> = frameworks.iter().map(|known| known.name).collect();
        let hint = nearest(name, names.iter().copied());
        let hint = hint.map_or(String::new(), |name| format!(", did you mean {name}?"));
        bail!(
            "unknown framework {name:?}{hint}; known: {}",
            names.join(", ")
        );
    };
    let text = explain::request_template(framework);
    let text = visible(&text);
    if settings.file == Path::new("-") {
        return Ok(std::io::stdout().write_all(text.as_bytes())?);
    }
    let file = settings.file.display();
    match File::create_new(&settings.file) {
        Ok(mut created) => created.write_all(text.as_bytes())?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{file} already exists; choose another file with -f")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {file}")),
    }
    writeln!(
        std::io::stderr(),
        "created {file}; edit it, then: trainer submit -f {file}"
    )?;
    Ok(())
}
