//! `trainer plugin build`: runs the tools of the language, and adds the tests to the file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use wasm_encoder::{CustomSection, Section};

use super::{Language, print, test};
use crate::plugin::inspect;

const TARGET: &str = "wasm32-unknown-unknown";
/// What stands between the contract and the author's file, and collects what that prints.
const PYTHON_ENTRY: &str = include_str!("build/entry.py");
const JAVASCRIPT_ENTRY: &str = include_str!("build/entry.js");
/// What it is called in a folder of JavaScript, while it is needed there.
const ENTRY_FILE: &str = "trainer_entry.js";

/// Builds the plugin of a folder.
pub(super) fn build(folder: &Path) -> anyhow::Result<()> {
    let folder = folder
        .canonicalize()
        .with_context(|| format!("folder {} does not exist", folder.display()))?;
    let name = folder.file_name().context("the folder has no name")?;
    let output = folder.join("build").join(name).with_extension("wasm");
    std::fs::create_dir_all(folder.join("build"))?;
    let made = match language(&folder)? {
        Language::Rust => rust(&folder)?,
        Language::Python => python(&folder)?,
        Language::JavaScript => javascript(&folder)?,
    };
    let mut bytes = std::fs::read(&made)
        .with_context(|| format!("the build did not produce {}", made.display()))?;
    let tests = test::self_tests(&folder.join("tests"))?;
    if !tests.is_empty() {
        let data = serde_json::to_vec(&tests)?;
        let section = CustomSection {
            name: inspect::SELF_TESTS.into(),
            data: (&data).into(),
        };
        section.append_to(&mut bytes);
    }
    inspect::check(&inspect::inspect(&bytes)?)?;
    // Written atomically, because a host may be watching this folder.
    let unfinished = output.with_extension("unfinished");
    std::fs::write(&unfinished, &bytes)?;
    std::fs::rename(unfinished, &output)?;
    print(&format!(
        "{} ({} KB, {} tests included)\n",
        output.display(),
        bytes.len() / 1000,
        tests.len()
    ))
}

fn language(folder: &Path) -> anyhow::Result<Language> {
    let marks = [
        ("Cargo.toml", Language::Rust),
        ("app.py", Language::Python),
        ("app.js", Language::JavaScript),
    ];
    let found = marks.iter().find(|(mark, _)| folder.join(mark).exists());
    found.map(|(_, language)| *language).with_context(|| {
        format!(
            "{} has no Cargo.toml, app.py or app.js; create a plugin with `trainer plugin new`",
            folder.display()
        )
    })
}

fn rust(folder: &Path) -> anyhow::Result<PathBuf> {
    let installed = run(
        folder,
        "rustc",
        &["--print", "target-libdir", "--target", TARGET],
    )?;
    if !Path::new(installed.trim()).exists() {
        run(folder, "rustup", &["target", "add", TARGET])?;
    }
    let flags = [
        "build",
        "--release",
        "--target",
        TARGET,
        "--target-dir",
        "target",
    ];
    run(folder, "cargo", &flags)?;
    Ok(folder.join(format!("target/{TARGET}/release/plugin.wasm")))
}

fn python(folder: &Path) -> anyhow::Result<PathBuf> {
    let wanted = std::fs::read_to_string(folder.join("requirements.txt"))
        .context("cannot read requirements.txt")?;
    let stamp = folder.join(".venv/installed.txt");
    if std::fs::read_to_string(&stamp).unwrap_or_default() != wanted {
        run(folder, "python3", &["-m", "venv", ".venv"])?;
        let pip = ["install", "--quiet", "--disable-pip-version-check", "-r"];
        let pip: Vec<&str> = pip.into_iter().chain(["requirements.txt"]).collect();
        run(folder, ".venv/bin/pip", &pip)?;
        std::fs::write(&stamp, wanted)?;
    }
    std::fs::write(folder.join("build/trainer_entry.py"), PYTHON_ENTRY)?;
    let flags = [
        "--wit-path",
        "wit",
        "--world",
        "plugin",
        "componentize",
        "-p",
        "build",
        "-p",
        ".",
        "trainer_entry",
    ];
    let output = ["--stub-wasi", "-o", "build/app.unfinished"];
    let flags: Vec<&str> = flags.into_iter().chain(output).collect();
    run(folder, ".venv/bin/componentize-py", &flags)?;
    Ok(folder.join("build/app.unfinished"))
}

fn javascript(folder: &Path) -> anyhow::Result<PathBuf> {
    let wanted = std::fs::read_to_string(folder.join("package.json"))?;
    let stamp = folder.join("node_modules/installed.json");
    if std::fs::read_to_string(&stamp).unwrap_or_default() != wanted {
        run(
            folder,
            "npm",
            &["install", "--no-audit", "--no-fund", "--loglevel=error"],
        )?;
        std::fs::write(&stamp, wanted)?;
    }
    let flags = [
        "componentize",
        ENTRY_FILE,
        "--wit",
        "wit",
        "--world-name",
        "plugin",
    ];
    let engine = [
        "--backend",
        "qjs",
        "--backend-qjs-stub-wasi",
        "--backend-qjs-disable-async",
        "-o",
        "build/app.unfinished",
    ];
    let flags: Vec<&str> = flags.into_iter().chain(engine).collect();
    // A program reads no module above its own folder.
    let entry = folder.join(ENTRY_FILE);
    std::fs::write(&entry, JAVASCRIPT_ENTRY)?;
    let made = run(folder, "node_modules/.bin/jco", &flags);
    std::fs::remove_file(entry)?;
    made?;
    Ok(folder.join("build/app.unfinished"))
}

/// Runs a tool and returns its output. Its messages are shown if it fails.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    // A tool in the folder is called by its path.
    let path = match program.contains('/') {
        true => folder.join(program),
        false => PathBuf::from(program),
    };
    let output = Command::new(path)
        .args(arguments)
        .current_dir(folder)
        .output()
        .with_context(|| format!("cannot start {program}; is it installed?"))?;
    if !output.status.success() {
        bail!(
            "{program} {} failed:\n{}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
