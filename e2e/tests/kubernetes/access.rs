//! Callers with tokens of Kubernetes, and secrets by reference, with the project's API server.

use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use e2e::Site;
use e2e::control_plane::{ControlPlane, Overlay};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{eventually, request, with_compiled_plugins};

/// What the job's secret contains.
const VALUE: &str = "hunter2-value-of-the-hub-token";

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

/// What a kubelet puts into the environment of a container.
fn value_of(plane: &ControlPlane, namespace: &str, pod: &Value, variable: &str) -> String {
    let variables = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let variable = variables.iter().find(|known| known["name"] == variable);
    let reference = &variable.unwrap()["valueFrom"]["secretKeyRef"];
    let name = reference["name"].as_str().unwrap();
    let arguments = [
        "get",
        "secret",
        name,
        "--output=json",
        "--namespace",
        namespace,
    ];
    let secret: Value = serde_json::from_str(&plane.kubectl(&arguments).unwrap()).unwrap();
    let encoded = secret["data"][reference["key"].as_str().unwrap()]
        .as_str()
        .unwrap();
    String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap()
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
    let literal = format!("--from-literal=token={VALUE}");
    let secret = [
        "create",
        "secret",
        "generic",
        "hub",
        &literal,
        "--namespace",
        namespace,
    ];
    plane.kubectl(&secret).unwrap();
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
    let of_the_job = kinds::pods_of(kind, job["metadata"]["name"].as_str().unwrap());
    let pod = eventually(|| {
        let pods = kinds::objects(plane, namespace, "pods", &of_the_job);
        pods.into_iter().next().ok_or("no pod".to_string())
    });
    assert_eq!(value_of(plane, namespace, &pod, "HF_TOKEN"), VALUE);
    // The service cannot know it.
    let service = format!("--as=system:serviceaccount:{namespace}:trainer");
    let read = ["get", "secret", "hub", &service, "--namespace", namespace];
    let refused = format!("{:#}", plane.kubectl(&read).unwrap_err());
    assert!(refused.contains("orbidden"), "{refused}");
    body["run_id"] = json!("other-secret");
    body["env"]["HF_TOKEN"]["secret"] = json!("database");
    let (status, problem) = submit(&ci, &body);
    assert_eq!(
        (status, &problem["errors"][0]["code"]),
        (400, &json!("policy-secret"))
    );
}
