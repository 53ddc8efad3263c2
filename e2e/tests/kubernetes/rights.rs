//! The service account of `deploy/` may do what the service does, and nothing that it does not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::control_plane::{ControlPlane, Deployment, Extension, Overlay};
use e2e::{Server, Site};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{request, with_compiled_plugins};

/// Something that a user does.
type Step = fn(&Server) -> Result<()>;

/// What the service is for, in the order in which a user meets it.
const STEPS: [(&str, Step); 9] = [
    ("it gets ready", gets_ready),
    ("it submits a job", submits),
    ("it sees the job run", sees_it_run),
    ("it lists the job", lists),
    ("it tells pods and events", tells_everything),
    ("it reads a log", reads_a_log),
    ("it suspends and resumes the job", suspends_and_resumes),
    ("it deletes the job", deletes),
    ("it remembers how a job failed", remembers_a_failure),
];

/// The step that fails first without a right.
fn step_that_needs(resource: &str, verb: &str) -> &'static str {
    match (resource, verb) {
        ("pytorchjobs" | "trainjobs", "list") => "it gets ready",
        ("pytorchjobs" | "trainjobs", "create") => "it submits a job",
        // A list holds what the watch has reported.
        ("pytorchjobs" | "trainjobs", "watch") => "it lists the job",
        ("pytorchjobs" | "trainjobs", "get") | ("pods" | "events", "list") => {
            "it tells pods and events"
        }
        ("pods/log", "get") => "it reads a log",
        ("pytorchjobs" | "trainjobs", "patch") => "it suspends and resumes the job",
        ("pytorchjobs" | "trainjobs", "delete") => "it deletes the job",
        ("pods", "watch") => "it remembers how a job failed",
        (resource, verb) => unreachable!("no step needs to {verb} {resource}: why is it granted?"),
    }
}

#[test]
fn with_the_rights_of_deploy_every_step_works() {
    let plane = ControlPlane::shared().unwrap();
    let deployment = plane.install(Overlay::OneNamespace, "rights-all").unwrap();
    assert_eq!(
        first_failure(&deployment, "rights-all", JobKind::PyTorchJob),
        None
    );
}

const TRAIN_JOBS: [&str; 1] = ["trainjob"];

#[test]
fn with_the_component_for_train_jobs_every_step_works_and_without_one_of_its_rights_one_fails() {
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Trainer).unwrap();
    let install = |namespace: &str| {
        let overlay = Overlay::OneNamespace;
        plane.install_with(overlay, &TRAIN_JOBS, namespace).unwrap()
    };
    let deployment = install("rights-v2");
    assert_eq!(
        first_failure(&deployment, "rights-v2", JobKind::TrainJob),
        None
    );
    let rules = rules(plane, "rights-v2");
    let of_component = |rule: &&Value| rule["resources"][0] == "trainjobs";
    let verbs = rules.iter().find(of_component).unwrap()["verbs"].clone();
    let verbs = verbs.as_array().unwrap();
    assert_eq!(verbs.len(), 6, "{verbs:?}");
    for verb in verbs.iter().map(|verb| verb.as_str().unwrap()) {
        let namespace = format!("rights-v2-no-{verb}");
        let deployment = install(&namespace);
        revoke(plane, &namespace, "trainjobs", verb);
        let step = step_that_needs("trainjobs", verb);
        let failure = first_failure(&deployment, &namespace, JobKind::TrainJob);
        assert_eq!(failure, Some(step), "{verb}");
    }
}

#[test]
fn with_the_rights_of_the_whole_cluster_every_step_works_in_every_namespace() {
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Trainer).unwrap();
    // The installations of a cluster share a role, so both kinds have the same one.
    let mut deployment = plane
        .install_with(Overlay::WholeCluster, &TRAIN_JOBS, "rights-cluster")
        .unwrap();
    for kind in JobKind::ALL {
        deployment.namespace = kinds::namespace(kind, "rights-elsewhere");
        plane
            .kubectl(&["create", "namespace", &deployment.namespace])
            .unwrap();
        assert_eq!(first_failure(&deployment, "*", kind), None, "{kind:?}");
    }
}

