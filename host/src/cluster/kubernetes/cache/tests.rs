use super::*;
use crate::cluster::{FeedPosition, News};
use crate::job::JobState;
use serde_json::{Value, json};

fn job(namespace: &str, name: &str, suspend: bool) -> Arc<ObservedJob> {
    let job = json!({
        "metadata": {"name": name, "namespace": namespace, "uid": name},
        "spec": {"runPolicy": {"suspend": suspend}},
    });
    Arc::new(serde_json::from_value(job).unwrap())
}

fn listed(jobs: &[Arc<ObservedJob>]) -> BTreeMap<Key, Arc<ObservedJob>> {
    jobs.iter().map(|job| (key(job), job.clone())).collect()
}

fn news(cache: &Cache, since: &FeedPosition) -> Vec<String> {
    let changes = cache.feed().after(since).unwrap();
    let news = changes.iter().map(|change| match &change.news {
        News::Status(update) => format!("{} is there", update.job.summary.name),
        News::Progress(progress) => format!("{} advances", progress.name),
        News::Deleted(job) => format!("{} is gone", job.name),
    });
    news.collect()
}

#[test]
fn the_feed_has_what_differs_between_two_lists_of_a_scope() {
    let [scope, b] = ["a", "b"].map(|namespace| Watch {
        scope: Some(namespace.to_string()),
        kind: JobKind::PyTorchJob,
    });
    let cache = Cache::of(&[scope.clone(), b.clone()]);
    let other = job("b", "other", false);
    cache.replace(&b, listed(&[other]));
    let begin = cache.feed().end();
    let (one, two) = (job("a", "one", false), job("a", "two", false));
    cache.replace(&scope, listed(&[one, two.clone()]));
    assert_eq!(news(&cache, &begin), ["one is there", "two is there"]);
    let begin = cache.feed().end();
    cache.replace(&scope, listed(&[two.clone(), job("a", "new", true)]));
    assert_eq!(news(&cache, &begin), ["new is there", "one is gone"]);
    let begin = cache.feed().end();
    cache.forget(&two);
    assert_eq!(news(&cache, &begin), ["two is gone"]);
    assert_eq!(cache.after(None, usize::MAX).len(), 2);
}

fn train_job(status: &Value) -> ObservedJob {
    let job = json!({
        "kind": "TrainJob",
        "metadata": {
            "name": "run", "namespace": "a", "uid": "u",
            "annotations": {"trainer.deepfinery/submission": "s"},
        },
        "spec": {"trainer": {"numNodes": 2}},
        "status": status,
    });
    serde_json::from_value(job).unwrap()
}

fn state(cache: &Cache) -> JobState {
    JobState::of(&cache.get("a", "run").unwrap())
}

#[test]
fn a_train_job_runs_when_the_watch_of_pods_tells_that_its_master_does() {
    let of = Controller::of(&train_job(&json!({})));
    let waits = json!({"jobsStatus": [{"name": "node", "active": 1, "ready": 0}]});
    let cache = Cache::default();
    cache.store(train_job(&waits));
    assert_eq!(state(&cache), JobState::Submitted);
    cache.note_master(&of, MasterPod::Running(None));
    assert_eq!(state(&cache), JobState::Running);
    // Later reports of the API server about the job do not show it.
    cache.store(train_job(&waits));
    assert_eq!(state(&cache), JobState::Running);
    cache.note_master(&of, MasterPod::NotRunning);
    cache.store(train_job(&waits));
    assert_eq!(state(&cache), JobState::Submitted);
}

#[test]
fn the_pod_of_an_earlier_train_job_of_the_same_name_tells_nothing() {
    let cache = Cache::default();
    cache.store(train_job(&json!({})));
    let mut of = Controller::of(&train_job(&json!({})));
    of.id = "another".to_string();
    cache.note_master(&of, MasterPod::Running(None));
    assert_eq!(state(&cache), JobState::Submitted);
}

/// A copy of a job has its annotations, and so have its pods. Jobs of other programs have none.
#[test]
fn the_pods_of_a_copy_of_a_train_job_tell_nothing_of_it() {
    for id in ["s", ""] {
        let cache = Cache::default();
        let mut original = train_job(&json!({}));
        let annotations = original.metadata.annotations.as_mut().unwrap();
        annotations.insert(SUBMISSION_ANNOTATION.to_string(), id.to_string());
        let mut copy = Controller::of(&original);
        copy.name = "copy".to_string();
        cache.store(original.clone());
        cache.note_master(&copy, MasterPod::Running(None));
        let failed = crate::job::PodDetails {
            exit_code: Some(7),
            ..PodDetails::default()
        };
        cache.add_failure(&copy, failed);
        cache.store(original);
        assert_eq!(state(&cache), JobState::Submitted);
        let known = cache.get("a", "run").unwrap();
        assert_eq!(crate::job::failures(&known).len(), 0);
    }
}

#[test]
fn the_end_of_a_train_job_is_not_taken_back() {
    let cache = Cache::default();
    let failed = json!({"conditions": [{"type": "Failed", "status": "True"}]});
    cache.store(train_job(&failed));
    cache.store(train_job(&json!({"conditions": []})));
    assert_eq!(state(&cache), JobState::Failed);
}

#[test]
fn jobs_of_both_kinds_with_one_name_are_apart() {
    let cache = Cache::default();
    let pytorch_job = job("a", "run", false);
    cache.store((*pytorch_job).clone());
    cache.store(train_job(&json!({})));
    assert_eq!(cache.named("run").len(), 2);
    cache.forget(&pytorch_job);
    assert_eq!(cache.get("a", "run").unwrap().kind, JobKind::TrainJob);
}
