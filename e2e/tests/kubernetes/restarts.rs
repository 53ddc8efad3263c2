//! Exits of pods: which ones end the job, and how they are reported. The real operator decides.

use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{Deployed, eventually, request};

/// The status of a pod whose container was started again after it ended so.
fn restarted(ended: &Value) -> Value {
    json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "pytorch", "image": "i", "imageID": "", "ready": true, "restartCount": 1,
        "state": {"running": {}},
        "lastState": {"terminated": ended},
    }]}})
}

/// What torchrun writes last when a process fails.
fn report(code: i32) -> String {
    format!(
        "train.py: error: [rank 3] dataset file:///nowhere does not exist\nRoot Cause (first \
         observed failure):\n[0]:\n  rank      : 3 (local_rank: 3)\n  exitcode  : {code} (pid: 9)\n"
    )
}

/// Submits a job whose pod runs until its status is set.
fn running(service: &Deployed, run: &str) -> (String, String) {
    let fate = json!({"fake.test/run-for": "1h"});
    let name = service.server.submit(&request(run, &fate)).unwrap();
    service.server.wait_for(&name, "running").unwrap();
    let pod = service.master(&name);
    (name, pod)
}

for_both_kinds! {
    a_permanent_failure_ends_the_job_before_its_backoff_limit
    an_evicted_pod_is_explained
    a_process_that_was_killed_for_lack_of_memory_is_told_although_the_job_succeeded
}

fn a_permanent_failure_ends_the_job_before_its_backoff_limit(kind: JobKind) {
    let service = Deployed::start(kind, "permanent").unwrap();
    let fate = |code: &str| json!({"fake.test/run-for": "2s", "fake.test/exit-code": code});
    let submit = |run: &str, code| service.server.submit(&request(run, &fate(code))).unwrap();
    let (permanent, passing) = (submit("permanent", "78"), submit("passing", "7"));
    let restarts = |name: &str| {
        service.server.wait_for(name, "failed").unwrap();
        let full = service.full_when(name, |full| full["pods"][0]["exit_code"].is_number());
        full["pods"][0]["restarts"].as_u64().unwrap()
    };
    match kind {
        // The service learns of it when the pod has been started again.
        JobKind::PyTorchJob => assert!(restarts(&permanent) < 3),
        JobKind::TrainJob => assert_eq!(restarts(&permanent), 0),
    }
    assert!(restarts(&passing) >= 2, "it has its backoff limit of 3");
}

#[test]
fn a_permanent_failure_of_a_process_ends_the_job_although_torchrun_exits_with_1() {
    let service = Deployed::start(JobKind::PyTorchJob, "of-a-rank").unwrap();
    let (name, pod) = running(&service, "wrong");
    let ended = json!({"exitCode": 1, "reason": "Error", "message": report(78)});
    service.patch("pod", &pod, &restarted(&ended), &["--subresource=status"]);
    let failed = eventually(|| {
        let (_, message) = service.server.get(&format!("/train/{name}")).unwrap();
        let detail = message["detail"].to_string();
        match message["status"] == "failed" && detail.contains("rank 3") {
            true => Ok(detail),
            false => Err(message.to_string()),
        }
    });
    let cause =
        "rank 3 exited with code 78: train.py: error: [rank 3] dataset file:///nowhere does";
    assert!(failed.contains(cause), "{failed}");

    let (name, pod) = running(&service, "unlucky");
    let ended = json!({"exitCode": 1, "reason": "Error", "message": report(1)});
    service.patch("pod", &pod, &restarted(&ended), &["--subresource=status"]);
    let full = service.full_when(&name, |full| full["pods"][0]["restarts"] == 1);
    assert_eq!(full["status"], "running");
    let limit = || {
        let (_, manifest) = service
            .server
            .get(&format!("/train/{name}/manifest"))
            .unwrap();
        manifest["spec"]["runPolicy"]["backoffLimit"].clone()
    };
    assert_eq!(limit(), 3);
}

