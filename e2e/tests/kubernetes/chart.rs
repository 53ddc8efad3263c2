//! The Helm chart: it renders what the kustomization does, and takes over what the kustomization installed.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use e2e::control_plane::{self, ControlPlane, Overlay};
use e2e::documents::blocks;
use e2e::{binary, root};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::deployment::{create_token, object, run_commands, wait_for_rollout};
use crate::service::{Deployed, request};

/// Components of the kustomization, and the values of the chart that mean the same.
const COMPONENTS: [(&str, &str); 5] = [
    ("access", "access.enabled=true"),
    ("trainjob", "trainJobs.enabled=true"),
    ("kueue", "kueue.enabled=true"),
    ("tracing", "tracing.enabled=true"),
    ("monitoring", "monitoring.enabled=true"),
];
/// Labels of the tools. Those by which pods are selected are compared in the selectors.
const LABELS: [&str; 6] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
];

fn helm(plane: &ControlPlane, arguments: &[&str]) -> Output {
    let mut helm = Command::new(root().join("target/helm/helm"));
    helm.args(arguments)
        .env("KUBECONFIG", &plane.kubeconfig)
        .current_dir(root());
    // `make helm` builds it.
    helm.output().unwrap()
}

fn succeeds(plane: &ControlPlane, arguments: &[&str]) -> String {
    let output = helm(plane, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "helm {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of a text by kind and name, without what only one of the tools writes.
fn objects(yaml: &str) -> BTreeMap<String, Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let objects = documents
        .into_iter()
        .filter(|object| object["kind"] != "Namespace");
    objects
        .map(|mut object| {
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.remove("namespace");
            if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
                labels.retain(|key, _| !LABELS.contains(&key.as_str()));
            }
            metadata.retain(|_, value| *value != json!({}));
            let checksum = "/spec/template/metadata/annotations";
            if let Some(annotations) = object.pointer_mut(checksum) {
                annotations
                    .as_object_mut()
                    .unwrap()
                    .remove("checksum/profiles");
            }
            if let Some(template) = object.pointer_mut("/spec/template/metadata") {
                template
                    .as_object_mut()
                    .unwrap()
                    .retain(|_, value| *value != json!({}));
            }
            if let Some(text) = object.pointer_mut("/data/profiles.yaml") {
                *text = serde_saphyr::from_str(text.as_str().unwrap()).unwrap();
            }
            let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
            (name, object)
        })
        .collect()
}

fn kustomized(
    plane: &ControlPlane,
    overlay: Overlay,
    components: &[&str],
) -> BTreeMap<String, Value> {
    let folder = control_plane::kustomization(overlay, components, "trainer", &[]).unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let yaml = plane
        .kubectl(&["kustomize", folder.to_str().unwrap()])
        .unwrap();
    // kustomize adds a hash to the name.
    let profiles = yaml.split("trainer-profiles-").nth(1).unwrap();
    let hash = &profiles[..10];
    objects(&yaml.replace(&format!("trainer-profiles-{hash}"), "trainer-profiles"))
}

fn rendered(plane: &ControlPlane, overlay: Overlay, values: &[&str]) -> BTreeMap<String, Value> {
    let scope = match overlay {
        Overlay::OneNamespace => "scope=namespace",
        Overlay::WholeCluster => "scope=cluster",
    };
    let mut arguments = vec![
        "template",
        "trainer",
        "deploy/chart",
        "--namespace",
        "trainer",
    ];
    for value in values.iter().chain([&scope]) {
        arguments.extend(["--set", value]);
    }
    objects(&succeeds(plane, &arguments))
}

#[test]
fn the_chart_renders_what_the_kustomization_does() {
    let plane = ControlPlane::shared().unwrap();
    succeeds(plane, &["lint", "--strict", "deploy/chart"]);
    let one_each = COMPONENTS.iter().map(std::slice::from_ref);
    let sets = one_each.chain([&COMPONENTS[..0], &COMPONENTS[..]]);
    for set in sets {
        let (components, values): (Vec<&str>, Vec<&str>) = set.iter().copied().unzip();
        for overlay in [Overlay::OneNamespace, Overlay::WholeCluster] {
            let expected = kustomized(plane, overlay, &components);
            let found = rendered(plane, overlay, &values);
            let names = |objects: &BTreeMap<String, Value>| -> Vec<String> {
                objects.keys().cloned().collect()
            };
            assert_eq!(names(&found), names(&expected), "{components:?}");
            for (name, object) in expected {
                assert_eq!(found[&name], object, "{components:?}: {name}");
            }
        }
    }
}

