//! `deploy/` as it is: each overlay is applied by kubectl, strictly, and rolls out.

use e2e::control_plane::{ControlPlane, Overlay};
use serde_json::json;

/// Applies an overlay with the token's Secret that docs/operator.md asks for, and waits until its
/// pods are ready: they were admitted, scheduled, and pass for running.
fn rolls_out(overlay: Overlay, namespace: &str) {
    let plane = ControlPlane::shared().unwrap();
    plane.install(overlay, namespace).unwrap();
    let own = ["--namespace", namespace];
    let secret = [
        "create",
        "secret",
        "generic",
        "trainer-token",
        "--from-literal=token=secret",
    ];
    plane.kubectl(&[&secret[..], &own].concat()).unwrap();
    let rollout = ["rollout", "status", "deployment/trainer", "--timeout=60s"];
    plane.kubectl(&[&rollout[..], &own].concat()).unwrap();
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
    let deployed = plane.kubectl(&[
        "get",
        "deployment",
        "trainer",
        "--output=json",
        "--namespace",
        namespace,
    ]);
    let deployed: serde_json::Value = serde_json::from_str(&deployed.unwrap()).unwrap();
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