/// Why jobs do not have this restart policy: torchrun exits with 1 whatever its processes exit with.
#[test]
fn the_restart_policy_exit_code_ends_a_job_at_a_code_below_128_and_creates_the_pod_again_above() {
    let service = Deployed::start(JobKind::PyTorchJob, "exit-code").unwrap();
    let create = |name: &str, code: &str| {
        let job = json!({
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {"name": name, "namespace": service.namespace},
            "spec": {
                "runPolicy": {"backoffLimit": 3},
                "pytorchReplicaSpecs": {"Master": {
                    "replicas": 1,
                    "restartPolicy": "ExitCode",
                    "template": {
                        "metadata": {"annotations": {
                            "fake.test/run-for": "1s", "fake.test/exit-code": code,
                        }},
                        "spec": {"containers": [{"name": "pytorch", "image": "trainer"}]},
                    },
                }},
            },
        });
        let create = ["create", "--filename", "-"];
        service
            .plane
            .kubectl_with(&create, &job.to_string())
            .unwrap();
    };
    create("torchrun", "1");
    create("killed", "137");
    let failed = service.server.wait_for("torchrun", "failed").unwrap();
    assert!(
        !failed["detail"].to_string().contains("backoff limit"),
        "{failed}"
    );
    let uid = || {
        let pods = service.pods("killed");
        pods.first().map(|pod| pod["metadata"]["uid"].to_string())
    };
    let first = eventually(|| uid().ok_or_else(|| "no pod".to_string()));
    eventually(|| match uid() {
        Some(uid) if uid != first => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (_, killed) = service.server.get("/train/killed").unwrap();
    assert_ne!(killed["status"], "failed", "{killed}");
}

fn an_evicted_pod_is_explained(kind: JobKind) {
    let service = Deployed::start(kind, "evicted").unwrap();
    let (name, pod) = running(&service, "evicted");
    // The operator replaces an evicted pod at once. A finalizer keeps it.
    let hold = json!({"metadata": {"finalizers": ["fake.test/hold"]}});
    service.patch("pod", &pod, &hold, &[]);
    let evicted = json!({"status": {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
        }],
        "containerStatuses": [{
            "name": kinds::container(kind), "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": 137, "reason": "Error"}},
        }],
    }});
    service.patch("pod", &pod, &evicted, &["--subresource=status"]);
    let full = service.full_when(&name, |full| {
        full["explanation"].to_string().contains("evicted")
    });
    let explained = "master-0 was evicted by its node, which ran short of a resource (Evicted): The \
                     node was low on resource: memory.";
    assert_eq!(full["explanation"][0], explained);
    let none = json!({"metadata": {"finalizers": null}});
    service.patch("pod", &pod, &none, &[]);
}

/// The status of a pod that was evicted.
fn evicted() -> Value {
    json!({"status": {
        "phase": "Failed",
        "reason": "Evicted",
        "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}],
        "containerStatuses": [{
            "name": "node", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 78, "reason": "Error"}},
        }],
    }})
}

/// A PyTorchJob replaces single pods, and its backoff limit counts restarts of containers only.
#[test]
fn evictions_do_not_count_against_the_restarts_of_a_train_job() {
    let service = Deployed::start(JobKind::TrainJob, "evictions").unwrap();
    let (name, _) = running(&service, "moved");
    for eviction in 1..=4 {
        let pod = service.master(&name);
        service.patch("pod", &pod, &evicted(), &["--subresource=status"]);
        service.full_when(&name, |full| {
            let pod = &full["pods"][0];
            pod["restarts"] == eviction && pod["phase"] == "Running"
        });
    }
}

fn a_process_that_was_killed_for_lack_of_memory_is_told_although_the_job_succeeded(kind: JobKind) {
    let service = Deployed::start(kind, "spared").unwrap();
    let fate = json!({"fake.test/run-for": "100ms", "fake.test/exit-reason": "OOMKilled"});
    let name = service.server.submit(&request("spared", &fate)).unwrap();
    service.server.wait_for(&name, "succeeded").unwrap();
    let full = service.full_when(&name, |full| full["explanation"][0].is_string());
    let explained = full["explanation"][0].as_str().unwrap();
    assert!(explained.contains("for lack of memory"), "{explained}");
}
