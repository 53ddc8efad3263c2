//! Jobs over HTTP, run by the real training operator and by the real Kubeflow Trainer.

use e2e::Server;
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{Deployed, eventually, request};

/// The specification's example, whose pods run for a moment.
pub fn example() -> Value {
    json!({
        "framework": "meta",
        "model_id": "meta-llama-3-70b",
        "run_id": "meta_demo_001",
        "num_nodes": 4,
        "gpus_per_node": 8,
        "cpus_per_node": 64,
        "memory_per_node_gb": 512,
        "checkpoint_base_uri": "s3://deepfinery-training/runs",
        "dataset_uri": "s3://deepfinery-datasets/aml/v1/",
        "resume_from_checkpoint": false,
        "extra_args": {"max_steps": 6000, "lr": 2e-5, "gradient_accumulation": 16},
        "env": {"EXPERIMENT_NAME": "meta-demo"},
        "labels": {"deepfinery.com/team": "aml"},
        "annotations": {"fake.test/start-after": "1s", "fake.test/run-for": "3s"},
    })
}

/// Submits the specification's example, and returns its name once it is reported as submitted.
pub fn submit_example(server: &Server) -> &'static str {
    let name = "meta-meta-demo-001";
    let (status, body) = server.post("/train", &example()).unwrap();
    let expected = json!({
        "name": name,
        "status": "submitted",
        "detail": "PyTorchJob created",
        "framework": "meta",
        "run_id": "meta_demo_001",
    });
    assert_eq!((status, body), (201, expected));
    let submitted = server.wait_for(name, "submitted").unwrap();
    assert_eq!(submitted["detail"], "PyTorchJob submitted");
    name
}

#[test]
fn the_specifications_example_goes_from_submitted_over_running_to_succeeded() {
    let service = Deployed::start(JobKind::PyTorchJob, "example").unwrap();
    let name = submit_example(&service.server);
    service.server.wait_for(name, "running").unwrap();
    // Before the operator says so, a pod that is active does: the specification's last row but one.
    eventually(|| {
        let (_, running) = service.server.get(&format!("/train/{name}")).unwrap();
        match &running["detail"] {
            detail if detail == &format!("PyTorchJob {name} is running.") => Ok(()),
            detail => Err(detail.to_string()),
        }
    });
    let pods = service.pods(name);
    assert_eq!(pods.len(), 4);
    let (_, manifest) = service
        .server
        .get(&format!("/train/{name}/manifest"))
        .unwrap();
    let submission = manifest["metadata"]["annotations"]["trainer.deepfinery/submission"].as_str();
    for pod in &pods {
        let variable = |name: &str| {
            let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
            let variable = env.iter().rev().find(|variable| variable["name"] == name);
            variable.map(|variable| variable["value"].as_str().unwrap_or_default().to_string())
        };
        assert_eq!(variable("MASTER_ADDR").unwrap(), format!("{name}-master-0"));
        assert_eq!(variable("WORLD_SIZE").unwrap(), "32");
        assert_eq!(variable("PET_NPROC_PER_NODE").unwrap(), "8");
        assert_eq!(variable("PET_NNODES").unwrap(), "4");
        assert_eq!(variable("RANK"), variable("PET_NODE_RANK"));
        assert_eq!(variable("EXPERIMENT_NAME").unwrap(), "meta-demo");
        // One for the whole job, so that a pod that is started again knows its checkpoints.
        assert_eq!(variable("TRAINER_JOB_UID").as_deref(), submission);
        assert_eq!(variable("TRAINER_PLUGIN_NAME").unwrap(), "meta");
        assert_eq!(variable("TRAINER_PLUGIN_SHA256").unwrap().len(), 64);
        let image = &pod["spec"]["containers"][0]["image"];
        assert_eq!(&variable("TRAINER_IMAGE").unwrap(), image);
        assert_eq!(pod["metadata"]["labels"]["deepfinery.com/team"], "aml");
    }
    let succeeded = service.server.wait_for(name, "succeeded").unwrap();
    let detail = format!("PyTorchJob {name} is successfully completed.");
    assert_eq!(succeeded["detail"], detail);
}

for_both_kinds! {
    a_taken_name_is_a_400_and_overwrites_nothing
    a_job_whose_pod_fails_ends_failed_with_the_exit_code
    a_job_tells_nothing_of_the_pods_of_its_deleted_namesake
    of_two_requests_with_one_key_at_the_same_moment_one_creates_a_job
    suspending_takes_the_pods_and_resuming_brings_them_back
    deleting_takes_job_pods_and_services
    what_a_job_waits_for_is_told
    a_quota_that_refuses_the_pods_is_told
    a_quota_that_refuses_the_job_is_a_400_for_the_dry_run_too
    two_services_see_the_same_jobs
}