#[test]
fn without_any_one_right_a_step_fails() {
    let plane = ControlPlane::shared().unwrap();
    let mut failures = BTreeMap::new();
    let mut expected = BTreeMap::new();
    for (rule, verb) in granted(plane) {
        let resource = rule["resources"][0].as_str().unwrap();
        let right = format!("{verb} {resource}");
        let namespace = format!("rights-no-{verb}-{}", resource.replace('/', "-"));
        let deployment = plane.install(Overlay::OneNamespace, &namespace).unwrap();
        revoke(plane, &namespace, resource, &verb);
        expected.insert(right.clone(), Some(step_that_needs(resource, &verb)));
        failures.insert(
            right,
            first_failure(&deployment, &namespace, JobKind::PyTorchJob),
        );
    }
    assert!(expected.len() >= 10, "{expected:?}");
    assert_eq!(failures, expected);
}

#[test]
fn nothing_else_is_granted() {
    let plane = ControlPlane::shared().unwrap();
    let deployment = plane.install(Overlay::OneNamespace, "rights-list").unwrap();
    let account = "--as=system:serviceaccount:rights-list:trainer";
    let may = |verb: &str, resource: &str, namespace: &str| {
        let ask = [
            "auth",
            "can-i",
            verb,
            resource,
            account,
            "--namespace",
            namespace,
        ];
        plane.kubectl(&ask).is_ok()
    };
    let home = &deployment.namespace;
    assert!(may("create", "pytorchjobs.kubeflow.org", home));
    for (verb, resource) in [
        ("update", "pytorchjobs.kubeflow.org"),
        ("deletecollection", "pytorchjobs.kubeflow.org"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("get", "secrets"),
        ("list", "secrets"),
        ("get", "configmaps"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("impersonate", "serviceaccounts"),
    ] {
        assert!(!may(verb, resource, home), "{verb} {resource}");
    }
    assert!(!may("create", "pytorchjobs.kubeflow.org", "default"));
}

/// Every rule of the role with every verb of it.
fn granted(plane: &ControlPlane) -> Vec<(Value, String)> {
    plane.install(Overlay::OneNamespace, "rights-read").unwrap();
    let rules = rules(plane, "rights-read");
    let mut granted = Vec::new();
    for rule in rules {
        assert_eq!(rule["resources"].as_array().unwrap().len(), 1, "{rule}");
        for verb in rule["verbs"].as_array().unwrap() {
            granted.push((rule.clone(), verb.as_str().unwrap().to_string()));
        }
    }
    granted
}

fn rules(plane: &ControlPlane, namespace: &str) -> Vec<Value> {
    let get = [
        "get",
        "role",
        "trainer",
        "--output=json",
        "--namespace",
        namespace,
    ];
    let role: Value = serde_json::from_str(&plane.kubectl(&get).unwrap()).unwrap();
    role["rules"].as_array().unwrap().clone()
}

fn revoke(plane: &ControlPlane, namespace: &str, resource: &str, verb: &str) {
    let mut rules = rules(plane, namespace);
    for rule in &mut rules {
        if rule["resources"][0] == resource {
            rule["verbs"]
                .as_array_mut()
                .unwrap()
                .retain(|granted| granted != verb);
        }
    }
    // Remove rules without verbs.
    rules.retain(|rule| rule["verbs"] != json!([]));
    let patch = json!({ "rules": rules }).to_string();
    let role = [
        "patch",
        "role",
        "trainer",
        "--type=merge",
        "--namespace",
        namespace,
        "--patch",
    ];
    plane.kubectl(&[&role[..], &[&patch]].concat()).unwrap();
}

/// Runs the service with the token of its account, for the namespaces that its overlay allows and for a
/// kind of jobs, and returns the first step that fails.
fn first_failure(deployment: &Deployment, allowed: &str, kind: JobKind) -> Option<&'static str> {
    let site = Site::on_kubernetes(&deployment.kubeconfig, &deployment.namespace).unwrap();
    let site = with_compiled_plugins(site.set("TRAINER_ALLOWED_NAMESPACES", allowed));
    let site = kinds::creates(site, kind);
    let server = site.start().unwrap();
    for (step, works) in STEPS {
        if let Err(why) = works(&server) {
            println!("{}: not so: {step}: {why:#}", deployment.namespace);
            return Some(step);
        }
    }
    None
}

/// Tries for some seconds: what is right shows at once, what is missing never.
fn soon(mut works: impl FnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    loop {
        match works() {
            Err(_) if begun.elapsed() < Duration::from_secs(6) => {
                std::thread::sleep(Duration::from_millis(100));
            }
            done => return done,
        }
    }
}

fn expect(wanted: u16, answer: (u16, Value)) -> Result<Value> {
    let (status, body) = answer;
    ensure!(status == wanted, "{status}: {body}");
    Ok(body)
}

fn gets_ready(server: &Server) -> Result<()> {
    soon(|| expect(200, server.get("/readyz")?).map(drop))
}

/// Where no job of another service writes.
fn base_of(server: &Server) -> Value {
    json!(format!("s3://bucket/{}", server.pid()))
}

fn submits(server: &Server) -> Result<()> {
    let mut run = request("rights", &json!({"fake.test/run-for": "1h"}));
    run["num_nodes"] = json!(2);
    run["checkpoint_base_uri"] = base_of(server);
    expect(201, server.post("/train", &run)?).map(drop)
}

fn sees_it_run(server: &Server) -> Result<()> {
    soon(|| {
        let summary = expect(200, server.get("/train/meta-rights")?)?;
        ensure!(summary["status"] == "running", "{summary}");
        Ok(())
    })
}

fn tells_everything(server: &Server) -> Result<()> {
    soon(|| {
        let full = expect(200, server.get("/train/meta-rights?view=full")?)?;
        ensure!(
            full["pods"].as_array().is_some_and(|pods| pods.len() == 2),
            "{full}"
        );
        ensure!(
            !full["events"].as_array().is_none_or(Vec::is_empty),
            "{full}"
        );
        Ok(())
    })
}

fn lists(server: &Server) -> Result<()> {
    soon(|| {
        let list = expect(200, server.get("/train")?)?;
        let listed = list["jobs"].as_array().context("jobs")?;
        ensure!(
            listed.iter().any(|job| job["name"] == "meta-rights"),
            "{list}"
        );
        Ok(())
    })
}

fn reads_a_log(server: &Server) -> Result<()> {
    soon(|| {
        let log = expect(200, server.get("/train/meta-rights/logs")?)?;
        ensure!(
            log.as_str()
                .is_some_and(|log| log.contains("the beginning")),
            "{log}"
        );
        Ok(())
    })
}

fn suspends_and_resumes(server: &Server) -> Result<()> {
    for wish in ["suspend", "resume"] {
        expect(
            200,
            server.post(&format!("/train/meta-rights/{wish}"), &json!({}))?,
        )?;
    }
    Ok(())
}

fn deletes(server: &Server) -> Result<()> {
    let full = expect(200, server.get("/train/meta-rights?view=full")?)?;
    // Other tests have jobs of this name in namespaces that a service of the whole cluster sees.
    let namespace = full["namespace"].as_str().context("no namespace")?;
    let job = format!("/train/meta-rights?namespace={namespace}");
    expect(204, server.delete(&job)?)?;
    soon(|| match server.get(&job)? {
        (404, _) => Ok(()),
        (status, body) => bail!("{status}: {body}"),
    })
}

/// The operator deletes the pods of a job that has reached its backoff limit, so the job has to keep
/// what was seen of them.
fn remembers_a_failure(server: &Server) -> Result<()> {
    let fate = json!({"fake.test/run-for": "500ms", "fake.test/exit-code": "7"});
    let mut run = request("fails", &fate);
    run["checkpoint_base_uri"] = base_of(server);
    let job = server.submit(&run)?;
    server.wait_for(&job, "failed")?;
    soon(|| {
        let manifest = expect(200, server.get(&format!("/train/{job}/manifest"))?)?;
        let kept = &manifest["metadata"]["annotations"]["trainer.deepfinery/failure.master-0"];
        let kept: Value = serde_json::from_str(kept.as_str().context("nothing is kept")?)?;
        ensure!(kept["exit_code"] == 7, "{manifest}");
        let full = expect(200, server.get(&format!("/train/{job}?view=full"))?)?;
        ensure!(full["pods"][0]["exit_code"] == 7, "{full}");
        Ok(())
    })
}
