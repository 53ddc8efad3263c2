//! Placement profiles, from the operator's file to the manifest.

use serde_json::{Value, json};
use trainer_host::profile::Profiles;
use trainer_host::request::RequestPolicy;

use crate::service::{Service, built_plugins, request};

async fn service() -> Service {
    let profiles: Profiles = serde_json::from_value(json!({
        "profiles": {
            "a100": {
                "node_selector": {"gpu": "a100"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "priority_class": "research",
                "queue": "gpus",
                "image_pull_secrets": ["registry"],
                "service_account": "trainer-jobs",
                "shared_memory_gb": 32,
                "ttl_seconds_after_finished": 86400,
                "active_deadline_seconds": 3600,
                "backoff_limit": 7,
                "volumes": [{
                    "volume": {"name": "cache", "hostPath": {"path": "/var/cache"}},
                    "mount": {"mountPath": "/cache", "readOnly": true},
                }],
            },
            "spot": {"node_selector": {"pool": "spot"}},
            "kept": {
                "labels": {"app.kubernetes.io/part-of": "fraud", "team": "operator"},
                "annotations": {
                    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                    "scheduler.alpha.kubernetes.io/preferred": "x",
                },
            },
            "mig": {"gpu_resource": "nvidia.com/mig-1g.5gb"},
            "amd": {"gpu_resource": "amd.com/gpu"},
            "queued": {
                "queue": "gpus",
                "labels": {"kueue.x-k8s.io/priority-class": "low"},
                "allow_priority_classes": ["low", "urgent"],
            },
            "infiniband": {
                "automount_service_account_token": true,
                "shared_memory_gb": 128,
                "pod_security_context": {"fsGroup": 1000},
                "security_context": {
                    "capabilities": {"add": ["IPC_LOCK"]},
                    "seccompProfile": {"type": "Unconfined"},
                },
            },
            "gang": {
                "priority_class": "high",
                "scheduling_policy": {"volcano": {"queue": "research"}},
            },
        },
        "namespaces": {"research": "a100"},
    }))
    .unwrap();
    profiles.check().unwrap();
    let policy = RequestPolicy {
        profiles,
        ..RequestPolicy::default()
    };
    Service::with_policy(built_plugins().to_path_buf(), None, policy).await
}

async fn manifest(service: &Service, request: &Value) -> Value {
    service.preview(request).await.json()["manifest"].clone()
}

#[tokio::test]
async fn a_namespaces_profile_places_its_jobs() {
    let service = service().await;
    let mut request = request("succeed", "placed");
    request["namespace"] = json!("research");
    request["num_nodes"] = json!(2);
    let manifest = manifest(&service, &request).await;
    let metadata = &manifest["metadata"];
    assert_eq!(metadata["labels"]["kueue.x-k8s.io/queue-name"], "gpus");
    assert_eq!(
        metadata["annotations"]["trainer.deepfinery/profile"],
        "a100"
    );
    let policy = json!({
        "cleanPodPolicy": "Running",
        "backoffLimit": 7,
        "ttlSecondsAfterFinished": 86400,
        "activeDeadlineSeconds": 3600,
    });
    assert_eq!(manifest["spec"]["runPolicy"], policy);
    for replica in ["Master", "Worker"] {
        let pod = &manifest["spec"]["pytorchReplicaSpecs"][replica]["template"]["spec"];
        assert_eq!(pod["nodeSelector"], json!({"gpu": "a100"}));
        assert_eq!(pod["tolerations"][0]["key"], "nvidia.com/gpu");
        assert_eq!(pod["priorityClassName"], "research");
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
        assert_eq!(pod["serviceAccountName"], "trainer-jobs");
        assert_eq!(pod["volumes"][0]["emptyDir"]["sizeLimit"], "32Gi");
        assert_eq!(pod["volumes"][1]["hostPath"]["path"], "/var/cache");
        let mount = json!({"name": "cache", "mountPath": "/cache", "readOnly": true});
        assert_eq!(pod["containers"][0]["volumeMounts"][1], mount);
    }
}

#[tokio::test]
async fn a_request_chooses_a_profile_with_an_annotation() {
    let service = service().await;
    let mut request = request("succeed", "placed");
    request["annotations"] = json!({"trainer.deepfinery/profile": "spot"});
    let manifest = manifest(&service, &request).await;
    let pod = &manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"pool": "spot"}));
}

