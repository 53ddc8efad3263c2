//! Requests in, previews out: each file in `cases/` has its snapshot beside it and its TrainJob in
//! `trainjobs/`, and each line in
//! `rules/` shows a rule that fires and the same rule just not firing.
//!
//! `make snapshots` accepts the current previews. A snapshot without a case fails the tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use insta::{Settings, assert_snapshot};
use serde_json::{Map, Value};
use trainer_host::finding::Finding;
use trainer_host::job_kind::JobKind;
use trainer_host::manifest;
use trainer_host::plugin::{Limits, PlanError, Plugins, UnknownArguments};
use trainer_host::preview::Preview;
use trainer_host::profile::Profiles;
use trainer_host::request::{self, RequestPolicy, json};

#[tokio::test]
async fn every_case_has_the_preview_of_its_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let plugins = plugins(cache.path());
    let folder = root().join("snapshots/cases");
    let mut snapshots = BTreeSet::new();
    for case in cases(&folder) {
        let name = case.strip_prefix(&folder).unwrap().with_extension("");
        let name = name.display().to_string().replace('/', "__");
        snapshots.insert(folder.join(format!("{name}.snap")));
        let text = std::fs::read(&case).unwrap();
        let shown = shown(&plugins, &text).await;
        let mut settings = Settings::clone_current();
        settings.set_snapshot_path(&folder);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| assert_snapshot!(name, shown));
    }
    let there = files(&folder)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "snap"));
    let stale: Vec<PathBuf> = there.filter(|file| !snapshots.contains(file)).collect();
    assert!(stale.is_empty(), "snapshots without a case: {stale:?}");
}

/// Beside the preview of a case, which has its PyTorchJob.
#[tokio::test]
async fn every_case_has_the_train_job_of_its_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let plugins = plugins(cache.path());
    let folder = root().join("snapshots/cases");
    let snapshots = root().join("snapshots/trainjobs");
    let mut known = BTreeSet::new();
    let policy = RequestPolicy {
        job_kind: JobKind::TrainJob,
        ..RequestPolicy::default()
    };
    for case in cases(&folder) {
        let text = std::fs::read(&case).unwrap();
        let Ok(preview) = preview(&plugins, &text, &policy).await else {
            continue;
        };
        let name = case.strip_prefix(&folder).unwrap().with_extension("");
        let name = name.display().to_string().replace('/', "__");
        known.insert(snapshots.join(format!("{name}.snap")));
        let mut settings = Settings::clone_current();
        settings.set_snapshot_path(&snapshots);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let digest = preview["plugin"]["digest"].as_str().unwrap();
        let job = serde_json::to_string_pretty(&preview["manifest"]).unwrap();
        let job = job.replace(digest, "[digest]");
        settings.bind(|| assert_snapshot!(name, job));
    }
    let there = files(&snapshots).into_iter();
    let stale: Vec<PathBuf> = there.filter(|file| !known.contains(file)).collect();
    assert!(stale.is_empty(), "snapshots without a case: {stale:?}");
}

#[tokio::test]
async fn the_request_in_a_manifest_makes_that_manifest_again() {
    let cache = tempfile::tempdir().unwrap();
    let plugins = plugins(cache.path());
    let cases = cases(&root().join("snapshots/cases")).into_iter();
    let golden = include_str!("../host/tests/data/golden.jsonl").lines();
    let golden = golden.map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["request"].to_string().into_bytes()
    });
    let requests: Vec<Vec<u8>> = cases
        .map(|case| std::fs::read(case).unwrap())
        .chain(golden)
        .collect();
    let mut recovered = 0;
    for job_kind in JobKind::ALL {
        let policy = RequestPolicy {
            job_kind,
            ..RequestPolicy::default()
        };
        for text in &requests {
            let Ok(original) = preview(&plugins, text, &policy).await else {
                continue;
            };
            let manifest = &original["manifest"];
            let mut fields = manifest::recovered_fields(manifest);
            let plain = manifest_of(&plugins, &fields, &policy).await;
            manifest::recover_arguments(&mut fields, manifest, &plain);
            let plain = manifest_of(&plugins, &fields, &policy).await;
            let request = manifest::recovered(fields, manifest, &plain);
            let again = manifest_of(&plugins, &request, &policy).await;
            assert_eq!(again, *manifest, "{request:?}");
            recovered += 1;
        }
    }
    assert!(recovered > 50, "{recovered}");
}

/// The manifest of a valid request.
async fn manifest_of(
    plugins: &Plugins,
    request: &Map<String, Value>,
    policy: &RequestPolicy,
) -> Value {
    let text = serde_json::to_vec(request).unwrap();
    let preview = preview(plugins, &text, policy).await.unwrap();
    preview["manifest"].clone()
}

