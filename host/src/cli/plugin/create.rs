//! `trainer plugin new`: creates the folder of a new plugin.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use include_dir::{Dir, DirEntry, include_dir};

use super::print;
use crate::metadata::is_dns_label;
use crate::plugin::check_name;

static TEMPLATES: Dir = include_dir!("$CARGO_MANIFEST_DIR/templates");
static CONTRACT: &str = include_str!("../../../../wit/trainer.wit");
static SDK: Dir = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk/src");
/// The options of torchrun, which the SDK needs at compile time.
static SDK_TORCHRUN: &str = include_str!("../../../../plugins/sdk/known/torchrun.txt");
static SDK_MANIFEST: &str = include_str!("../../../templates/sdk.toml");
/// The placeholder for the framework's name in templates.
const NAME: &str = "{{name}}";
/// The suffix of template files whose names would have an effect in the templates folder.
const TEMPLATE: &str = ".template";

/// The language of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Rust,
    Python,
    #[value(name = "javascript")]
    JavaScript,
}

impl Language {
    fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::JavaScript => "javascript",
        }
    }
}

/// Creates the folder.
pub(super) fn create(name: &str, language: Language) -> anyhow::Result<()> {
    if !is_dns_label(name) {
        bail!(
            "{name:?} is not a valid framework name; use at most 63 lower-case letters, digits and \
             '-'"
        );
    }
    check_name(name).map_err(anyhow::Error::msg)?;
    let folder = PathBuf::from(name);
    if folder.exists() {
        bail!("{name} already exists");
    }
    let template = TEMPLATES.get_dir(language.folder());
    let template = template.context("this binary contains no templates")?;
    write_all(template, template.path(), &folder, name)?;
    write(&folder.join("wit/trainer.wit"), CONTRACT)?;
    if language == Language::Rust {
        let sdk = folder.join("vendor/trainer-plugin");
        write(&sdk.join("Cargo.toml"), SDK_MANIFEST)?;
        write(&sdk.join("known/torchrun.txt"), SDK_TORCHRUN)?;
        write_all(&SDK, SDK.path(), &sdk.join("src"), name)?;
    }
    print(&format!(
        "Created {name}. Next steps:\n  trainer plugin build {name}\n trainer plugin check \
         {name}/build/{name}.wasm\n"
    ))
}

fn write_all(from: &Dir, root: &Path, to: &Path, name: &str) -> anyhow::Result<()> {
    for entry in from.entries() {
        match entry {
            DirEntry::Dir(inner) => write_all(inner, root, to, name)?,
            DirEntry::File(file) => {
                let path = file.path().strip_prefix(root)?.display().to_string();
                let path = path.strip_suffix(TEMPLATE).unwrap_or(&path);
                let text = file.contents_utf8().context("a template is not text")?;
                write(&to.join(path), &text.replace(NAME, name))?;
            }
        }
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let folder = file.parent().context("the file has no parent folder")?;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(file, text))
        .with_context(|| format!("cannot write {}", file.display()))
}
