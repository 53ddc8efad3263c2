//! The contract over time: a released package is frozen, the present one still fits what was built
//! against it, and what was built against it still loads.

use std::path::{Path, PathBuf};

use trainer_host::plugin::source::Digest;
use trainer_host::plugin::{Limits, Plugins, UnknownArguments};
use wit_parser::Resolve;

const CURRENT: &str = include_str!("../../../wit/trainer.wit");
/// Every released package, oldest first, and the digest of its text: what is released is never
/// edited.
const RELEASED: &[(&str, &str)] = &[(
    "0.1.0",
    "sha256:667f1ca065780a06e443cb65e0a56fda3a1ca3987f459274824f3f1dae950e08",
)];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn released(version: &str) -> PathBuf {
    root().join(format!("wit/released/trainer-{version}.wit"))
}

/// Why a plugin that was built against one text does not fit a host of the other.
fn incompatible(old: &str, new: &str) -> Option<String> {
    let mut resolve = Resolve::default();
    // Two texts of one version are two packages here: the name tells them apart.
    let old = old.replacen(
        "package deepfinery:trainer@",
        "package deepfinery:released@",
        1,
    );
    let mut world = |name: &str, text: &str| {
        let package = resolve.push_str(name, text).unwrap();
        resolve.select_world(&[package], Some("plugin")).unwrap()
    };
    let (old, new) = (world("old.wit", &old), world("new.wit", new));
    same_shape(&resolve, old, new)
}

/// Compares the interface that both worlds export, function by function and type by type, by their
/// text: for an exported interface anything else than the same breaks one side.
fn same_shape(
    resolve: &Resolve,
    old: wit_parser::WorldId,
    new: wit_parser::WorldId,
) -> Option<String> {
    let shape = |world: wit_parser::WorldId| {
        let mut printer = wit_component::WitPrinter::default();
        printer.emit_docs(false);
        let package = resolve.worlds[world].package.unwrap();
        printer.print(resolve, package, &[]).unwrap();
        let text = printer.output.to_string();
        let lines = text.lines().filter(|line| !line.starts_with("package "));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    let (old, new) = (shape(old), shape(new));
    let changed = old.iter().zip(&new).find(|(old, new)| old != new);
    match changed {
        Some((old, new)) => Some(format!("{} became {}", old.trim(), new.trim())),
        None if old.len() != new.len() => Some("something was added or removed".to_string()),
        None => None,
    }
}

#[test]
fn what_is_released_is_never_edited() {
    for (version, digest) in RELEASED {
        let text = std::fs::read(released(version)).unwrap();
        assert_eq!(
            Digest::of(&text).to_string(),
            *digest,
            "wit/released of {version}"
        );
    }
}

#[test]
fn the_present_contract_fits_plugins_of_the_last_released_one() {
    let (last, _) = RELEASED.last().unwrap();
    let text = std::fs::read_to_string(released(last)).unwrap();
    let track = |version: &str| version.rsplit_once('.').unwrap().0.to_string();
    let version = CURRENT.split("deepfinery:trainer@").nth(1).unwrap();
    let version = version.split(';').next().unwrap();
    if track(version) == track(last) {
        let why = incompatible(&text, CURRENT);
        assert_eq!(why, None, "release it as another version, beside this one");
    }
}

#[test]
fn an_incompatible_change_is_seen() {
    for (from, to) in [
        (
            "name: string,\n        value: string,",
            "name: string,\n        value: u32,",
        ),
        (
            "num-nodes: u32,",
            "num-nodes: u32,\n        queue: option<string>,",
        ),
        (
            "template(string),",
            "template(string),\n        shell(string),",
        ),
        ("describe: func()", "health: func();\n    describe: func()"),
        ("plan: func(job: job)", "plan: func(work: job)"),
    ] {
        assert!(CURRENT.contains(from), "{from}");
        let changed = CURRENT.replacen(from, to, 1);
        assert!(incompatible(CURRENT, &changed).is_some(), "{to}");
    }
    let explained = CURRENT.replacen("/// An environment variable.", "/// A variable.", 1);
    assert_eq!(incompatible(CURRENT, &explained), None);
}

#[test]
fn a_plugin_built_against_each_released_version_loads() {
    for (version, _) in RELEASED {
        let folder = tempfile::tempdir().unwrap();
        let file = root().join(format!("host/tests/data/contract/{version}.wasm"));
        std::fs::copy(file, folder.path().join("old.wasm")).unwrap();
        let plugins = Plugins::load(
            folder.path(),
            &folder.path().join("data"),
            Limits::default(),
            UnknownArguments::default(),
        );
        let plugins = plugins.unwrap();
        assert!(plugins.get("old").is_some(), "{:?}", plugins.refused());
    }
}
