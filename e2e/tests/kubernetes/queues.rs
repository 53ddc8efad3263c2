//! Jobs in queues of a real Kueue: waiting, never fitting, suspending and resuming, preemption.

use std::time::{Duration, Instant};

use e2e::Site;
use e2e::control_plane::{ControlPlane, Extension};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{Deployed, eventually, request};

/// How long a suspended job is watched. The bar of a minute has a test of its own.
const HELD: Duration = Duration::from_secs(5);
/// The most time until a job says that it can never start.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A cluster queue of this many GPUs with a local queue `research` in a namespace.
pub fn add_queue(plane: &ControlPlane, namespace: &str, gpus: u32) {
    let kueue = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        })
    };
    let quota = json!({"name": "nvidia.com/gpu", "nominalQuota": gpus});
    let group = json!({
        "coveredResources": ["nvidia.com/gpu"],
        "flavors": [{"name": "gpus", "resources": [quota]}],
    });
    let queue = format!("cluster-{namespace}");
    let mut objects = vec![
        kueue("ResourceFlavor", "gpus", json!({})),
        kueue(
            "ClusterQueue",
            &queue,
            json!({
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [group],
            }),
        ),
        kueue("LocalQueue", "research", json!({"clusterQueue": queue})),
        json!({
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "WorkloadPriorityClass",
            "metadata": {"name": "urgent"},
            "value": 1000,
        }),
    ];
    for object in &mut objects {
        if object["kind"] != "LocalQueue" {
            object["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("namespace");
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    apply(plane, &list.to_string());
}

fn apply(plane: &ControlPlane, objects: &str) {
    let arguments = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--filename",
        "-",
    ];
    plane.kubectl_with(&arguments, objects).unwrap();
}

/// The profiles of a service whose jobs are in the queue `research`.
const PROFILES: &str = "
profiles:
  queued: {queue: research, allow_priority_classes: [urgent]}
  lost: {queue: nowhere}
default: queued
";

/// A service whose jobs are in the queue `research`.
pub fn in_queue(site: Site) -> Site {
    kinds::with_profiles(site, PROFILES)
}

/// A service with a queue of this many GPUs in a namespace of its own.
fn with_queue(kind: JobKind, name: &str, gpus: u32) -> Deployed {
    let plane = ControlPlane::shared().unwrap();
    // First, so that Kueue finds the kind of TrainJobs.
    plane.extend(Extension::Trainer).unwrap();
    plane.extend(Extension::Kueue).unwrap();
    let namespace = format!("{}-queued", kinds::namespace(kind, name));
    let components: &[&str] = match kind {
        JobKind::PyTorchJob => &["kueue"],
        JobKind::TrainJob => {
            add_runtimes(plane);
            &["kueue", "trainjob"]
        }
    };
    let service = Deployed::start_with(plane, kind, &namespace, components, in_queue);
    add_queue(plane, &namespace, gpus);
    service.unwrap()
}

/// The training runtimes of the profiles.
pub fn add_runtimes(plane: &ControlPlane) {
    kinds::add_runtimes(plane, PROFILES);
}

for_both_kinds! {
    two_jobs_that_do_not_fit_together_run_one_after_the_other
    a_job_that_never_fits_says_so_at_once
    a_suspended_job_stays_suspended_and_a_resumed_one_waits_in_its_queue
    a_preempted_job_says_by_whom_and_why
    a_queue_that_does_not_exist_is_explained
}

/// A job of two nodes with eight GPUs each.
fn two_nodes(run_id: &str, runs_for: &str) -> Value {
    let mut run = request(run_id, &json!({"fake.test/run-for": runs_for}));
    run["num_nodes"] = json!(2);
    run["gpus_per_node"] = json!(8);
    run
}

fn act(service: &Deployed, job: &str, what: &str) {
    let path = format!("/train/{job}/{what}");
    let (status, body) = service.server.post(&path, &json!(null)).unwrap();
    assert_eq!(status, 200, "{body}");
}

fn says(full: &Value, words: &str) -> bool {
    let sentences = full["explanation"].as_array().unwrap();
    sentences
        .iter()
        .any(|sentence| sentence.as_str().unwrap().contains(words))
}

fn state(full: &Value) -> &str {
    full["queue"]["state"].as_str().unwrap_or_default()
}

fn queued_in(service: &Deployed, job: &str) -> Value {
    let (_, list) = service.server.get("/train").unwrap();
    let mut jobs = list["jobs"].as_array().unwrap().iter();
    jobs.find(|listed| listed["name"] == job).unwrap()["queued_in"].clone()
}

fn two_jobs_that_do_not_fit_together_run_one_after_the_other(kind: JobKind) {
    let service = with_queue(kind, "one-by-one", 16);
    let first = service.server.submit(&two_nodes("first", "4s")).unwrap();
    service.server.wait_for(&first, "running").unwrap();
    let second = service.server.submit(&two_nodes("second", "1s")).unwrap();
    let full = service.full_when(&second, |full| full["queue"]["message"].is_string());
    let queue = &full["queue"];
    assert_eq!(queue["name"], "research");
    assert_eq!(queue["state"], "waiting");
    let cluster_queue = format!("cluster-{}", service.namespace);
    assert_eq!(queue["cluster_queue"], cluster_queue.as_str());
    assert_eq!(
        (&queue["position"], &queue["waiting"]),
        (&json!(1), &json!(1))
    );
    assert!(
        says(&full, "waits in the queue research at position 1 of 1"),
        "{full}"
    );
    assert!(says(&full, " more needed"), "{full}");
    assert_eq!(full["status"], "submitted");
    assert_eq!(queued_in(&service, &second), "research");
    assert_eq!(queued_in(&service, &first), Value::Null);
    service.server.wait_for(&first, "succeeded").unwrap();
    service.server.wait_for(&second, "succeeded").unwrap();
    let full = service.full(&second);
    assert_eq!(full["explanation"], json!([]), "{full}");
}

fn a_job_that_never_fits_says_so_at_once(kind: JobKind) {
    let service = with_queue(kind, "never-fits", 16);
    let mut run = two_nodes("huge", "1h");
    run["num_nodes"] = json!(4);
    let expected = "it requests 32 nvidia.com/gpu, and the queue's largest capacity is 16";
    let preview = "/train/preview?dry_run=server";
    let (status, body) = service.server.post(preview, &run).unwrap();
    assert_eq!(status, 200, "{body}");
    let warning = &body["warnings"][0];
    assert_eq!(warning["code"], "queue", "{body}");
    assert!(
        warning["detail"].as_str().unwrap().contains(expected),
        "{body}"
    );

    let submitted = Instant::now();
    let name = service.server.submit(&run).unwrap();
    let full = service.full_when(&name, |full| says(full, "can never start"));
    assert!(submitted.elapsed() < AT_ONCE, "{:?}", submitted.elapsed());
    assert!(says(&full, expected), "{full}");
    // Kueue has its own numbers.
    service.full_when(&name, |full| says(full, "maximum capacity"));
}

fn a_suspended_job_stays_suspended_and_a_resumed_one_waits_in_its_queue(kind: JobKind) {
    suspends_and_resumes(kind, "held-in-queue", HELD);
}

#[test]
#[ignore = "takes more than a minute: `make e2e-queues` runs it"]
fn a_suspended_job_stays_suspended_for_a_minute() {
    for kind in JobKind::ALL {
        suspends_and_resumes(kind, "held-for-a-minute", Duration::from_secs(60));
    }
}

fn suspends_and_resumes(kind: JobKind, name: &str, held: Duration) {
    let service = with_queue(kind, name, 16);
    let first = service.server.submit(&two_nodes("first", "1h")).unwrap();
    service.server.wait_for(&first, "running").unwrap();
    act(&service, &first, "suspend");
    let full = service.full_when(&first, |full| full["pods"] == json!([]));
    assert_eq!(state(&full), "suspended", "{full}");
    assert!(
        says(&full, "it then waits in the queue research again"),
        "{full}"
    );
    assert_eq!(queued_in(&service, &first), Value::Null);
    let until = Instant::now() + held;
    while Instant::now() < until {
        let full = service.full(&first);
        assert_eq!(full["pods"], json!([]), "{full}");
        assert_eq!(full["status"], "submitted", "{full}");
        std::thread::sleep(Duration::from_millis(200));
    }

    // Another job takes the quota meanwhile, so a resume leads back into the queue.
    let second = service.server.submit(&two_nodes("second", "1h")).unwrap();
    service.server.wait_for(&second, "running").unwrap();
    act(&service, &first, "resume");
    let full = service.full_when(&first, |full| full["queue"]["position"] == 1);
    assert_eq!(state(&full), "waiting", "{full}");
    assert_eq!(queued_in(&service, &first), "research");

    // A job that waits can be taken out of the queue too.
    act(&service, &first, "suspend");
    service.full_when(&first, |full| state(full) == "suspended");
    let (status, _) = service.server.delete(&format!("/train/{second}")).unwrap();
    assert_eq!(status, 204);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(service.full(&first)["status"], "submitted");
    act(&service, &first, "resume");
    service.server.wait_for(&first, "running").unwrap();
}

fn a_preempted_job_says_by_whom_and_why(kind: JobKind) {
    let service = with_queue(kind, "preempted", 16);
    let low = service.server.submit(&two_nodes("low", "1h")).unwrap();
    service.server.wait_for(&low, "running").unwrap();
    let mut urgent = two_nodes("high", "1h");
    urgent["labels"] = json!({"kueue.x-k8s.io/priority-class": "urgent"});
    let high = service.server.submit(&urgent).unwrap();
    service.server.wait_for(&high, "running").unwrap();
    let full = service.full_when(&low, |full| {
        says(
            full,
            &format!("to make room for job {high}, which has a higher priority"),
        )
    });
    assert_eq!(state(&full), "waiting", "{full}");
    assert_eq!(service.full(&high)["queue"]["priority"], 1000);

    urgent["labels"] = json!({"kueue.x-k8s.io/priority-class": "highest"});
    let (status, body) = service.server.post("/train/preview", &urgent).unwrap();
    assert_eq!(status, 400, "{body}");
    let detail = body["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("profile queued allows urgent"), "{detail}");
}

fn a_queue_that_does_not_exist_is_explained(kind: JobKind) {
    let service = with_queue(kind, "no-such-queue", 16);
    let mut run = two_nodes("lost", "1h");
    run["annotations"]["trainer.deepfinery/profile"] = json!("lost");
    let namespace = &service.namespace;
    let expected = format!(
        "The queue nowhere does not exist in the namespace {namespace} (it has research), so the job \
         waits until the operator creates it."
    );
    let preview = "/train/preview?dry_run=server";
    let (status, body) = service.server.post(preview, &run).unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["warnings"][0]["detail"], expected.as_str(), "{body}");
    let name = service.server.submit(&run).unwrap();
    service.full_when(&name, |full| says(full, &expected));
}

#[test]
fn a_job_of_a_kind_that_kueue_does_not_manage_is_explained() {
    // Kueue's own default: it leaves PyTorchJobs alone.
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start().unwrap()));
    plane.extend(Extension::KueueWithoutPyTorchJobs).unwrap();
    let service = Deployed::start_with(
        plane,
        JobKind::PyTorchJob,
        "unmanaged",
        &["kueue"],
        in_queue,
    )
    .unwrap();
    add_queue(plane, "unmanaged", 16);
    let run = two_nodes("free", "1h");
    let expected = "The job names the queue research, but Kueue does not manage this kind of job";
    let preview = "/train/preview?dry_run=server";
    let (_, body) = service.server.post(preview, &run).unwrap();
    let warning = body["warnings"][0]["detail"].as_str();
    assert!(
        warning.is_some_and(|warning| warning.starts_with(expected)),
        "{body}"
    );
    let name = service.server.submit(&run).unwrap();
    service.server.wait_for(&name, "running").unwrap();
    let full = service.full_when(&name, |full| says(full, expected));
    assert_eq!(state(&full), "unmanaged");
    // Without a Workload, suspending acts on the job itself.
    act(&service, &name, "suspend");
    let full = service.full_when(&name, |full| full["pods"] == json!([]));
    assert_eq!(full["suspended"], true);
    assert!(
        says(&full, &format!("Resume it with POST /train/{name}/resume")),
        "{full}"
    );
    act(&service, &name, "resume");
    eventually(|| match service.server.wait_for(&name, "running") {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    });
}
