//! The pods of jobs may do what training needs and nothing more, as the API server has them.

use e2e::control_plane::ControlPlane;
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{Deployed, request};

/// A profile whose jobs meet the Pod Security Standard `restricted`.
const PROFILES: &str = "
profiles:
  restricted:
    pod_security_context: {runAsNonRoot: true, runAsUser: 1000}
";

for_both_kinds! {
    a_pod_has_no_token_no_capabilities_and_limited_shared_memory
    a_job_of_a_profile_runs_where_only_restricted_pods_do
}

fn a_pod_has_no_token_no_capabilities_and_limited_shared_memory(kind: JobKind) {
    let service = Deployed::start(kind, "few-rights").unwrap();
    // The namespace of `deploy/` enforces `baseline`.
    let namespace = ["get", "namespace", &service.namespace, "--output=json"];
    let namespace = service.plane.kubectl(&namespace).unwrap();
    let namespace: Value = serde_json::from_str(&namespace).unwrap();
    let enforced = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    assert_eq!(enforced, "baseline");
    let mut run = request("few-rights", &json!({}));
    run["num_nodes"] = json!(2);
    run["memory_per_node_gb"] = json!(16);
    let name = service.server.submit(&run).unwrap();
    service.server.wait_for(&name, "running").unwrap();
    let pods = service.pods(&name);
    assert_eq!(pods.len(), 2);
    for pod in &pods {
        let spec = &pod["spec"];
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(
            spec["securityContext"],
            json!({"seccompProfile": {"type": "RuntimeDefault"}})
        );
        let container = &spec["containers"][0];
        assert_eq!(
            container["securityContext"],
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
        );
        // No other volume: the API server would add that of a token.
        assert_eq!(
            spec["volumes"],
            json!([{"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}}])
        );
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert_eq!(mounts.len(), 1, "{mounts:?}");
    }
}

fn a_job_of_a_profile_runs_where_only_restricted_pods_do(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    kinds::extend(plane, kind).unwrap();
    let namespace = kinds::namespace(kind, "only-restricted");
    if kind == JobKind::TrainJob {
        kinds::add_runtimes(plane, PROFILES);
    }
    let components = kinds::components(kind);
    let service = Deployed::start_with(plane, kind, &namespace, components, |site| {
        kinds::with_profiles(site, PROFILES)
    });
    let service = service.unwrap();
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    let label = ["label", "--overwrite", "namespace", &namespace, enforce];
    plane.kubectl(&label).unwrap();
    let mut run = request("restricted", &json!({}));
    run["annotations"] = json!({"trainer.deepfinery/profile": "restricted"});
    // The training operator adds an init container to workers, which does not meet the standard.
    run["num_nodes"] = match kind {
        JobKind::PyTorchJob => json!(1),
        JobKind::TrainJob => json!(2),
    };
    let name = service.server.submit(&run).unwrap();
    service.server.wait_for(&name, "succeeded").unwrap();
    // The standard is in force: the same pod as any user is refused.
    let mut pod = service.pods(&name).swap_remove(0);
    pod["metadata"] = json!({"name": "any-user", "namespace": namespace});
    pod["spec"]["securityContext"]["runAsNonRoot"] = json!(null);
    let create = ["create", "--dry-run=server", "--filename=-"];
    let refused = plane.kubectl_with(&create, &pod.to_string()).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("runAsNonRoot != true"), "{refused}");
    assert_eq!(refused.matches("must set").count(), 1, "{refused}");
}
