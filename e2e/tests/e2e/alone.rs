//! Runs whose replicas notice when they are not alone, for tests that kill the service and its shims.

use e2e::Site;
use serde_json::{Value, json};

/// A site whose torchrun is a script that holds the lock of its replica, with what it starts, and
/// notes where somebody else holds it. The rest of the script follows.
pub fn site(rest: &str, slots: u32) -> Site {
    let locked = r#"#!/bin/sh
exec 9>"$RUN_ID-$RANK.lock"
flock --nonblock 9 || { echo "$RUN_ID-$RANK" >> twice; exit 1; }
"#;
    let site = Site::with_launcher(&format!("{locked}{rest}")).unwrap();
    site.set("TRAINER_LOCAL_SLOTS", &slots.to_string())
}

/// A run of one node, or of two where its number is odd.
pub fn request(number: u64) -> Value {
    json!({
        "framework": "meta",
        "model_id": "x",
        "run_id": format!("run-{number}"),
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "num_nodes": 1 + number % 2,
    })
}

/// The name of a run's job.
pub fn job(number: u64) -> String {
    format!("meta-run-{number}")
}

/// Makes sure that no replica ran beside itself.
pub fn check(site: &Site) {
    let twice = std::fs::read_to_string(site.data.path().join("twice")).unwrap_or_default();
    assert!(twice.is_empty(), "ran twice at once: {twice}");
}
