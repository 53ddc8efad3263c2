//! `deploy/` unmodified: kubectl applies each overlay strictly, and it rolls out. The same holds for the
//! examples of the documentation.

use std::path::PathBuf;
use std::process::Command;

use e2e::control_plane::{ControlPlane, Overlay};
use e2e::documents::blocks;
use e2e::root;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Applies an overlay and waits until it has rolled out.
fn rolls_out(overlay: Overlay, namespace: &str) {
    let plane = ControlPlane::shared().unwrap();
    plane.install(overlay, namespace).unwrap();
    create_token(plane, namespace);
    wait_for_rollout(plane, namespace);
}

/// Creates the token's Secret that docs/operator.md asks for.
pub fn create_token(plane: &ControlPlane, namespace: &str) {
    let secret = [
        "create",
        "secret",
        "generic",
        "trainer-token",
        "--from-literal=token=secret",
        "--namespace",
        namespace,
    ];
    plane.kubectl(&secret).unwrap();
}

/// Waits until the service's pods are ready: they were admitted, scheduled, and pass for running.
pub fn wait_for_rollout(plane: &ControlPlane, namespace: &str) {
    let rollout = [
        "rollout",
        "status",
        "deployment/trainer",
        "--timeout=60s",
        "--namespace",
        namespace,
    ];
    plane.kubectl(&rollout).unwrap();
}

/// Runs commands of the documentation as the administrator, and returns what they print.
pub fn run_commands(plane: &ControlPlane, commands: &str) -> String {
    let programs =
        "kubectl() { \"$PROGRAM\" kubectl \"$@\"; }; helm() { target/helm/helm \"$@\"; }";
    let done = Command::new("bash")
        .args(["-euc", &format!("{programs}\n{commands}")])
        .env("PROGRAM", root().join("target/control-plane/control-plane"))
        .env("KUBECONFIG", &plane.kubeconfig)
        .current_dir(root())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{commands}: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

/// A folder beside `deploy/` with one of the kustomizations in docs/operator.md, and the guard that
/// deletes it.
fn kustomization_of_the_documents(number: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::symlink(root().join("deploy"), folder.path().join("deploy")).unwrap();
    let yaml = blocks("docs/operator.md", "yaml").unwrap();
    let mut kustomizations = yaml
        .iter()
        .filter(|block| block.contains("kind: Kustomization"));
    let kustomization = kustomizations.nth(number).unwrap();
    std::fs::write(own.join("kustomization.yaml"), kustomization).unwrap();
    (folder, own)
}

/// An object as it stands in the cluster.
pub fn object(plane: &ControlPlane, kind: &str, name: &str, namespace: &str) -> Value {
    let get = ["get", kind, name, "--output=json", "--namespace", namespace];
    serde_json::from_str(&plane.kubectl(&get).unwrap()).unwrap()
}

#[test]
fn the_overlay_for_one_namespace_rolls_out() {
    rolls_out(Overlay::OneNamespace, "rolls-out-alone");
}

#[test]
fn the_overlay_for_the_whole_cluster_rolls_out() {
    rolls_out(Overlay::WholeCluster, "rolls-out-everywhere");
}

#[test]
fn the_services_pods_meet_the_restricted_pod_security_standard() {
    let plane = ControlPlane::shared().unwrap();
    let namespace = "restricted";
    plane.install(Overlay::OneNamespace, namespace).unwrap();
    let deployed = object(plane, "deployment", "trainer", namespace);
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "as-deployed"},
        "spec": deployed["spec"]["template"]["spec"],
    });
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    plane
        .kubectl(&["label", "--overwrite", "namespace", namespace, restricted])
        .unwrap();
    let create = [
        "create",
        "--dry-run=server",
        "--validate=strict",
        "--filename=-",
        "--namespace",
        namespace,
    ];
    plane.kubectl_with(&create, &pod.to_string()).unwrap();
    // The standard is in force: the same pod without one of its promises is refused.
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let refused = plane.kubectl_with(&create, &pod.to_string()).unwrap_err();
    assert!(
        refused.to_string().contains("allowPrivilegeEscalation"),
        "{refused}"
    );
}

#[test]
fn the_three_commands_of_the_documents_install_the_service() {
    let plane = ControlPlane::shared().unwrap();
    let shell = blocks("docs/operator.md", "sh").unwrap();
    let install = shell
        .iter()
        .find(|block| block.contains("kubectl"))
        .unwrap();
    assert_eq!(install.lines().count(), 3, "{install}");
    let said = run_commands(plane, install);
    assert!(
        said.contains("deployment \"trainer\" successfully rolled out"),
        "{said}"
    );
}

#[test]
fn the_kustomization_of_the_documents_adds_a_plugin_and_profiles() {
    let plane = ControlPlane::shared().unwrap();
    let (_folder, own) = kustomization_of_the_documents(0);
    let profiles = blocks("docs/profiles.md", "yaml").unwrap();
    std::fs::write(own.join("profiles.yaml"), &profiles[0]).unwrap();
    std::fs::copy(
        root().join("target/plugins/meta.wasm"),
        own.join("acme.wasm"),
    )
    .unwrap();
    let own = own.display().to_string();
    let apply = [
        "apply",
        "--server-side",
        "--validate=strict",
        "--kustomize",
        &own,
    ];
    plane.kubectl(&apply).unwrap();
    let deployed = object(plane, "deployment", "trainer", "ml-platform");
    let pod = &deployed["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["image"],
        "registry.example.com/trainer-host:0.1.0"
    );
    for volume in ["profiles", "plugins"] {
        let volumes = pod["volumes"].as_array().unwrap();
        let found = volumes
            .iter()
            .find(|found| found["name"] == volume)
            .unwrap();
        let file = found["configMap"]["name"].as_str().unwrap();
        // A name with a hash: what is in it is what rolls out.
        assert!(file.starts_with(&format!("trainer-{volume}-")), "{file}");
        object(plane, "configmap", file, "ml-platform");
    }
}

#[test]
fn the_components_of_the_documents_add_metrics_and_traces() {
    let plane = ControlPlane::shared().unwrap();
    let (_folder, own) = kustomization_of_the_documents(1);
    let own = own.display().to_string();
    let made = plane.kubectl(&["kustomize", &own]).unwrap();
    let (of_prometheus, of_kubernetes): (Vec<&str>, Vec<&str>) = made
        .split("\n---\n")
        .partition(|object| object.contains("apiVersion: monitoring.coreos.com/v1"));
    assert_eq!(of_prometheus.len(), 2, "{made}");
    // All but the Prometheus operator's, which this cluster does not have.
    let apply = [
        "apply",
        "--server-side",
        "--validate=strict",
        "--filename=-",
    ];
    plane
        .kubectl_with(&apply, &of_kubernetes.join("\n---\n"))
        .unwrap();
    let get = |kind, name| object(plane, kind, name, "ml-training");
    let deployed = get("deployment", "trainer");
    let env = &deployed["spec"]["template"]["spec"]["containers"][0]["env"];
    let mut env = env.as_array().unwrap().iter();
    assert!(env.any(|variable| variable["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT"));
    let policy = get("networkpolicy", "trainer");
    assert_eq!(policy["spec"]["egress"][2]["ports"][0]["port"], 4318);
    let dashboard = get("configmap", "trainer-dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
}
