//! Tests with the objects that Kueue 0.19.2 wrote about PyTorchJobs, without their pod templates.

use super::*;
use serde_json::{Value, json};

fn recorded() -> Value {
    serde_json::from_str(include_str!("recorded.json")).unwrap()
}

fn workload(name: &str) -> Workload {
    serde_json::from_value(recorded()[name].clone()).unwrap()
}

fn job(suspend: bool, annotations: Value) -> ObservedJob {
    serde_json::from_value(json!({
        "metadata": {
            "name": "run",
            "namespace": "default",
            "labels": {QUEUE_LABEL: "research"},
            "annotations": annotations,
        },
        "spec": {"runPolicy": {"suspend": suspend}},
    }))
    .unwrap()
}

/// What is read about a job with a recorded Workload, in a queue of 40 GPUs.
fn queueing(name: &str) -> Queueing {
    let queue = json!({"metadata": {"name": "research"}, "spec": {"clusterQueue": "cq"}});
    Queueing {
        workload: Some(workload(name)),
        workloads: None,
        queue: LocalQueues::Found(serde_json::from_value(queue).unwrap()),
        cluster_queue: Some(serde_json::from_value(recorded()["cluster_queue"].clone()).unwrap()),
        preemptor: None,
    }
}

fn explained(suspend: bool, queueing: Queueing) -> (QueueDetails, Vec<String>) {
    let reading = QueueReading::Read(Box::new(queueing));
    explain(&job(suspend, json!({})), &reading).unwrap()
}

#[test]
fn a_waiting_job_tells_its_position_and_what_kueue_says() {
    let earlier = |name: &str, priority: i64, time: &str| {
        let mut other = recorded()["waiting"].clone();
        other["metadata"]["name"] = json!(name);
        other["metadata"]["creationTimestamp"] = json!(time);
        other["spec"]["priority"] = json!(priority);
        serde_json::from_value(other).unwrap()
    };
    let mut queueing = queueing("waiting");
    queueing.workloads = Some(vec![
        workload("waiting"),
        workload("admitted"),
        workload("suspended_in_queue"),
        workload("missing_queue"),
        earlier("earlier", 0, "2026-11-28T10:00:00Z"),
        earlier("later", 0, "2026-11-28T16:00:00Z"),
        earlier("later-but-higher", 7, "2026-11-28T16:00:00Z"),
    ]);
    let (details, sentences) = explained(true, queueing);
    assert_eq!(
        serde_json::to_value(details).unwrap(),
        json!({
            "name": "research",
            "state": "waiting",
            "cluster_queue": "cq",
            "position": 3,
            "waiting": 4,
            "priority": 0,
            "message": "couldn't assign flavors to pod set worker: insufficient unused quota for \
                        nvidia.com/gpu in flavor default, 24 more needed",
        })
    );
    assert_eq!(
        sentences,
        [
            "The job waits in the queue research at position 3 of 4. Kueue says: couldn't assign \
             flavors to pod set worker: insufficient unused quota for nvidia.com/gpu in flavor \
             default, 24 more needed."
        ]
    );
}

#[test]
fn a_job_above_the_largest_capacity_can_never_start() {
    let (details, sentences) = explained(true, queueing("never_fits"));
    assert_eq!(details.state, QueueState::Waiting);
    let expected = "The job can never start in the queue research: it requests 64 nvidia.com/gpu, \
                    and the queue's largest capacity is 40. Delete it and request less, or choose \
                    another queue. Kueue says: couldn't assign flavors";
    assert!(sentences[0].starts_with(expected), "{sentences:?}");
    // Without a right to read the quotas, Kueue's own numbers are there.
    let mut unread = queueing("never_fits");
    unread.cluster_queue = None;
    let (_, sentences) = explained(true, unread);
    assert!(
        sentences[0].contains("> maximum capacity (40)"),
        "{sentences:?}"
    );
    let mut recorded_workload = recorded()["never_fits"].clone();
    recorded_workload["status"]["conditions"][0]["reason"] = json!("ExceedsMaxQuota");
    let mut unread = queueing("never_fits");
    unread.cluster_queue = None;
    unread.workload = Some(serde_json::from_value(recorded_workload).unwrap());
    let (_, sentences) = explained(true, unread);
    assert!(
        sentences[0].starts_with("The job can never start"),
        "{sentences:?}"
    );
}

#[test]
fn a_preempted_job_tells_by_whom_and_why() {
    let mut preempted = queueing("preempted");
    preempted.preemptor = Some("job meta-urgent".to_string());
    let message = workload("preempted").preemption().map(str::to_string);
    assert!(
        message
            .unwrap()
            .contains("d5417af8-bdc2-4a59-91c6-6676c438fc96")
    );
    let (details, sentences) = explained(true, preempted);
    assert_eq!(details.state, QueueState::Waiting);
    assert_eq!(
        sentences[0],
        "Kueue has stopped the job to make room for job meta-urgent, which has a higher priority \
         in the same cluster queue. It starts again when the queue admits it."
    );
    assert!(sentences[1].starts_with("The job waits in the queue research. Kueue says: "));
}

