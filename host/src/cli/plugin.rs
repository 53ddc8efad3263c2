//! `trainer plugin …`: tools for writing framework plugins, from an empty folder to a registry.

mod bench;
mod build;
mod check;
mod create;
mod registry;
mod test;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::config::user_cache;
use crate::plugin::golden::SelfTests;
use crate::plugin::{Compiler, Limits, Loader, LoaderSettings, Plugin, UnknownArguments};
use crate::request::{self, json};
pub use create::Language;

/// Create, test and publish framework plugins.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Create a folder with a new plugin that is ready to build.
    New {
        /// Name of the framework, as used in requests.
        name: String,
        #[arg(long, value_enum)]
        language: Language,
    },
    /// Build a plugin into build/<name>.wasm, including its tests.
    Build {
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Run the checks of a host and print the result of each.
    Check(PluginFile),
    /// Print the preview of a request, as a host would return it.
    Run {
        #[command(flatten)]
        plugin: PluginFile,
        /// JSON file with a request.
        job: PathBuf,
    },
    /// Compare the previews of a folder of requests with the accepted ones.
    Test {
        #[command(flatten)]
        plugin: PluginFile,
        /// Folder with requests (*.json) and expected previews (*.expected.json).
        folder: PathBuf,
        /// Accept the current output as expected.
        #[arg(long)]
        accept: bool,
    },
    /// Benchmark a plugin.
    Bench(bench::BenchSettings),
    /// Print the properties of a plugin file without running it.
    Inspect {
        /// The plugin.
        file: PathBuf,
    },
    /// Push a plugin to an OCI registry.
    Push(registry::PushSettings),
    /// Pull a plugin from an OCI registry.
    Pull(registry::PullSettings),
}

/// A plugin, and the cache for its compiled code.
#[derive(Debug, Args)]
pub struct PluginFile {
    /// The plugin file. Limits are read from a plugins.toml in the same folder, if it exists.
    pub file: PathBuf,
    /// Cache folder for compiled plugins. Default: `trainer` in the user's cache folder.
    #[arg(long, env = "TRAINER_CACHE")]
    pub cache: Option<PathBuf>,
}

/// Runs one of the commands.
///
/// # Errors
///
/// What went wrong.
pub fn run(command: PluginCommand) -> anyhow::Result<()> {
    match command {
        PluginCommand::New { name, language } => create::create(&name, language),
        PluginCommand::Build { folder } => build::build(&folder),
        PluginCommand::Check(plugin) => check::check(&plugin),
        PluginCommand::Run { plugin, job } => test::run(&plugin.load()?, &job),
        PluginCommand::Test {
            plugin,
            folder,
            accept,
        } => test::test(&plugin.load()?, &folder, test::Expected::of(accept)),
        PluginCommand::Bench(settings) => bench::bench(&settings),
        PluginCommand::Inspect { file } => check::inspect(&file),
        PluginCommand::Push(settings) => registry::push(&settings),
        PluginCommand::Pull(settings) => registry::pull(&settings),
    }
}

impl PluginFile {
    /// Loads the plugin like a host, but without its self-tests.
    fn load(&self) -> anyhow::Result<Plugin> {
        let loaded = self.loader(SelfTests::Ignored)?.file(&self.file);
        loaded.with_context(|| format!("{} is not a plugin", self.file.display()))
    }

    fn loader(&self, own_tests: SelfTests) -> anyhow::Result<Loader> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        Ok(Loader::open(LoaderSettings {
            folder: folder.to_path_buf(),
            data: match own_tests {
                SelfTests::Run => self.cache_folder(),
                // A separate cache, because the self-tests were not run.
                SelfTests::Ignored => self.cache_folder().join("untested"),
            },
            own_tests,
            limits: Limits::default(),
            unknown: UnknownArguments::default(),
            compiler: Compiler::Child {
                program: std::env::current_exe()?,
                niceness: 0,
            },
        })?)
    }

    fn cache_folder(&self) -> PathBuf {
        self.cache.clone().unwrap_or_else(user_cache)
    }
}

/// A request from a file.
fn read_request(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    json::parse(&text).map_err(|findings| {
        let details: Vec<String> = findings.into_iter().map(|finding| finding.detail).collect();
        anyhow::anyhow!("{}: {}", file.display(), details.join("; "))
    })
}

/// A request without arguments, for any plugin.
fn empty_request(framework: &str) -> Value {
    serde_json::json!({
        "framework": framework,
        "model_id": "model",
        "run_id": "run-1",
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
    })
}

/// Converts a request to the input of a plugin.
fn checked(plugin: &Plugin, request: Value) -> anyhow::Result<request::Checked> {
    let schemas = [(plugin.identity.name.clone(), plugin.schema())].into();
    let checked = request::check(request, &schemas, &request::RequestPolicy::default());
    checked.map_err(|findings| {
        let lines: Vec<String> = findings
            .iter()
            .map(|finding| format!("  {} {}", finding.code, finding.detail))
            .collect();
        anyhow::anyhow!("the request was refused:\n{}", lines.join("\n"))
    })
}

/// Prints text with control characters escaped.
fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
