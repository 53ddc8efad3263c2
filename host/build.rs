//! Collects what the binary contains: the plugins, the training programs, the console, and the files
//! of `trainer plugin new`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The folder with the built plugins, relative to the workspace. `TRAINER_BUNDLED_PLUGINS` names
/// another one.
const PLUGINS: &str = "target/plugins";

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?).join("bundle");
    let host = env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?;
    let workspace = Path::new(&host).join("..");
    let plugins = env::var_os("TRAINER_BUNDLED_PLUGINS").map(PathBuf::from);
    let plugins = plugins.unwrap_or_else(|| workspace.join(PLUGINS));
    println!("cargo::rerun-if-env-changed=TRAINER_BUNDLED_PLUGINS");
    for folder in ["templates", "../plugins/sdk/src", "../wit", "../console"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    // Cargo would always run this again for a folder that is not there.
    if plugins.is_dir() {
        println!("cargo::rerun-if-changed={}", plugins.display());
    }
    let _ = fs::remove_dir_all(&out);
    copy(&plugins, "wasm", &out.join("plugins"))?;
    for extension in ["py", "json"] {
        copy(&workspace.join("trainer"), extension, &out.join("trainer"))?;
    }
    copy(
        &workspace.join("trainer/runners"),
        "py",
        &out.join("trainer/runners"),
    )
}

/// Copies the files of a folder with an extension. A folder that is not there has none. The files are
/// watched, not the folder, because Python writes its caches there.
fn copy(from: &Path, extension: &str, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let Ok(entries) = fs::read_dir(from) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path
            .file_name()
            .filter(|_| path.extension().is_some_and(|e| e == extension))
        else {
            continue;
        };
        println!("cargo::rerun-if-changed={}", path.display());
        fs::copy(&path, to.join(name))?;
    }
    Ok(())
}
