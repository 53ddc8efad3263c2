//! Attacks of one team on another through what a request may contain: whole kinds of keys, variables and
//! profiles, known ones and generated ones.

use axum::http::Method;
use serde_json::{Value, json};
use trainer_host::document;
use trainer_host::profile::Profiles;
use trainer_host::request::RequestPolicy;

use crate::access::{ask, teams, waiting};
use crate::service::Service;

/// Keys of labels and annotations by which other programs give a pod rights, devices, networks or a place
/// in a queue.
const KEYS: [&str; 20] = [
    "app.kubernetes.io/managed-by",
    "cni.projectcalico.org/ipAddrs",
    "container.apparmor.security.beta.kubernetes.io/trainer",
    "cloud.google.com/gke-gpu",
    "eks.amazonaws.com/skip-containers",
    "iam.amazonaws.com/role",
    "io.kubernetes.cri-o.Devices",
    "io.kubernetes.cri-o.userns-mode",
    "k8s.v1.cni.cncf.io/networks",
    "kueue.x-k8s.io/pod-group-name",
    "kueue.x-k8s.io/priority-class",
    "kueue.x-k8s.io/queue-name",
    "linkerd.io/inject",
    "nvidia.com/gpu.deploy.driver",
    "security.istio.io/tlsMode",
    "sidecar.istio.io/inject",
    "sidecar.istio.io/userVolume",
    "trainer.deepfinery/owner",
    "vault.hashicorp.com/agent-inject",
    "vault.hashicorp.com/role",
];
/// Variables that decide what a process loads or runs, or whom it trusts.
const VARIABLES: [&str; 20] = [
    "BASH_ENV",
    "CURL_CA_BUNDLE",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "HOME",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "NCCL_NET_PLUGIN",
    "NCCL_TUNER_PLUGIN",
    "NODE_OPTIONS",
    "NVIDIA_VISIBLE_DEVICES",
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONWARNINGS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "TRAINER_PVC_ROOT",
];
const PROFILES: &str = "profiles:\n  a100: {priority_class: low}\n  vip: {priority_class: urgent, \
                        service_account: prod-writer, queue: production}\n";

/// Whether a preview of a request is refused with a finding about a place.
async fn is_refused(service: &Service, body: &Value, pointer: &str) -> bool {
    let request = ask("alice", Method::POST, "/train/preview", Some(body));
    let answer = service.send(request).await;
    let errors = answer.json()["errors"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let is_about = |error: &Value| error["pointer"] == pointer;
    answer.status == 400 && errors.iter().any(is_about)
}

fn with(member: &str, key: &str, value: &str) -> Value {
    let mut body = waiting("attack", "team-a");
    body[member] = json!({key: value});
    body
}

/// A place in a request.
fn at(member: &str, key: &str) -> String {
    format!("/{member}/{}", key.replace('/', "~1"))
}

/// A name of lower-case letters.
fn word() -> String {
    std::iter::repeat_with(fastrand::lowercase)
        .take(8)
        .collect()
}

#[tokio::test]
async fn no_key_that_another_program_reads_and_no_variable_that_changes_a_process_is_allowed_unlisted()
 {
    let policy = "[namespaces.team-a]\nlabels = [\"team\"]\n";
    let service = Service::with_access(&(teams() + policy), RequestPolicy::default()).await;
    let generated = std::iter::repeat_with(|| format!("{}.example/{}", word(), word())).take(200);
    for key in KEYS.map(str::to_string).into_iter().chain(generated) {
        for member in ["labels", "annotations"] {
            let refused =
                is_refused(&service, &with(member, &key, "true"), &at(member, &key)).await;
            assert!(refused, "{member}: {key}");
        }
    }
    // A label without a prefix can be what a Service selects, so a list holds for it, too.
    for key in ["app", "role", &word()] {
        let refused = is_refused(
            &service,
            &with("labels", key, "payments"),
            &at("labels", key),
        )
        .await;
        assert!(refused, "labels: {key}");
    }
    let generated =
        ["LD_", "PYTHON", "TRAINER_"].map(|kind| format!("{kind}{}", word().to_uppercase()));
    for name in VARIABLES.map(str::to_string).into_iter().chain(generated) {
        let body = with("env", &name, "/tmp/x");
        assert!(
            is_refused(&service, &body, &at("env", &name)).await,
            "env: {name}"
        );
    }
    // The same requests without the attack are allowed.
    for body in [
        with("labels", "team", "x"),
        with("annotations", "note", "x"),
        with("env", "MY", "x"),
    ] {
        let request = ask("alice", Method::POST, "/train/preview", Some(&body));
        let answer = service.send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    service.stop().await;
}

#[tokio::test]
async fn a_profile_that_is_not_listed_gives_nobody_its_rights() {
    let profiles: Profiles = document::from_yaml(PROFILES).unwrap();
    let policy = RequestPolicy {
        profiles,
        ..RequestPolicy::default()
    };
    let rules =
        "[namespaces.team-a]\nprofiles = [\"a100\"]\nannotations = [\"*\"]\nlabels = [\"*\"]\n";
    let service = Service::with_access(&(teams() + rules), policy).await;
    let key = "trainer.deepfinery/profile";
    let vip = with("annotations", key, "vip");
    assert!(is_refused(&service, &vip, &at("annotations", key)).await);
    // Even where all labels are allowed, none raises the priority of a listed profile.
    let mut raised = with("annotations", key, "a100");
    raised["labels"] = json!({"kueue.x-k8s.io/priority-class": "urgent"});
    let label = at("labels", "kueue.x-k8s.io/priority-class");
    assert!(is_refused(&service, &raised, &label).await);
    let request = ask(
        "alice",
        Method::POST,
        "/train/preview",
        Some(&with("annotations", key, "a100")),
    );
    let allowed = service.send(request).await;
    assert_eq!(allowed.status, 200, "{}", allowed.text);
    service.stop().await;
}