#[tokio::test]
async fn every_rule_fires_where_it_should_and_not_a_step_before() {
    let cache = tempfile::tempdir().unwrap();
    let plugins = plugins(cache.path());
    let folder = root().join("snapshots/rules");
    for plugin in plugins.all() {
        let framework = &plugin.identity.name;
        let text = std::fs::read_to_string(folder.join(format!("{framework}.jsonl"))).unwrap();
        let mut untold: BTreeSet<String> = rules(&plugin.args_schema);
        let mut page = String::new();
        for line in text.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let rule = case["rule"].as_str().unwrap();
            untold.remove(rule);
            let fires = findings(&plugins, framework, &case, "fires").await;
            let holds = findings(&plugins, framework, &case, "holds").await;
            assert!(
                fires.iter().any(|reported| reported.contains(rule)),
                "{line}: {fires:?}"
            );
            assert!(
                !holds.iter().any(|reported| reported.contains(rule)),
                "{line}: {holds:?}"
            );
            for (name, reported) in [("fires", fires), ("holds", holds)] {
                page += &format!("{rule} {name}: {}\n", case[name]);
                page.extend(reported.iter().map(|reported| format!("    {reported}\n")));
            }
        }
        assert!(
            untold.is_empty(),
            "rules of {framework} without a case: {untold:?}"
        );
        let mut settings = Settings::clone_current();
        settings.set_snapshot_path(&folder);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| assert_snapshot!(framework.as_str(), page));
    }
}

/// The codes that a framework publishes.
fn rules(schema: &Value) -> BTreeSet<String> {
    let rules = schema["x-rules"].as_array().unwrap();
    let codes = rules.iter().map(|rule| rule["code"].as_str().unwrap());
    codes.map(str::to_string).collect()
}

/// The findings for a case's job with one of its sets of arguments.
async fn findings(plugins: &Plugins, framework: &str, case: &Value, which: &str) -> Vec<String> {
    let mut request = serde_json::json!({
        "framework": framework,
        "model_id": "model",
        "run_id": "run-1",
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "extra_args": case[which],
    });
    let members = request.as_object_mut().unwrap();
    for more in ["request".to_string(), format!("{which}_request")] {
        members.extend(case[more].as_object().cloned().unwrap_or_default());
    }
    for count in ["num_nodes", "gpus_per_node"] {
        members.extend(
            case.get(count)
                .map(|value| (count.to_string(), value.clone())),
        );
    }
    let policy = policy(&case["gpu_memory_gb"]);
    let findings = match preview(plugins, request.to_string().as_bytes(), &policy).await {
        Ok(preview) => preview["warnings"].clone(),
        Err(findings) => serde_json::to_value(findings).unwrap(),
    };
    let text = |finding: &Value, member: &str| finding[member].as_str().unwrap().to_string();
    let reported = |finding: &Value| {
        ["code", "pointer", "detail"]
            .map(|m| text(finding, m))
            .join(" ")
    };
    findings.as_array().unwrap().iter().map(reported).collect()
}

/// What a person sees of a preview, or of a refusal.
async fn shown(plugins: &Plugins, text: &[u8]) -> String {
    let preview = match preview(plugins, text, &RequestPolicy::default()).await {
        Ok(preview) => preview,
        Err(findings) => serde_json::json!({ "refused": findings }),
    };
    // The digest changes with every compiler; a test of the host checks it.
    let pretty = serde_json::to_string_pretty(&preview).unwrap();
    let digest = preview["plugin"]["digest"].as_str().unwrap_or("no digest");
    pretty.replace(digest, "[digest]")
}

/// A policy whose profile has GPUs of so much memory, where a case says so.
fn policy(gpu_memory_gb: &Value) -> RequestPolicy {
    if gpu_memory_gb.is_null() {
        return RequestPolicy::default();
    }
    let profile = serde_json::json!({ "gpu_memory_gb": gpu_memory_gb });
    let profiles = serde_json::json!({ "profiles": { "gpus": profile }, "default": "gpus" });
    let profiles: Profiles = serde_json::from_value(profiles).unwrap();
    RequestPolicy {
        profiles,
        ..RequestPolicy::default()
    }
}

async fn preview(
    plugins: &Plugins,
    text: &[u8],
    policy: &RequestPolicy,
) -> Result<Value, Vec<Finding>> {
    let value: Value = json::parse(text)?;
    let checked = request::check(value, plugins.schemas(), policy)?;
    match plugins.plan(&checked).await {
        Ok(plan) => {
            let preview = Preview::of(&checked.request, &plan, &checked.warnings);
            Ok(serde_json::to_value(preview).unwrap())
        }
        Err(PlanError::Refused(findings)) => Err(findings),
        Err(error) => panic!("{error:?}"),
    }
}

fn plugins(cache: &Path) -> Arc<Plugins> {
    let folder = root().join("target/plugins");
    let plugins = Plugins::load(
        &folder,
        cache,
        Limits::default(),
        UnknownArguments::default(),
    );
    let plugins = plugins.expect("the plugins are there: `make plugins` builds them");
    assert!(plugins.refused().is_empty(), "{:?}", plugins.refused());
    plugins
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut cases = files(folder);
    cases.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    assert!(!cases.is_empty());
    cases
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}
