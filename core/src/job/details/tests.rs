//! Tests of the explanations of a job.

use super::*;

fn job(suspend: bool) -> ObservedJob {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "run", "namespace": "team-a"},
        "spec": {
            "runPolicy": {"suspend": suspend},
            "pytorchReplicaSpecs": {"Master": {"replicas": 1}, "Worker": {"replicas": 3}},
        },
        "status": {"conditions": [{"type": "Created", "status": "True"}]},
    }))
    .unwrap()
}

fn pod(replica: &str, phase: &str) -> PodDetails {
    PodDetails {
        replica: replica.to_string(),
        phase: phase.to_string(),
        ..PodDetails::default()
    }
}

fn explained(job: ObservedJob, pods: Vec<PodDetails>, events: Vec<JobEvent>) -> Vec<String> {
    let inspection = Inspection {
        job,
        pods,
        events,
        notes: Vec::new(),
        queue: None,
    };
    explain(&inspection, None)
}

#[test]
fn replicas_with_one_trouble_share_a_sentence() {
    let waiting = |replica| PodDetails {
        reason: Some("Unschedulable".to_string()),
        message: Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.".to_string()),
        ..pod(replica, "Pending")
    };
    let pods = vec![
        pod("master-0", "Running"),
        waiting("worker-0"),
        waiting("worker-1"),
    ];
    assert_eq!(
        explained(job(false), pods, Vec::new()),
        [
            "2 of 3 replicas (worker-0 and 1 more): waits: Unschedulable: 0/1 nodes are \
             available: 1 Insufficient nvidia.com/gpu."
        ]
    );
}

#[test]
fn an_exit_code_is_told_with_its_reason_and_restarts() {
    let killed = PodDetails {
        exit_code: Some(137),
        reason: Some("OOMKilled".to_string()),
        restarts: 2,
        ..pod("worker-1", "Running")
    };
    assert_eq!(
        explained(job(false), vec![killed], Vec::new()),
        ["worker-1 exited with code 137 (OOMKilled), restarted 2 times so far"]
    );
}

#[test]
fn what_ended_a_pod_from_outside_has_its_sentence() {
    let mut text = String::new();
    for reason in [
        "Evicted",
        "EvictionByEvictionAPI",
        "PreemptionByScheduler",
        "DeletionByTaintManager",
        "DeletionByPodGC",
        "NodeLost",
        "TerminationByKubelet",
        "DeadlineExceeded",
    ] {
        let pod = PodDetails {
            exit_code: Some(137),
            reason: Some(reason.to_string()),
            message: Some("the cause".to_string()),
            ..pod("worker-1", "Failed")
        };
        // The pod may be gone before its container has an exit code.
        let early = PodDetails {
            exit_code: None,
            ..pod.clone()
        };
        assert!(pod.has_failed() && early.has_failed());
        let sentences = explained(job(false), vec![pod], Vec::new());
        assert_eq!(explained(job(false), vec![early], Vec::new()), sentences);
        text.push_str(&format!("{reason}\n  {}\n", sentences.join("\n  ")));
    }
    for (phase, exit_code) in [("Succeeded", 0), ("Running", 0), ("Running", 137)] {
        let pod = PodDetails {
            exit_code: Some(exit_code),
            reason: Some("OOMKilled".to_string()),
            ..pod("worker-1", phase)
        };
        let sentences = explained(job(false), vec![pod], Vec::new());
        let sentences = sentences.join("\n  ");
        text.push_str(&format!(
            "{phase} with {exit_code}, OOMKilled\n  {sentences}\n"
        ));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn an_exit_code_of_0_beside_a_lack_of_memory_is_explained_also_when_the_job_succeeded() {
    let killed = PodDetails {
        exit_code: Some(0),
        reason: Some("OOMKilled".to_string()),
        ..pod("master-0", "Succeeded")
    };
    let mut succeeded = job(false);
    succeeded.status = serde_json::from_value(serde_json::json!({
        "conditions": [{"type": "Succeeded", "status": "True"}],
    }))
    .unwrap();
    for job in [job(false), succeeded] {
        let sentences = explained(job, vec![killed.clone()], Vec::new()).remove(0);
        assert!(sentences.contains("for lack of memory"), "{sentences}");
    }
}

#[test]
fn the_detail_of_a_failed_job_has_the_exit_codes_that_it_keeps() {
    let mut failed = job(false);
    failed.status = serde_json::from_value(serde_json::json!({
        "conditions": [{"type": "Failed", "status": "True", "message": "PyTorchJob run has failed."}],
    }))
    .unwrap();
    assert_eq!(JobSummary::of(&failed).detail, "PyTorchJob run has failed.");
    let killed = PodDetails {
        exit_code: Some(7),
        reason: Some("Error".to_string()),
        ..pod("master-0", "Failed")
    };
    let (key, value) = super::super::failure_annotation(&killed);
    failed.metadata.annotations = Some([(key, value)].into());
    assert_eq!(
        JobSummary::of(&failed).detail,
        "PyTorchJob run has failed: master-0 exited with code 7 (Error)"
    );
}

#[test]
fn a_suspended_job_says_how_it_goes_on() {
    let sentences = explained(job(true), Vec::new(), Vec::new());
    assert_eq!(
        sentences,
        ["The job is suspended. Resume it with POST /train/run/resume."]
    );
}

#[test]
fn pods_that_admission_refuses_are_told_until_one_is_created() {
    let event = |reason: &str| JobEvent {
        time: None,
        event_type: "Warning".to_string(),
        reason: reason.to_string(),
        message: "exceeded quota".to_string(),
        object: "PyTorchJob/run".to_string(),
        count: 1,
    };
    let sentences = explained(job(false), Vec::new(), vec![event("FailedCreatePod")]);
    assert_eq!(
        sentences,
        ["The pods of the job cannot be created: exceeded quota"]
    );
    let events = vec![event("FailedCreatePod"), event("SuccessfulCreatePod")];
    assert!(explained(job(false), Vec::new(), events).is_empty());
}

#[test]
fn what_kubeflow_cannot_create_for_a_train_job_is_told() {
    let event = |object: &str, reason: &str| JobEvent {
        time: None,
        event_type: "Warning".to_string(),
        reason: reason.to_string(),
        message: "exceeded quota".to_string(),
        object: object.to_string(),
        count: 1,
    };
    let reported = |events: Vec<JobEvent>| explained(job(false), Vec::new(), events);
    assert_eq!(
        reported(vec![event("Job/run-node-0", "FailedCreate")]),
        ["The pods of the job cannot be created: exceeded quota"]
    );
    assert_eq!(
        reported(vec![event(
            "TrainJob/run",
            "TrainJobResourcesCreationFailed"
        )]),
        ["The objects of the job cannot be created: exceeded quota"]
    );
    let later = event("Job/run-node-0", "SuccessfulCreate");
    assert!(reported(vec![event("Job/run-node-0", "FailedCreate"), later]).is_empty());
}
