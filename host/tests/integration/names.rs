//! Which source has which framework's name.

use std::path::Path;

use trainer_host::measure;
use trainer_host::plugin::{Registry, Reload};

use crate::service::{built_plugins, registry};

/// Writes the plugin of framework `meta`, as another version each time.
fn write(folder: &Path, file: &str, version: u8) {
    let mut bytes = std::fs::read(built_plugins().join("meta.wasm")).unwrap();
    bytes.extend([0, 3, 1, b'v', version]);
    std::fs::write(folder.join(file), bytes).unwrap();
}

fn source(registry: &Registry) -> Option<String> {
    let plugins = registry.current();
    plugins.get("meta").map(|plugin| plugin.source.clone())
}

/// What is refused, with the reason.
fn refused(registry: &Registry) -> Vec<(String, String)> {
    let plugins = registry.current();
    let refused = plugins.refused().iter();
    refused
        .map(|refused| (refused.source.clone(), refused.why()))
        .collect()
}

#[test]
fn a_plugin_that_is_served_keeps_its_name_until_it_is_gone() {
    let metrics = measure::metrics();
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(folder.path(), "holder.wasm", 1);
    let registry = registry(folder.path(), data.path());
    // It comes first by its name.
    write(folder.path(), "claimant.wasm", 2);
    registry.reload(Reload::Changed);
    assert_eq!(source(&registry).as_deref(), Some("holder.wasm"));
    let message = refused(&registry);
    assert_eq!(message.len(), 1, "{message:?}");
    assert_eq!(message[0].0, "claimant.wasm");
    assert!(message[0].1.contains("holder.wasm"), "{message:?}");
    let series = "trainer_plugin_refused{source=\"claimant.wasm\"} 1";
    assert!(metrics.render().contains(series));

    // A new version of the holder is served, as always.
    write(folder.path(), "holder.wasm", 3);
    registry.reload(Reload::Changed);
    assert_eq!(source(&registry).as_deref(), Some("holder.wasm"));

    std::fs::remove_file(folder.path().join("holder.wasm")).unwrap();
    registry.reload(Reload::Changed);
    assert_eq!(source(&registry).as_deref(), Some("claimant.wasm"));
    assert!(refused(&registry).is_empty());
}

#[test]
fn a_name_that_is_bound_is_given_to_its_source_and_that_is_counted() {
    let metrics = measure::metrics();
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(folder.path(), "before.wasm", 1);
    let registry = registry(folder.path(), data.path());
    let bind = |file: &str| {
        let settings = format!("[[plugin]]\nsource = \"{file}\"\nname = \"meta\"\n");
        std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    };
    // Bound to a file that is not there yet: the framework is served as before.
    bind("after.wasm");
    registry.reload(Reload::Changed);
    assert_eq!(source(&registry).as_deref(), Some("before.wasm"));
    write(folder.path(), "after.wasm", 2);
    registry.reload(Reload::Changed);
    assert_eq!(source(&registry).as_deref(), Some("after.wasm"));
    let message = refused(&registry);
    assert_eq!(message[0].0, "before.wasm");
    assert!(
        message[0]
            .1
            .contains("assigns framework meta to after.wasm"),
        "{message:?}"
    );
    let series = "trainer_plugins_displaced_total{framework=\"meta\"} 1";
    assert!(metrics.render().contains(series));
}

#[test]
fn nobody_else_gets_a_name_that_is_bound() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(folder.path(), "another.wasm", 1);
    let settings = "[[plugin]]\nsource = \"missing.wasm\"\nname = \"meta\"\n";
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    let registry = registry(folder.path(), data.path());
    assert_eq!(source(&registry), None);
    let message = refused(&registry);
    assert_eq!(message.len(), 2, "{message:?}");
    assert!(message[1].1.contains("to missing.wasm"), "{message:?}");
}

#[test]
fn a_source_that_is_bound_to_one_name_gets_no_other() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(folder.path(), "team.wasm", 1);
    let settings = "[[plugin]]\nsource = \"team.wasm\"\nname = \"team\"\n";
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    let registry = registry(folder.path(), data.path());
    assert_eq!(source(&registry), None);
    let message = refused(&registry);
    let expected = "it provides framework meta, but plugins.toml expects team from this source";
    assert_eq!(message[0].1, expected);
}

#[test]
fn a_rollback_gives_back_no_name_that_is_taken() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hf = built_plugins().join("hf.wasm");
    write(folder.path(), "a.wasm", 1);
    let registry = registry(folder.path(), data.path());
    // The source changes its framework, and another one takes the name that it left.
    std::fs::copy(hf, folder.path().join("a.wasm")).unwrap();
    write(folder.path(), "b.wasm", 2);
    registry.reload(Reload::Changed);
    assert_eq!(source(&registry).as_deref(), Some("b.wasm"));
    let error = registry.roll_back("hf").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("which another plugin now serves"),
        "{error}"
    );
    assert!(registry.current().get("hf").is_some());
}

#[test]
fn a_rollback_across_names_gives_the_name_that_is_served_then() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(folder.path(), "a.wasm", 1);
    let registry = registry(folder.path(), data.path());
    let hf = built_plugins().join("hf.wasm");
    std::fs::copy(hf, folder.path().join("a.wasm")).unwrap();
    registry.reload(Reload::Changed);
    assert_eq!(registry.roll_back("hf").unwrap(), "meta");
    assert_eq!(source(&registry).as_deref(), Some("a.wasm"));
    assert!(registry.current().get("hf").is_none());
}