#[test]
fn a_suspended_job_tells_that_a_resume_returns_it_to_its_queue() {
    for name in ["suspended_in_queue", "suspended_while_running"] {
        let (details, sentences) = explained(true, queueing(name));
        assert_eq!(details.state, QueueState::Suspended);
        assert_eq!(
            sentences,
            [
                "The job is suspended. Resume it with POST /train/run/resume; it then waits in the \
                 queue research again."
            ]
        );
    }
    let mut limit = recorded()["suspended_while_running"].clone();
    limit["status"]["conditions"][1]["reason"] = json!("DeactivatedDueToRequeuingLimitExceeded");
    limit["status"]["conditions"][1]["message"] = json!("The workload was requeued too often.");
    let mut queueing = queueing("admitted");
    queueing.workload = Some(serde_json::from_value(limit).unwrap());
    let (_, sentences) = explained(true, queueing);
    assert_eq!(
        sentences,
        [
            "Kueue has taken the job out of the queue research: The workload was requeued too \
             often. Resume it with POST /train/run/resume."
        ]
    );
}

#[test]
fn a_resumed_job_that_waits_again_was_not_stopped_by_kueue() {
    let mut resumed = recorded()["suspended_while_running"].clone();
    resumed["spec"]["active"] = json!(true);
    let mut queueing = queueing("admitted");
    queueing.workload = Some(serde_json::from_value(resumed).unwrap());
    let (details, sentences) = explained(true, queueing);
    assert_eq!(details.state, QueueState::Waiting);
    assert_eq!(sentences.len(), 1, "{sentences:?}");
}

#[test]
fn an_admitted_job_needs_no_sentence() {
    for name in ["admitted", "resumed"] {
        let (details, sentences) = explained(false, queueing(name));
        assert_eq!(details.state, QueueState::Admitted);
        assert_eq!(details.cluster_queue.as_deref(), Some("cq"));
        assert_eq!(sentences, [""; 0], "{name}");
    }
}

#[test]
fn an_admission_check_that_is_not_ready_is_told() {
    let mut checked = recorded()["admitted"].clone();
    checked["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .truncate(2);
    checked["status"]["admissionChecks"] = json!([
        {"name": "licence", "state": "Ready", "message": ""},
        {"name": "new-nodes", "state": "Pending", "message": "waits for 4 nodes."},
    ]);
    let mut queueing = queueing("admitted");
    queueing.workload = Some(serde_json::from_value(checked).unwrap());
    let (_, sentences) = explained(true, queueing);
    assert_eq!(
        sentences,
        [
            "Kueue has reserved quota for the job, which waits for the admission check new-nodes: \
             waits for 4 nodes."
        ]
    );
}

#[test]
fn a_queue_that_does_not_exist_or_is_stopped_is_told() {
    let mut missing = queueing("missing_queue");
    missing.queue = LocalQueues::Missing {
        known: vec!["one".to_string(), "two".to_string()],
    };
    let (_, sentences) = explained(true, missing);
    assert_eq!(
        sentences,
        [
            "The queue research does not exist in the namespace default (it has one, two), so the \
             job waits until the operator creates it."
        ]
    );
    let mut stopped = queueing("stopped_queue");
    let queue = recorded()["local_queue_stopped"].clone();
    stopped.queue = LocalQueues::Found(serde_json::from_value(queue).unwrap());
    let (_, sentences) = explained(true, stopped);
    assert_eq!(
        sentences[1],
        "The queue research admits no jobs now: LocalQueue is stopped."
    );
}

#[test]
fn a_job_that_kueue_does_not_manage_is_told() {
    let mut unmanaged = queueing("admitted");
    unmanaged.workload = None;
    let (details, sentences) = explained(false, unmanaged.clone());
    assert_eq!(details.state, QueueState::Unmanaged);
    let expected = "The job names the queue research, but Kueue does not manage this kind of job";
    assert!(sentences[0].starts_with(expected), "{sentences:?}");
    // A job that was created a moment ago.
    let (details, sentences) = explained(true, unmanaged);
    assert_eq!(details.state, QueueState::Waiting);
    assert!(
        sentences[0].contains("has not picked it up yet"),
        "{sentences:?}"
    );
    let (_, sentences) = explain(&job(false, json!({})), &QueueReading::NotInstalled).unwrap();
    assert!(
        sentences[0].contains("the cluster has no Kueue"),
        "{sentences:?}"
    );
}

#[test]
fn a_list_tells_jobs_that_wait_from_jobs_that_a_user_has_suspended() {
    assert_eq!(waits_in(&job(true, json!({}))), Some("research"));
    assert_eq!(waits_in(&job(false, json!({}))), None);
    assert_eq!(waits_in(&job(true, json!({HELD_ANNOTATION: "true"}))), None);
    let mut ended = job(true, json!({}));
    ended.status = serde_json::from_value(json!({
        "conditions": [{"type": "Succeeded", "status": "True"}],
    }))
    .unwrap();
    assert_eq!(waits_in(&ended), None);
    assert_eq!(
        explain(&ended, &QueueReading::NotInstalled).unwrap().1,
        [""; 0]
    );
}