fn a_taken_name_is_a_400_and_overwrites_nothing(kind: JobKind) {
    let service = Deployed::start(kind, "taken").unwrap();
    let first = request("one", &json!({"fake.test/run-for": "1h"}));
    service.server.submit(&first).unwrap();
    let manifest = || service.server.get("/train/meta-one/manifest").unwrap().1;
    let uid = manifest()["metadata"]["uid"].clone();
    let (status, problem) = service.server.post("/train", &first).unwrap();
    assert_eq!(status, 400);
    assert_eq!(
        problem["detail"],
        "PyTorchJob meta-one already exists for run one"
    );
    assert_eq!(manifest()["metadata"]["uid"], uid);
}

fn a_job_whose_pod_fails_ends_failed_with_the_exit_code(kind: JobKind) {
    let service = Deployed::start(kind, "failing").unwrap();
    let fate = json!({"fake.test/run-for": "100ms", "fake.test/exit-code": "7"});
    let name = service.server.submit(&request("bad", &fate)).unwrap();
    let failed = service.server.wait_for(&name, "failed").unwrap();
    let why = match kind {
        JobKind::PyTorchJob => "has failed",
        JobKind::TrainJob => "max number of restarts",
    };
    assert!(failed["detail"].as_str().unwrap().contains(why), "{failed}");
    let with_code = eventually(|| {
        let (_, summary) = service.server.get(&format!("/train/{name}")).unwrap();
        let detail = summary["detail"].as_str().unwrap_or_default().to_string();
        match detail.contains("master-0 exited with code 7") {
            true => Ok(detail),
            false => Err(detail),
        }
    });
    assert!(with_code.contains(why), "{with_code}");
    // The operator deletes the pod, and the job remembers how it ended.
    let full = service.full_when(&name, |full| full["pods"][0]["exit_code"] != json!(null));
    assert_eq!(full["pods"][0]["exit_code"], 7, "{full}");
    // Each restart of a TrainJob has pods of its own, and the last ones stay.
    if kind == JobKind::TrainJob {
        assert_eq!(full["pods"][0]["restarts"], 3, "{full}");
    }
    let explained = full["explanation"][0].as_str().unwrap();
    assert!(
        explained.starts_with("master-0 exited with code 7"),
        "{explained}"
    );
}

fn a_job_tells_nothing_of_the_pods_of_its_deleted_namesake(kind: JobKind) {
    let service = Deployed::start(kind, "namesakes").unwrap();
    let fate = json!({"fake.test/run-for": "1h"});
    let name = service.server.submit(&request("again", &fate)).unwrap();
    service.server.wait_for(&name, "running").unwrap();
    let pod = service.master(&name);
    // What keeps a pod there while it ends, as its grace period does.
    let hold = json!({"metadata": {"finalizers": ["fake.test/hold"]}});
    service.patch("pod", &pod, &hold, &[]);
    let container = json!({
        "name": kinds::container(kind), "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
    });
    assert_eq!(
        service.server.delete(&format!("/train/{name}")).unwrap().0,
        204
    );
    eventually(
        || match service.server.get(&format!("/train/{name}")).unwrap() {
            (404, _) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    assert_eq!(
        service.server.submit(&request("again", &fate)).unwrap(),
        name
    );
    let status = json!({"status": {"phase": "Failed", "containerStatuses": [container]}});
    service.patch("pod", &pod, &status, &["--subresource=status"]);
    let full = service.full(&name);
    assert!(!full["explanation"].to_string().contains("137"), "{full}");
    let pods = full["pods"].as_array().unwrap();
    match kind {
        // The operator waits for the name of the pod.
        JobKind::PyTorchJob => {
            assert!(pods.is_empty(), "{full}");
            let (status, log) = service.server.get(&format!("/train/{name}/logs")).unwrap();
            assert_eq!(status, 404, "{log}");
        }
        JobKind::TrainJob => {
            assert!(pods.iter().all(|own| own["name"] != *pod), "{full}");
        }
    }
    let none = json!({"metadata": {"finalizers": null}});
    service.patch("pod", &pod, &none, &[]);
    service.full_when(&name, |full| full["pods"][0]["phase"] == "Running");
}

fn of_two_requests_with_one_key_at_the_same_moment_one_creates_a_job(kind: JobKind) {
    let service = Deployed::start(kind, "one-key").unwrap();
    let fate = json!({"fake.test/run-for": "1h"});
    for round in 0..10 {
        let key = format!("key-{round}");
        let together = std::sync::Barrier::new(3);
        let submit = &|number: usize| {
            let body = request(&format!("run-{round}-{number}"), &fate);
            let header = ("Idempotency-Key", key.as_str());
            together.wait();
            let answer = service.server.post_with_header("/train", header, &body);
            answer.unwrap().0
        };
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let threads = [0, 1, 2].map(|number| scope.spawn(move || submit(number)));
            threads.map(|thread| thread.join().unwrap()).to_vec()
        });
        let created = statuses.iter().filter(|status| **status == 201).count();
        let refused = statuses.iter().filter(|status| **status == 422).count();
        assert_eq!((created, refused), (1, 2), "{statuses:?}");
        assert_eq!(service.jobs().len(), round + 1);
    }
}

