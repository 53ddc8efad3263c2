//! Tests of profiles: which one a request gets, and what the check of the file finds.

use super::*;
use serde_json::json;

fn profiles(value: Value) -> Result<Profiles, String> {
    let profiles: Profiles = serde_json::from_value(value).map_err(|e| e.to_string())?;
    profiles.check().map_err(|wrong| wrong.join("; "))?;
    Ok(profiles)
}

fn three() -> Profiles {
    profiles(json!({
        "profiles": {"a100": {}, "h100": {}, "spot": {}},
        "namespaces": {"research": "h100"},
        "default": "a100",
    }))
    .unwrap()
}

fn chosen(named: Option<&str>, namespace: &str) -> String {
    three().choose(named, namespace).unwrap().unwrap().name
}

#[test]
fn a_request_chooses_before_its_namespace_and_its_namespace_before_the_default() {
    assert_eq!(chosen(Some("spot"), "research"), "spot");
    assert_eq!(chosen(None, "research"), "h100");
    assert_eq!(chosen(None, "elsewhere"), "a100");
    let none = Profiles::default();
    assert_eq!(none.choose(None, "research"), Ok(None));
}

#[test]
fn an_unknown_profile_is_told_with_the_known_ones() {
    let message = three().choose(Some("h10"), "research").unwrap_err();
    let expected = r#"unknown profile "h10"; known: a100, h100, spot, did you mean "h100"?"#;
    assert_eq!(message, expected);
}

#[test]
fn a_member_that_a_pod_does_not_have_is_refused() {
    let toleration = json!({"key": "gpu", "operatr": "Exists"});
    let message = profiles(json!({"profiles": {"a": {"tolerations": [toleration]}}})).unwrap_err();
    assert!(message.contains("unknown field \"operatr\""), "{message}");
    let message = profiles(json!({"profiles": {"a": {"node_selectr": {}}}})).unwrap_err();
    assert!(message.contains("node_selectr"), "{message}");
}

#[test]
fn a_gpu_is_an_extended_resource() {
    let gpu = |name: &str| profiles(json!({"profiles": {"a": {"gpu_resource": name}}}));
    for name in ["amd.com/gpu", "nvidia.com/mig-1g.5gb", "gpu.intel.com/i915"] {
        gpu(name).unwrap();
    }
    for name in [
        "",
        "gpu",
        "cpu",
        "memory",
        "nvidia.com/",
        "/gpu",
        "nvidia.com/gpu/0",
        "kubernetes.io/batch-cpu",
        "node.kubernetes.io/gpu",
        "requests.nvidia.com/gpu",
        "hugepages-2Mi",
    ] {
        let message = gpu(name).unwrap_err();
        assert!(
            message.contains("profiles.a.gpu_resource"),
            "{name}: {message}"
        );
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let message = profiles(json!({
        "profiles": {"a": {
            "priority_class": "High!",
            "volumes": [{
                "volume": {"name": "dshm", "emptyDir": {}},
                "mount": {"mountPath": "data"},
            }],
        }},
        "default": "b",
    }))
    .unwrap_err();
    for part in [
        "profiles.a.priority_class: \"High!\" is not a valid name",
        "profiles.a.volumes[0].volume.name: \"dshm\" is already in use",
        "profiles.a.volumes[0].mount.mountPath: \"data\" is not an absolute path",
        "default: unknown profile \"b\"; known: a",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}

#[test]
fn a_security_context_that_kubernetes_would_refuse_is_found_at_the_start() {
    for (member, context, expected) in [
        (
            "security_context",
            json!({"privileged": true}),
            "allowPrivilegeEscalation: must be true because privileged is true",
        ),
        (
            "security_context",
            json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
            "allowPrivilegeEscalation: must be true because capabilities.add has SYS_ADMIN",
        ),
        (
            "security_context",
            json!({"capabilities": {"add": ["CAP_IPC_LOCK"]}}),
            "capabilities.add: \"CAP_IPC_LOCK\" is not the name of a capability",
        ),
        (
            "security_context",
            json!({"capabilities": {"drop": ["all"]}}),
            "capabilities.drop: \"all\" is not the name of a capability",
        ),
        (
            "security_context",
            json!({"seccompProfile": {"type": "Default"}}),
            "seccompProfile.type: \"Default\" is not a type",
        ),
        (
            "pod_security_context",
            json!({"seccompProfile": {"type": "Localhost"}}),
            "seccompProfile.localhostProfile: missing",
        ),
        (
            "pod_security_context",
            json!({"seccompProfile": {"type": "Unconfined", "localhostProfile": "a.json"}}),
            "seccompProfile.localhostProfile: only possible with type Localhost",
        ),
        (
            "pod_security_context",
            json!({"runAsNonRoot": true, "runAsUser": 0}),
            "runAsUser: 0 is root, which runAsNonRoot forbids",
        ),
    ] {
        let file = json!({"profiles": {"a": {member: context}}});
        let message = profiles(file).unwrap_err();
        let expected = format!("profiles.a.{member}.{expected}");
        assert!(message.starts_with(&expected), "{message}");
    }
    let message = profiles(json!({"profiles": {"a": {"security_context": {"privilegd": true}}}}));
    let message = message.unwrap_err();
    assert!(message.contains("unknown field \"privilegd\""), "{message}");
}

#[test]
fn a_profile_can_give_a_pod_everything_that_kubernetes_allows() {
    profiles(json!({"profiles": {
        "privileged": {
            "automount_service_account_token": true,
            "security_context": {"privileged": true, "allowPrivilegeEscalation": true},
        },
        "infiniband": {"security_context": {"capabilities": {"add": ["IPC_LOCK"]}}},
        "local": {"pod_security_context": {
            "fsGroup": 1000,
            "runAsUser": 0,
            "seccompProfile": {"type": "Localhost", "localhostProfile": "training.json"},
        }},
    }}))
    .unwrap();
}