#[tokio::test]
async fn a_profile_sets_labels_and_annotations_that_requests_may_not() {
    let service = service().await;
    let mut request = request("succeed", "kept");
    request["num_nodes"] = json!(2);
    request["labels"] = json!({"team": "request", "other": "request"});
    request["annotations"] = json!({
        "trainer.deepfinery/profile": "kept",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
    });
    let manifest = manifest(&service, &request).await;
    let replicas = &manifest["spec"]["pytorchReplicaSpecs"];
    for metadata in [
        &manifest["metadata"],
        &replicas["Master"]["template"]["metadata"],
        &replicas["Worker"]["template"]["metadata"],
    ] {
        let (labels, annotations) = (&metadata["labels"], &metadata["annotations"]);
        assert_eq!(labels["app.kubernetes.io/part-of"], "fraud");
        assert_eq!(labels["team"], "operator");
        assert_eq!(labels["other"], "request");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "trainer");
        let kept = &annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"];
        assert_eq!(kept, "false");
        assert_eq!(annotations["scheduler.alpha.kubernetes.io/preferred"], "x");
    }
}

#[test]
fn a_profile_sets_no_key_that_the_service_sets_itself() {
    for (member, key) in [
        ("labels", "app.kubernetes.io/managed-by"),
        ("labels", "trainer.deepfinery/run-id"),
        ("labels", "training.kubeflow.org/job-name"),
        ("annotations", "sidecar.istio.io/inject"),
        ("annotations", "trainer.deepfinery/profile"),
        ("annotations", "a b"),
    ] {
        let profiles = json!({"profiles": {"a": {member: {key: "x"}}}});
        let profiles: Profiles = serde_json::from_value(profiles).unwrap();
        let wrong = profiles.check().unwrap_err();
        assert!(
            wrong.len() == 1 && wrong[0].starts_with(&format!("profiles.a.{member}: {key:?}: ")),
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn a_profile_says_which_resource_a_gpu_is() {
    let service = service().await;
    for (profile, resource) in [
        ("mig", "nvidia.com/mig-1g.5gb"),
        ("amd", "amd.com/gpu"),
        ("spot", "nvidia.com/gpu"),
    ] {
        let mut request = request("succeed", "placed");
        request["num_nodes"] = json!(2);
        request["gpus_per_node"] = json!(4);
        request["annotations"] = json!({"trainer.deepfinery/profile": profile});
        let manifest = manifest(&service, &request).await;
        for replica in ["Master", "Worker"] {
            let pod = &manifest["spec"]["pytorchReplicaSpecs"][replica]["template"]["spec"];
            let resources = &pod["containers"][0]["resources"];
            for quantities in [&resources["limits"], &resources["requests"]] {
                assert_eq!(quantities[resource], "4", "{profile}: {quantities}");
                let quantities = quantities.as_object().unwrap();
                assert_eq!(
                    quantities.keys().filter(|name| name.contains('/')).count(),
                    1
                );
            }
        }
    }
}

#[tokio::test]
async fn the_local_cluster_counts_gpus_of_any_resource() {
    let service = service().await;
    let mut request = request("succeed", "placed");
    request["gpus_per_node"] = json!(64);
    request["annotations"] = json!({"trainer.deepfinery/profile": "amd"});
    let answer = service.submit(&request).await;
    let warning = answer.headers["warning"].to_str().unwrap().to_string();
    assert!(warning.contains("64"), "{warning}");
}

#[tokio::test]
async fn a_profile_that_is_not_there_is_refused_with_those_that_are() {
    let service = service().await;
    let mut request = request("succeed", "placed");
    request["annotations"] = json!({"trainer.deepfinery/profile": "spott"});
    let problem = service.submit(&request).await.problem(400);
    let error = &problem["errors"][0];
    assert_eq!(error["code"], "unknown-profile");
    assert_eq!(error["pointer"], "/annotations/trainer.deepfinery~1profile");
    let detail = "annotations: trainer.deepfinery/profile: unknown profile \"spott\"; known: a100, \
                  amd, gang, infiniband, kept, mig, queued, spot, did you mean \"spot\"?";
    assert_eq!(error["detail"], detail);
}

#[test]
fn the_example_of_the_documentation_is_a_file_of_profiles() {
    let page = include_str!("../../../docs/profiles.md");
    let example = page.split("```yaml\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let profiles: Profiles = serde_saphyr::from_str(example).unwrap();
    profiles.check().unwrap();
    let chosen = profiles.choose(None, "research").unwrap().unwrap();
    assert_eq!(chosen.name, "a100");
}

#[tokio::test]
async fn a_request_chooses_a_priority_in_its_queue_only_as_the_profile_allows() {
    let service = service().await;
    let key = "kueue.x-k8s.io/priority-class";
    let with = |profile: &str, labels: Value| {
        let mut request = request("succeed", "priority");
        request["annotations"] = json!({"trainer.deepfinery/profile": profile});
        request["labels"] = labels;
        request
    };
    for (labels, expected) in [(json!({}), "low"), (json!({key: "urgent"}), "urgent")] {
        let manifest = manifest(&service, &with("queued", labels)).await;
        assert_eq!(manifest["metadata"]["labels"][key], expected);
    }
    for (profile, labels, expected) in [
        (
            "queued",
            json!({key: "highest"}),
            "labels: kueue.x-k8s.io/priority-class: priority class \"highest\" is not allowed: \
             profile queued allows low, urgent",
        ),
        (
            "spot",
            json!({key: "urgent"}),
            "labels: kueue.x-k8s.io/priority-class: priority class \"urgent\" is not allowed: \
             profile spot allows none; remove the label",
        ),
        (
            "queued",
            json!({"kueue.x-k8s.io/queue-name": "other"}),
            "labels: \"kueue.x-k8s.io/queue-name\": reserved: requests may not set keys of",
        ),
    ] {
        let refused = service.preview(&with(profile, labels)).await;
        assert_eq!(refused.status, 400);
        let body = refused.json();
        let detail = body["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.starts_with(expected), "{detail}");
    }
    let mut annotated = request("succeed", "priority");
    annotated["annotations"] = json!({key: "urgent"});
    assert_eq!(service.preview(&annotated).await.status, 400);
}

#[tokio::test]
async fn a_gang_scheduler_gets_the_number_of_pods() {
    let service = service().await;
    let mut request = request("succeed", "gang");
    request["annotations"] = json!({"trainer.deepfinery/profile": "gang"});
    request["num_nodes"] = json!(3);
    let manifest = manifest(&service, &request).await;
    let expected = json!({"minAvailable": 3, "queue": "research", "priorityClass": "high"});
    assert_eq!(manifest["spec"]["runPolicy"]["schedulingPolicy"], expected);
}

/// The parts of the pods of a job that limit what they may do.
async fn restrictions(service: &Service, profile: Option<&str>, memory: Option<u32>) -> Value {
    let mut request = request("succeed", "restricted");
    request["num_nodes"] = json!(2);
    if let Some(profile) = profile {
        request["annotations"] = json!({"trainer.deepfinery/profile": profile});
    }
    if let Some(memory) = memory {
        request["memory_per_node_gb"] = json!(memory);
    }
    let manifest = manifest(service, &request).await;
    let replicas = &manifest["spec"]["pytorchReplicaSpecs"];
    let [master, worker] = ["Master", "Worker"].map(|replica| {
        let pod = &replicas[replica]["template"]["spec"];
        json!({
            "token": pod["automountServiceAccountToken"],
            "pod": pod["securityContext"],
            "container": pod["containers"][0]["securityContext"],
            "shared memory": pod["volumes"][0]["emptyDir"],
        })
    });
    assert_eq!(master, worker);
    master
}

#[tokio::test]
async fn a_pod_has_no_token_no_capabilities_and_limited_shared_memory() {
    let service = service().await;
    for (memory, limit) in [(None, "64Gi"), (Some(16), "16Gi"), (Some(2048), "2Ti")] {
        let expected = json!({
            "token": false,
            "pod": {"seccompProfile": {"type": "RuntimeDefault"}},
            "container": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
            },
            "shared memory": {"medium": "Memory", "sizeLimit": limit},
        });
        assert_eq!(restrictions(&service, None, memory).await, expected);
    }
}

#[tokio::test]
async fn a_profile_changes_what_a_pod_may_do_member_by_member() {
    let service = service().await;
    let expected = json!({
        "token": true,
        "pod": {"fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "container": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["IPC_LOCK"], "drop": ["ALL"]},
            "seccompProfile": {"type": "Unconfined"},
        },
        "shared memory": {"medium": "Memory", "sizeLimit": "128Gi"},
    });
    let restrictions = restrictions(&service, Some("infiniband"), Some(256)).await;
    assert_eq!(restrictions, expected);
}
