//! `trainer plugin run` and `test`: previews requests, and compares them with expected previews.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{checked, print, read_request};
use crate::cli::client::terminal::visible;
use crate::plugin::golden::{SelfTest, difference, outcome};
use crate::plugin::{Plugin, error_chain};
use crate::preview::Preview;

/// What to do with expected previews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Compared,
    Accepted,
}

impl Expected {
    pub(super) fn of(accept: bool) -> Self {
        match accept {
            true => Self::Accepted,
            false => Self::Compared,
        }
    }
}

/// Prints the preview of a request.
pub(super) fn run(plugin: &Plugin, job: &Path) -> anyhow::Result<()> {
    let checked = checked(plugin, read_request(job)?)?;
    let plan = plugin.plan(&checked.request, "{}");
    let plan = plan.map_err(|error| match error {
        crate::plugin::PlanError::Refused(findings) => {
            let lines: Vec<String> = findings
                .iter()
                .map(|finding| format!("  {} {}", finding.code, finding.detail))
                .collect();
            anyhow::anyhow!("the plugin refused the request:\n{}", lines.join("\n"))
        }
        error => error.into(),
    })?;
    if let Some(log) = &plan.log {
        print_output(log)?;
    }
    let preview = Preview::of(&checked.request, &plan, &checked.warnings);
    print(&(serde_json::to_string_pretty(&preview)? + "\n"))
}

/// Shows what a plugin printed, beside the preview.
fn print_output(log: &str) -> anyhow::Result<()> {
    let mut error = std::io::stderr();
    for line in log.lines() {
        writeln!(error, "printed: {}", visible(line))?;
    }
    Ok(())
}

/// Compares what a plugin makes of each request of a folder with what is expected of it.
pub(super) fn test(plugin: &Plugin, folder: &Path, expected: Expected) -> anyhow::Result<()> {
    let requests = requests(folder)?;
    if requests.is_empty() {
        bail!("{} contains no requests (*.json)", folder.display());
    }
    let mut failed = 0;
    for file in &requests {
        let name = name(file);
        let found = match outcome(plugin, &read_request(file)?) {
            Ok(found) => found,
            Err(error) => {
                failed += 1;
                print(&format!("FAIL  {name}: {}\n", error_chain(&error)))?;
                continue;
            }
        };
        if expected == Expected::Accepted {
            let text = serde_json::to_string_pretty(&found)? + "\n";
            std::fs::write(expectation(file), text)?;
            print(&format!("accepted  {name}\n"))?;
            continue;
        }
        match read_expectation(file) {
            None => {
                failed += 1;
                print(&format!(
                    "FAIL  {name}: no expected output yet; record it with --accept\n"
                ))?;
            }
            Some(expected) => match difference(&expected?, &found) {
                None => print(&format!("ok    {name}\n"))?,
                Some(difference) => {
                    failed += 1;
                    print(&format!("FAIL  {name}: {difference}\n"))?;
                }
            },
        }
    }
    match failed {
        0 => Ok(()),
        failed => bail!("{failed} of {} tests failed", requests.len()),
    }
}

/// The self-tests to include in a plugin: requests of a folder with expected previews.
pub(super) fn self_tests(folder: &Path) -> anyhow::Result<Vec<SelfTest>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut tests = Vec::new();
    for file in requests(folder)? {
        if let Some(expected) = read_expectation(&file) {
            tests.push(SelfTest {
                name: name(&file),
                request: read_request(&file)?,
                expected: expected?,
            });
        }
    }
    Ok(tests)
}

fn requests(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".json") && !name.ends_with(".expected.json") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn name(file: &Path) -> String {
    file.file_stem().unwrap_or_default().display().to_string()
}

fn expectation(file: &Path) -> PathBuf {
    file.with_extension("expected.json")
}

fn read_expectation(file: &Path) -> Option<anyhow::Result<Value>> {
    let file = expectation(file);
    file.exists().then(|| read_request(&file))
}
