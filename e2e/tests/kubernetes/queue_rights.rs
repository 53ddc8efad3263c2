//! Each permission that `deploy/components/kueue` gives is needed, and no other.

use e2e::control_plane::{ControlPlane, Extension};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::queues::{add_queue, add_runtimes, in_queue};
use crate::service::{Deployed, request};

/// What a service cannot do without a permission. Empty: everything works.
fn lacks(service: &Deployed, run_id: &str) -> Vec<&'static str> {
    let mut run = request(run_id, &json!({"fake.test/run-for": "1h"}));
    run["num_nodes"] = json!(4);
    run["gpus_per_node"] = json!(8);
    let name = service.server.submit(&run).unwrap();
    // By now Kueue has written its Workload, or the service could not read it in any case.
    let reported = |words: &'static str| {
        (0..15).any(|_| {
            let full = service.full(&name);
            let found = full.to_string().contains(words);
            if !found {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            found
        })
    };
    let mut lacks = Vec::new();
    if !reported("\"state\":\"waiting\"") {
        lacks.push("it tells that a job waits");
    }
    if !reported("\"cluster_queue\"") {
        lacks.push("it tells the cluster queue");
    }
    if !reported("can never start") {
        lacks.push("it tells that a job can never start");
    }
    let path = format!("/train/{name}/suspend");
    let (status, _) = service.server.post(&path, &json!(null)).unwrap();
    if status != 200 {
        lacks.push("it suspends a job");
    }
    lacks
}

for_both_kinds! { without_any_one_permission_for_queues_something_fails }

fn without_any_one_permission_for_queues_something_fails(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    plane.extend(Extension::Kueue).unwrap();
    add_runtimes(plane);
    let components = [&["kueue"], kinds::components(kind)].concat();
    let without = |namespace: &str, revoke: &dyn Fn()| {
        let started = Deployed::start_with(plane, kind, namespace, &components, in_queue);
        let service = started.unwrap();
        add_queue(plane, namespace, 16);
        revoke();
        lacks(&service, "queue-rights")
    };
    let all = kinds::namespace(kind, "queue-rights");
    assert_eq!(without(&all, &|| ()), [""; 0]);
    let namespace = kinds::namespace(kind, "queue-rights-cluster-queues");
    let binding = format!("trainer-{namespace}");
    let unbound = without(&namespace, &|| {
        plane
            .kubectl(&["delete", "clusterrolebinding", &binding])
            .unwrap();
    });
    assert_eq!(unbound, ["it tells that a job can never start"]);
    for (resource, verb, expected) in [
        (
            "workloads",
            "list",
            vec![
                "it tells that a job waits",
                "it tells the cluster queue",
                "it tells that a job can never start",
                "it suspends a job",
            ],
        ),
        ("workloads", "patch", vec!["it suspends a job"]),
        (
            "localqueues",
            "list",
            vec![
                "it tells the cluster queue",
                "it tells that a job can never start",
            ],
        ),
    ] {
        let namespace = kinds::namespace(kind, &format!("queue-rights-{verb}-{resource}"));
        let found = without(&namespace, &|| revoke(plane, &namespace, resource, verb));
        assert_eq!(found, expected, "{verb} {resource}");
    }
}

fn revoke(plane: &ControlPlane, namespace: &str, resource: &str, verb: &str) {
    let role = ["role", "trainer", "--namespace", namespace];
    let get = [&["get"][..], &role, &["--output=json"]].concat();
    let role_now: Value = serde_json::from_str(&plane.kubectl(&get).unwrap()).unwrap();
    let mut rules = role_now["rules"].as_array().unwrap().clone();
    let mut revoked = 0;
    for rule in &mut rules {
        if rule["resources"] == json!([resource]) {
            let verbs = rule["verbs"].as_array_mut().unwrap();
            let before = verbs.len();
            verbs.retain(|granted| granted != verb);
            revoked += before - verbs.len();
        }
    }
    assert_eq!(revoked, 1, "{verb} {resource}: {rules:?}");
    rules.retain(|rule| rule["verbs"] != json!([]));
    let patch = json!({ "rules": rules }).to_string();
    let patched = [&["patch"][..], &role, &["--type=merge", "--patch", &patch]].concat();
    plane.kubectl(&patched).unwrap();
}
