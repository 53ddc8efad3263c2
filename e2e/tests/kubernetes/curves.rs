//! The metrics of jobs whose pods are gone.

use std::fs::OpenOptions;
use std::io::Write;

use jiff::Timestamp;
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{Deployed, eventually, request};

for_both_kinds! { the_metrics_of_a_job_outlive_its_pods }

/// The steps of the run, more than an annotation can hold.
const STEPS: u64 = 5000;
const ANNOTATION: &str = "trainer.deepfinery/metrics";

fn the_metrics_of_a_job_outlive_its_pods(kind: JobKind) {
    // Every container has the same log, which other tests write too.
    let service = Deployed::start_alone(kind, "curves").unwrap();
    let last = write_log(&service);
    let submit = |run_id: &str, fate: &Value| {
        let name = service.server.submit(&request(run_id, fate)).unwrap();
        service.server.wait_for(&name, "running").unwrap();
        name
    };
    let held = submit("held", &json!({"fake.test/run-for": "1h"}));
    let suspend = format!("/train/{held}/suspend");
    assert_eq!(service.server.post(&suspend, &json!(null)).unwrap().0, 200);
    let done = submit("done", &json!({"fake.test/run-for": "1s"}));
    let fate = json!({"fake.test/run-for": "1s", "fake.test/exit-code": "7"});
    let failed = submit("failed", &fate);
    service.server.wait_for(&done, "succeeded").unwrap();
    service.server.wait_for(&failed, "failed").unwrap();
    for name in [&held, &done, &failed] {
        eventually(|| kept(&service, name));
        let pods = kinds::pods_of(kind, name);
        let delete = ["delete", "pods", "--namespace", &service.namespace];
        let selector = ["--selector", &pods, "--force", "--ignore-not-found"];
        service
            .plane
            .kubectl(&[&delete[..], &selector].concat())
            .unwrap();
        let logs = format!("/train/{name}/logs");
        eventually(|| match service.server.get(&logs).unwrap() {
            (404, _) => Ok(()),
            (status, log) => Err(format!("{status}: {log}")),
        });
        let path = format!("/train/{name}/metrics");
        let (status, metrics) = service.server.get(&path).unwrap();
        assert_eq!(status, 200, "{metrics}");
        let points = metrics["points"].as_array().unwrap();
        assert_eq!(points[0]["step"], 1, "{name}");
        assert_eq!(*points.last().unwrap(), last, "{name}");
        let lowest = |point: &Value| point["loss"] == 0.001;
        assert!(points.iter().any(lowest), "{name}: {metrics}");
        if name != &held {
            let follow = format!("{path}?follow=true&points=4");
            let (_, events) = service.server.get(&follow).unwrap();
            let events = events.as_str().unwrap();
            assert!(events.contains("event: metrics"), "{name}: {events}");
        }
    }
}

/// What the job has kept, if it is complete and small enough.
fn kept(service: &Deployed, name: &str) -> Result<(), String> {
    let (_, manifest) = service
        .server
        .get(&format!("/train/{name}/manifest"))
        .unwrap();
    let kept = &manifest["metadata"]["annotations"][ANNOTATION];
    match kept.as_str() {
        Some(text) if text.len() <= 8192 => Ok(()),
        _ => Err(format!("{name} keeps {kept}")),
    }
}

/// Writes progress lines into the log of every container, and returns the last as a point.
fn write_log(service: &Deployed) -> Value {
    let file = service.plane.logs.join("current.log");
    let mut log = OpenOptions::new().append(true).open(file).unwrap();
    let mut last = Value::Null;
    for step in 1..=STEPS {
        let time = Timestamp::now();
        let loss = if step == 3001 {
            0.001
        } else {
            5.0 / step as f64 + 1.0
        };
        let line = json!({
            "event": "progress", "step": step, "total_steps": STEPS, "loss": loss,
            "tokens_per_second": 1234.5, "seconds_left": 1.0,
        });
        writeln!(log, "{time:.9} stdout F {line}").unwrap();
        last = json!({"step": step, "time": time, "loss": loss, "tokens_per_second": 1234.5});
    }
    last
}