#[test]
fn wrong_values_are_named() {
    let plane = ControlPlane::shared().unwrap();
    for (value, named) in [
        ("scope=everywhere", "/scope"),
        ("replica=3", "replica"),
        ("replicas=none", "/replicas"),
        ("ingress.enabled=true", "/ingress/host"),
        ("trainJobs=true", "/trainJobs"),
        ("tracing.endpoint=collector:4318", "/tracing/endpoint"),
    ] {
        let output = helm(
            plane,
            &["template", "trainer", "deploy/chart", "--set", value],
        );
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{value}");
        assert!(message.contains(named), "{value}: {message}");
    }
}

#[test]
fn it_takes_over_an_installation_of_the_kustomization_with_jobs_in_flight() {
    let namespace = "chart-takeover";
    let plane = ControlPlane::shared().unwrap();
    let deployed =
        Deployed::start_with(plane, JobKind::PyTorchJob, namespace, &[], |site| site).unwrap();
    create_token(plane, namespace);
    wait_for_rollout(plane, namespace);
    let mut run = request("in-flight", &json!({"fake.test/run-for": "1h"}));
    run["checkpoint_base_uri"] = json!("s3://bucket/chart-takeover");
    let job = deployed.server.submit(&run).unwrap();
    deployed.server.wait_for(&job, "running").unwrap();
    let before = object(plane, "pod", &format!("{job}-master-0"), namespace);

    let install = [
        "install",
        "trainer",
        "deploy/chart",
        "--namespace",
        namespace,
    ];
    // Without these, Helm refuses objects that another tool has created.
    succeeds(
        plane,
        &[&install[..], &["--take-ownership", "--force-conflicts"]].concat(),
    );
    wait_for_rollout(plane, namespace);
    let deployment = object(plane, "deployment", "trainer", namespace);
    assert_eq!(
        deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "Helm"
    );
    let after = object(plane, "pod", &format!("{job}-master-0"), namespace);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(deployed.full(&job)["status"], "running");

    // The account still has the rights of the service.
    let another = json!({"fake.test/run-for": "1h"});
    let mut another = request("after", &another);
    another["checkpoint_base_uri"] = json!("s3://bucket/chart-takeover");
    let second = deployed.server.submit(&another).unwrap();
    deployed.server.wait_for(&second, "running").unwrap();

    // kubectl still owns the fields that it has set.
    let upgrade = "upgrade trainer deploy/chart --force-conflicts --set replicas=3 --namespace";
    let upgrade: Vec<&str> = upgrade.split(' ').chain([namespace]).collect();
    succeeds(plane, &upgrade);
    wait_for_rollout(plane, namespace);
    assert_eq!(
        object(plane, "deployment", "trainer", namespace)["spec"]["replicas"],
        3
    );
    succeeds(
        plane,
        &[
            "rollback",
            "trainer",
            "1",
            "--force-conflicts",
            "--namespace",
            namespace,
        ],
    );
    assert_eq!(
        object(plane, "deployment", "trainer", namespace)["spec"]["replicas"],
        2
    );
    succeeds(plane, &["uninstall", "trainer", "--namespace", namespace]);
    let pod = object(plane, "pod", &format!("{job}-master-0"), namespace);
    assert_eq!(pod["metadata"]["uid"], before["metadata"]["uid"]);
}

#[test]
fn the_commands_and_values_of_the_documents_work() {
    let plane = ControlPlane::shared().unwrap();
    let commands = blocks("docs/helm.md", "sh").unwrap();
    // Another test installs the service in the namespace of the documentation.
    let own = |commands: &str| commands.replace("namespace trainer", "namespace chart-page");
    let installed = run_commands(plane, &own(&commands[0]));
    assert!(
        installed.contains("port-forward service/trainer 8080:80"),
        "{installed}"
    );
    assert!(installed.contains("successfully rolled out"), "{installed}");
    run_commands(plane, &own(&commands[1]));

    let folder = tempfile::tempdir().unwrap();
    let values = folder.path().join("values.yaml");
    std::fs::write(&values, &blocks("docs/helm.md", "yaml").unwrap()[0]).unwrap();
    let values = values.to_str().unwrap();
    let template = ["template", "trainer", "deploy/chart", "--values", values];
    let objects = objects(&succeeds(plane, &template));
    let ingress = &objects["\"Ingress\" \"trainer\""]["spec"];
    assert_eq!(ingress["tls"][0]["secretName"], "trainer-tls");
    let profiles = folder.path().join("profiles.yaml");
    let given = &objects["\"ConfigMap\" \"trainer-profiles\""]["data"]["profiles.yaml"];
    std::fs::write(&profiles, given.to_string()).unwrap();
    let runtimes = Command::new(binary())
        .args(["runtimes", "--profiles", profiles.to_str().unwrap()])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&runtimes.stderr);
    assert!(runtimes.status.success(), "{errors}");
}
