//! Callers with tokens of Kubernetes, and secrets by reference, with the project's API server.

use std::os::unix::fs::PermissionsExt;

use e2e::Site;
use e2e::control_plane::{ControlPlane, Overlay};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{request, with_compiled_plugins};

/// What the component `deploy/components/access` grants, to the service account of a namespace.
fn allow_reviews(plane: &ControlPlane, namespace: &str) {
    let account = format!("--serviceaccount={namespace}:trainer");
    let name = format!("token-reviews-{namespace}");
    for arguments in [
        &[
            "create",
            "clusterrole",
            &name,
            "--verb=create",
            "--resource=tokenreviews",
        ][..],
        &[
            "create",
            "clusterrolebinding",
            &name,
            &format!("--clusterrole={name}"),
            &account,
        ],
    ] {
        plane.kubectl(arguments).unwrap();
    }
}

for_both_kinds! { a_service_account_submits_with_its_own_token_and_a_secret_by_reference }

fn a_service_account_submits_with_its_own_token_and_a_secret_by_reference(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let namespace = &*kinds::namespace(kind, "access");
    let deployment = kinds::install(plane, kind, Overlay::OneNamespace, namespace).unwrap();
    allow_reviews(plane, namespace);
    let token = |account: &str, audience: &str| {
        let arguments = ["create", "token", account, "--audience", audience];
        let of = ["--namespace", namespace];
        plane
            .kubectl(&[&arguments[..], &of].concat())
            .unwrap()
            .trim()
            .to_string()
    };
    for account in ["ci", "stranger"] {
        let arguments = [
            "create",
            "serviceaccount",
            account,
            "--namespace",
            namespace,
        ];
        plane.kubectl(&arguments).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.toml");
    let access = format!(
        "[token_review]\naudience = \"trainer\"\n\
         [users.\"kubernetes:system:serviceaccount:{namespace}:ci\"]\n\
         role = \"submitter\"\nnamespaces = [{namespace:?}]\n\
         [namespaces.{namespace}]\nsecrets = [\"hub\"]\n"
    );
    std::fs::write(&file, access).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let site = Site::on_kubernetes(&deployment.kubeconfig, namespace).unwrap();
    let site = with_compiled_plugins(kinds::creates(site, kind));
    let site = site.set("TRAINER_ACCESS", &file.display().to_string());
    let server = site.start().unwrap();
    server.wait_until_ready().unwrap();
    let submit = |token: &str, body: &Value| {
        let bearer = format!("Bearer {token}");
        server
            .post_with_header("/train", ("authorization", &bearer), body)
            .unwrap()
    };
    let mut body = request("reviewed", &json!({}));
    body["env"] = json!({"HF_TOKEN": {"secret": "hub", "key": "token"}});
    for (account, audience) in [("stranger", "trainer"), ("ci", "another-service")] {
        let (status, problem) = submit(&token(account, audience), &body);
        assert_eq!(status, 401, "{account} {audience}: {problem}");
    }
    let ci = token("ci", "trainer");
    let (status, answer) = submit(&ci, &body);
    assert_eq!(status, 201, "{answer}");
    let jobs = kinds::objects(plane, namespace, kind.plural(), "");
    let job = &jobs[0];
    let owner = &job["metadata"]["annotations"]["trainer.deepfinery/owner"];
    assert_eq!(
        *owner,
        format!("kubernetes:system:serviceaccount:{namespace}:ci")
    );
    let template = &job["spec"]["pytorchReplicaSpecs"]["Master"]["template"];
    let container = match kind {
        JobKind::PyTorchJob => &template["spec"]["containers"][0],
        JobKind::TrainJob => &job["spec"]["trainer"],
    };
    let variables = container["env"].as_array().unwrap();
    let reference = json!({"name": "hub", "key": "token"});
    let is_reference = |variable: &&Value| {
        variable["name"] == "HF_TOKEN" && variable["valueFrom"]["secretKeyRef"] == reference
    };
    assert!(
        variables.iter().any(|variable| is_reference(&variable)),
        "{container}"
    );
    body["run_id"] = json!("other-secret");
    body["env"]["HF_TOKEN"]["secret"] = json!("database");
    let (status, problem) = submit(&ci, &body);
    assert_eq!(
        (status, &problem["errors"][0]["code"]),
        (400, &json!("policy-secret"))
    );
}
