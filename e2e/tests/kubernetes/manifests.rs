//! Every manifest that the service makes, as a PyTorchJob and as a TrainJob, is one that the API server
//! takes: strict validation, the defaults, the admission plugins and the webhooks, all of it but the
//! storing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use e2e::control_plane::{ControlPlane, Extension};
use e2e::root;
use kube::client::Body;
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;
use trainer_host::plugin::{Limits, PlanError, Plugins, UnknownArguments};
use trainer_host::preview::Preview;
use trainer_host::request::{self, RequestPolicy};

/// A manifest, and the request that it comes from.
struct Case {
    name: String,
    manifest: Value,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_snapshot_passes_the_strict_dry_run() {
    let mut requests = Vec::new();
    for file in files(&root().join("snapshots/cases")) {
        if file
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = std::fs::read(&file).unwrap();
            // Cases that are not JSON have no manifest.
            if let Ok(request) = serde_json::from_slice(&text) {
                requests.push((file.display().to_string(), request));
            }
        }
    }
    for kind in JobKind::ALL {
        let cases = cases(&requests, kind).await;
        assert!(cases.len() >= 20, "{}", cases.len());
        all_pass(cases).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_golden_vector_passes_the_strict_dry_run() {
    let text = std::fs::read_to_string(root().join("host/tests/data/golden.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let case: Value = serde_json::from_str(line).unwrap();
        (
            case["id"].as_str().unwrap().to_string(),
            case["request"].clone(),
        )
    });
    let requests: Vec<_> = lines.collect();
    let count = requests.len();
    for kind in JobKind::ALL {
        let cases = cases(&requests, kind).await;
        assert!(
            count > 0 && cases.len() == count,
            "{} of {count}",
            cases.len()
        );
        all_pass(cases).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strict_dry_run_finds_a_field_that_is_none() {
    let manifest = json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "typo", "namespace": "default"},
        "spec": {"runPolicy": {"backofLimit": 3}, "pytorchReplicaSpecs": {}},
    });
    let refused = dry_run(&manifest).await.unwrap_err();
    assert!(
        refused.contains("unknown field") && refused.contains("spec.runPolicy.backofLimit"),
        "{refused}"
    );
}

/// The manifests, of a kind, of those requests that are not refused.
async fn cases(requests: &[(String, Value)], job_kind: JobKind) -> Vec<Case> {
    let cache = tempfile::tempdir().unwrap();
    let folder = root().join("target/plugins");
    let unknown = UnknownArguments::default();
    let plugins = Plugins::load(&folder, cache.path(), Limits::default(), unknown).unwrap();
    let policy = RequestPolicy {
        job_kind,
        ..RequestPolicy::default()
    };
    let mut cases = Vec::new();
    for (name, request) in requests {
        let Ok(checked) = request::check(request.clone(), plugins.schemas(), &policy) else {
            continue;
        };
        let plan = match plugins.plan(&checked).await {
            Ok(plan) => plan,
            Err(PlanError::Refused(_)) => continue,
            Err(error) => unreachable!("{name}: {error}"),
        };
        let preview = Preview::of(&checked.request, &plan, &checked.warnings);
        let manifest = serde_json::to_value(&preview.manifest).unwrap();
        let name = format!("{} {name}", job_kind.name());
        cases.push(Case { name, manifest });
    }
    cases
}

/// Sends each to the API server, in its namespace, and reports all that it refuses.
async fn all_pass(cases: Vec<Case>) {
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Trainer).unwrap();
    let runtime = root().join("deploy/components/trainjob/runtime.yaml");
    let runtime = std::fs::read_to_string(runtime).unwrap();
    let apply = ["apply", "--server-side", "--filename", "-"];
    plane.kubectl_with(&apply, &runtime).unwrap();
    let namespace = |case: &Case| {
        case.manifest["metadata"]["namespace"]
            .as_str()
            .map(str::to_string)
    };
    for namespace in cases.iter().filter_map(namespace).collect::<BTreeSet<_>>() {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        plane.kubectl_with(&apply, &object.to_string()).unwrap();
    }
    let mut refused = Vec::new();
    for case in cases {
        if let Err(why) = dry_run(&case.manifest).await {
            refused.push(format!("{}: {why}", case.name));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

async fn dry_run(manifest: &Value) -> Result<(), String> {
    let client = ControlPlane::shared().unwrap().client().await.unwrap();
    let namespace = manifest["metadata"]["namespace"].as_str().unwrap();
    let mut kinds = JobKind::ALL.into_iter();
    let kind = kinds.find(|kind| manifest["kind"] == kind.name());
    let kind = kind.unwrap();
    let (api, jobs) = (kind.api_version(), kind.plural());
    let jobs = format!("/apis/{api}/namespaces/{namespace}/{jobs}");
    let request = hyper::Request::post(format!("{jobs}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(Body::from(manifest.to_string().into_bytes()));
    let answer = client.send(request.unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect_bytes().await.unwrap();
    match head.status.as_u16() {
        201 => Ok(()),
        _ => Err(String::from_utf8_lossy(&body).into_owned()),
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let nested = paths.map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    nested.flatten().collect()
}
