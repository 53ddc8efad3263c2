//! What ARCHITECTURE.md says is absent.

use std::path::{Path, PathBuf};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

fn files_of(module: &str) -> Vec<PathBuf> {
    let mut files = vec![Path::new(SOURCES).join(format!("{module}.rs"))];
    let folder = Path::new(SOURCES).join(module);
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// Asserts that no file of a module has one of the words outside its tests.
fn assert_absent(module: &str, words: &[&str]) {
    for file in files_of(module) {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in words {
            assert!(!code.contains(word), "{word} in {}", file.display());
        }
    }
}

#[test]
fn plugin_and_cluster_know_neither_each_other_nor_http() {
    assert_absent("plugin", &["crate::cluster", "crate::http", "axum"]);
    assert_absent("cluster", &["crate::plugin", "crate::http", "axum"]);
}

#[test]
fn the_host_names_no_framework() {
    for module in ["lib", "main", "config", "plugin", "cluster", "http"] {
        assert_absent(module, &["\"nemo\"", "\"meta\""]);
    }
}