fn suspending_takes_the_pods_and_resuming_brings_them_back(kind: JobKind) {
    let service = Deployed::start(kind, "held").unwrap();
    let fate = json!({"fake.test/run-for": "1h"});
    let name = service.server.submit(&request("held", &fate)).unwrap();
    service.server.wait_for(&name, "running").unwrap();
    let (status, _) = service
        .server
        .post(&format!("/train/{name}/suspend"), &json!(null))
        .unwrap();
    assert_eq!(status, 200);
    let full = service.full_when(&name, |full| full["pods"] == json!([]));
    assert_eq!(full["suspended"], true);
    let how = format!("The job is suspended. Resume it with POST /train/{name}/resume.");
    assert_eq!(full["explanation"], json!([how]));
    let submitted = service.server.wait_for(&name, "submitted").unwrap();
    assert_eq!(submitted["detail"], "PyTorchJob submitted");
    service
        .server
        .post(&format!("/train/{name}/resume"), &json!(null))
        .unwrap();
    service.server.wait_for(&name, "running").unwrap();
}

fn deleting_takes_job_pods_and_services(kind: JobKind) {
    let service = Deployed::start(kind, "deleted").unwrap();
    let fate = json!({"fake.test/run-for": "1h"});
    let name = service.server.submit(&request("gone", &fate)).unwrap();
    service.server.wait_for(&name, "running").unwrap();
    assert_eq!(
        service.server.delete(&format!("/train/{name}")).unwrap().0,
        204
    );
    assert_eq!(
        service.server.get(&format!("/train/{name}")).unwrap().0,
        404
    );
    assert_eq!(
        service.server.delete(&format!("/train/{name}")).unwrap().0,
        404
    );
    eventually(|| {
        let (plane, namespace) = (service.plane, &service.namespace);
        let services = kinds::objects(plane, namespace, "services", "");
        let of_job = services
            .into_iter()
            .filter(|service| service["metadata"]["ownerReferences"][0]["name"] == *name);
        let left: Vec<Value> = service.pods(&name).into_iter().chain(of_job).collect();
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("{} objects are left", left.len())),
        }
    });
}

fn what_a_job_waits_for_is_told(kind: JobKind) {
    let service = Deployed::start(kind, "waiting").unwrap();
    let mut greedy = request("greedy", &json!({}));
    greedy["gpus_per_node"] = json!(64);
    let name = service.server.submit(&greedy).unwrap();
    let full = service.full_when(&name, |full| {
        full["explanation"] != json!([]) && full["pods"][0]["reason"] == "Unschedulable"
    });
    let explained = full["explanation"][0].as_str().unwrap();
    assert!(
        explained.contains("Insufficient nvidia.com/gpu"),
        "{explained}"
    );

    let fate = json!({"fake.test/waiting": "ImagePullBackOff"});
    let name = service.server.submit(&request("no-image", &fate)).unwrap();
    let full = service.full_when(&name, |full| {
        full["pods"][0]["reason"] == "ImagePullBackOff"
    });
    let explained = full["explanation"][0].as_str().unwrap();
    assert!(
        explained.starts_with("master-0 waits: ImagePullBackOff"),
        "{explained}"
    );

    let fate = json!({"fake.test/run-for": "100ms", "fake.test/exit-code": "137", "fake.test/exit-reason": "OOMKilled"});
    let name = service.server.submit(&request("hungry", &fate)).unwrap();
    let full = service.full_when(&name, |full| full["pods"][0]["exit_code"] == 137);
    let explained = full["explanation"][0].as_str().unwrap();
    assert!(
        explained.contains("exited with code 137 (OOMKilled)"),
        "{explained}"
    );

    // Pods of TrainJobs have no init container.
    if kind == JobKind::TrainJob {
        return;
    }
    let mut two = request("no-master", &json!({"fake.test/init-exit-code": "1"}));
    two["num_nodes"] = json!(2);
    let name = service.server.submit(&two).unwrap();
    service.full_when(&name, |full| {
        full["explanation"]
            .to_string()
            .contains("init container init-pytorch")
    });
}

