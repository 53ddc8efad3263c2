//! Files that are not plugins are refused with a reason, and do not affect other plugins.

use std::path::Path;
use std::sync::Arc;

use trainer_host::plugin::{Limits, LoadError, Plugins, UnknownArguments, error_chain};

use crate::service::{built_plugins, with_attack};

fn load(folder: &Path) -> Arc<Plugins> {
    let cache = folder.join("cache");
    Plugins::load(
        folder,
        &cache,
        Limits::default(),
        UnknownArguments::default(),
    )
    .unwrap()
}

/// The error for a file in a folder with a valid plugin.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        built_plugins().join("hf.wasm"),
        folder.path().join("hf.wasm"),
    )
    .unwrap();
    std::fs::write(folder.path().join("bad.wasm"), bytes).unwrap();
    let plugins = load(folder.path());
    assert!(plugins.get("hf").is_some());
    let [refused] = plugins.refused() else {
        panic!("{:?}", plugins.refused())
    };
    refused.why()
}

fn wat(text: &str) -> String {
    refusal(&wat::parse_str(text).unwrap())
}

#[test]
fn what_is_no_plugin_is_refused_in_words_that_name_the_fault() {
    assert!(
        refusal(b"").starts_with("not WebAssembly"),
        "{}",
        refusal(b"")
    );
    assert!(refusal(b"#!/bin/sh").starts_with("not WebAssembly"));
    let whole = std::fs::read(built_plugins().join("meta.wasm")).unwrap();
    assert!(refusal(&whole[..whole.len() / 2]).starts_with("not WebAssembly"));
    let no_contract =
        "it does not export deepfinery:trainer/framework; build it with the plugin SDK";
    assert_eq!(wat("(module)"), no_contract);
    assert_eq!(wat("(component)"), no_contract);
    let newer = r#"(module (func (export "deepfinery:trainer/framework@0.2.0#plan")))"#;
    assert_eq!(
        wat(newer),
        "built for contract 0.2, but this host supports 0.1 to 0.1"
    );
}

#[test]
fn an_import_is_refused_by_its_name() {
    let module = r#"(module (import "env" "clock" (func)))"#;
    let expected = "it imports env#clock (1 imports in total); plugins must not import anything";
    assert_eq!(wat(module), expected);
    let component = r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#;
    assert!(wat(component).starts_with("it imports wasi:cli/environment@0.2.0"));
}

#[test]
fn a_function_of_the_wrong_type_is_refused_before_the_first_request() {
    let wrong = r#"(component (component $c) (instance $i (instantiate $c))
        (export "deepfinery:trainer/framework@0.1.0" (instance $i)))"#;
    assert!(
        wat(wrong).starts_with("it does not implement the contract"),
        "{}",
        wat(wrong)
    );
}

#[test]
fn an_attack_in_describe_is_refused() {
    for (attack, reason) in [
        (
            "loop",
            "describe() failed: it ran longer than the 1000 ms allowed",
        ),
        ("allocate", "describe() failed: it requested"),
        (
            "recurse-natively",
            "describe() failed: it used more than the 524288 bytes of stack allowed",
        ),
        ("trap", "describe() failed: it trapped"),
        (
            "bad-name",
            "the result of describe() is invalid: the name \"../etc\" is not a DNS label",
        ),
        (
            "punycode",
            "the result of describe() is invalid: the name \"xn--mta-hdc\" is an encoded \
             international name",
        ),
        (
            "bad-schema",
            "the result of describe() is invalid: args-schema is not a valid JSON Schema",
        ),
        (
            "not-json",
            "the result of describe() is invalid: args-schema is not valid JSON",
        ),
        (
            "remote",
            "the result of describe() is invalid: args-schema is not a valid JSON Schema",
        ),
        (
            "two-lines",
            "the result of describe() is invalid: version and summary must be a single line each",
        ),
    ] {
        let message = refusal(&with_attack(attack));
        assert!(message.starts_with(reason), "{attack}: {message}");
    }
}

#[test]
fn the_message_of_a_panic_is_for_the_author_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.wasm"), with_attack("trap")).unwrap();
    let plugins = load(folder.path());
    let [refused] = plugins.refused() else {
        panic!("{:?}", plugins.refused())
    };
    let logged = error_chain(&*refused.error);
    let (shown, words) = logged.split_once("; the plugin says: ").unwrap();
    assert_eq!(refused.why(), shown);
    assert!(words.starts_with("panicked at "), "{logged}");
    assert!(
        words.contains("hostile/src/lib.rs:") && words.ends_with(": | trap"),
        "{logged}"
    );
}

#[test]
fn two_files_of_one_name_are_not_both_served() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.wasm", "b.wasm"] {
        std::fs::copy(built_plugins().join("hf.wasm"), folder.path().join(name)).unwrap();
    }
    let plugins = load(folder.path());
    assert_eq!(plugins.all().count(), 1);
    assert!(
        plugins.refused()[0]
            .error
            .to_string()
            .starts_with("framework hf is already served")
    );
}

#[test]
fn what_is_not_a_file_in_the_folder_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::copy(built_plugins().join("hf.wasm"), path("hf.wasm")).unwrap();
    for pipe in ["pipe.wasm", "hf.wasm.sig"] {
        let made = std::process::Command::new("mkfifo")
            .arg(path(pipe))
            .status();
        assert!(made.unwrap().success());
    }
    let _socket = std::os::unix::net::UnixListener::bind(path("socket.wasm")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("device.wasm")).unwrap();
    let sparse = std::fs::File::create(path("sparse.wasm")).unwrap();
    sparse.set_len(4 << 40).unwrap();
    std::fs::create_dir(path("folder.wasm")).unwrap();
    let plugins = load(folder.path());
    assert!(plugins.get("hf").is_some());
    assert_eq!(plugins.refused().len(), 5, "{:?}", plugins.refused());
}

#[test]
fn compiled_code_is_cached_and_a_damaged_file_is_compiled_anew() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        built_plugins().join("hf.wasm"),
        folder.path().join("hf.wasm"),
    )
    .unwrap();
    load(folder.path());
    let cache = std::fs::read_dir(folder.path().join("cache/compiled-plugins"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let compiled = std::fs::read_dir(cache.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|file| file.extension().is_some_and(|e| e == "cwasm"))
        .unwrap();
    std::fs::write(&compiled, b"damaged").unwrap();
    assert!(load(folder.path()).get("hf").is_some());
    assert!(std::fs::metadata(&compiled).unwrap().len() > 1000);
}

#[test]
fn a_cache_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("cache");
    let cache = data.join("compiled-plugins");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
    let loaded = Plugins::load(
        folder.path(),
        &data,
        Limits::default(),
        UnknownArguments::default(),
    );
    assert!(matches!(loaded, Err(LoadError::Cache { .. })));
}