/// A quota that is used up. No controller counts here, so its status is written as one would.
fn exhausted_quota(service: &Deployed, resource: &str, hard: u32) {
    let quota = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "exhausted", "namespace": service.namespace},
        "spec": {"hard": {resource: hard.to_string()}},
    });
    let apply = ["apply", "--server-side", "--filename", "-"];
    let plane = service.plane;
    plane.kubectl_with(&apply, &quota.to_string()).unwrap();
    let counted = json!({resource: hard.to_string()});
    let status = json!({"status": {"hard": counted, "used": counted}}).to_string();
    let patch = [
        "patch",
        "resourcequota",
        "exhausted",
        "--subresource=status",
        "--type=merge",
        "--patch",
        &status,
        "--namespace",
        &service.namespace,
    ];
    plane.kubectl(&patch).unwrap();
}

fn a_quota_that_refuses_the_pods_is_told(kind: JobKind) {
    let service = Deployed::start(kind, "quota-of-pods").unwrap();
    exhausted_quota(&service, "pods", 0);
    let name = service
        .server
        .submit(&request("no-pods", &json!({})))
        .unwrap();
    service.full_when(&name, |full| {
        let explained = full["explanation"].to_string();
        explained.contains("The pods of the job cannot be created")
            && explained.contains("exceeded quota")
    });
}

fn a_quota_that_refuses_the_job_is_a_400_for_the_dry_run_too(kind: JobKind) {
    let service = Deployed::start(kind, "quota-of-jobs").unwrap();
    let run = request("dry", &json!({}));
    let preview = "/train/preview?dry_run=server";
    let (status, body) = service.server.post(preview, &run).unwrap();
    assert_eq!(status, 200, "{body}");
    // Nothing was created.
    assert_eq!(service.server.get("/train/meta-dry").unwrap().0, 404);
    let (group, _) = kind.api_version().split_once('/').unwrap();
    exhausted_quota(&service, &format!("count/{}.{group}", kind.plural()), 0);
    for path in [preview, "/train"] {
        // The API server hears of a quota after a moment.
        let problem = eventually(|| match service.server.post(path, &run).unwrap() {
            (400, problem) => Ok(problem),
            (status, body) => {
                service.server.delete("/train/meta-dry").unwrap();
                Err(format!("{status}: {body}"))
            }
        });
        assert_eq!(problem["type"], "urn:trainer:problem:not-admitted");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("exceeded quota"), "{detail}");
    }
}

#[test]
fn a_job_of_another_tool_is_read_too() {
    let service = Deployed::start(JobKind::PyTorchJob, "foreign").unwrap();
    let foreign = json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "by-hand", "namespace": "foreign"},
        "spec": {
            "elasticPolicy": {"rdzvBackend": "c10d", "minReplicas": 1, "maxReplicas": 2},
            "pytorchReplicaSpecs": {"Worker": {
                "restartPolicy": "OnFailure",
                "template": {
                    "metadata": {"annotations": {"fake.test/run-for": "100ms"}},
                    "spec": {"containers": [{"name": "pytorch", "image": "trainer"}]},
                },
            }},
        },
    });
    let create = ["create", "--filename", "-"];
    service
        .plane
        .kubectl_with(&create, &foreign.to_string())
        .unwrap();
    let succeeded = service.server.wait_for("by-hand", "succeeded").unwrap();
    assert_eq!(succeeded["framework"], "");
}

fn two_services_see_the_same_jobs(kind: JobKind) {
    let first = Deployed::start(kind, "replicas").unwrap();
    let second = Deployed::start(kind, "replicas").unwrap();
    let fate = json!({"fake.test/run-for": "1h"});
    let name = first.server.submit(&request("shared", &fate)).unwrap();
    second.server.wait_for(&name, "running").unwrap();
    assert_eq!(
        second.server.delete(&format!("/train/{name}")).unwrap().0,
        204
    );
    eventually(
        || match first.server.get(&format!("/train/{name}")).unwrap() {
            (404, _) => Ok(()),
            (status, body) => Err(format!("{status}: {body}")),
        },
    );
}
