//! The local cluster through the service: what its replicas are given, and what is left of them.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::processes::{eventually, kill, only, processes_of, replicas, shim};
use crate::service::{Service, request};

fn log(data: &Path, pod: &str, number: u32) -> String {
    let job = pod
        .rsplit_once("-master")
        .or(pod.rsplit_once("-worker"))
        .unwrap()
        .0;
    let file = data.join(format!("jobs/default/{job}/{pod}/{number}.log"));
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

#[tokio::test]
async fn each_node_gets_the_operators_variables_and_its_rank_in_the_command() {
    let service = Service::start().await;
    let mut request = request("succeed", "two");
    request["num_nodes"] = json!(2);
    request["gpus_per_node"] = json!(2);
    request["env"] = json!({"PRICE": "$(RANK) $5"});
    assert_eq!(service.submit(&request).await.status, 201);
    service.wait_for("meta-two", "succeeded").await;
    let data = service.stop().await;
    let master = log(data.path(), "meta-two-master-0", 0);
    let worker = log(data.path(), "meta-two-worker-0", 0);
    for (log, rank) in [(&master, 0), (&worker, 1)] {
        for line in [
            format!("RANK={rank}"),
            format!("PET_NODE_RANK={rank}"),
            "MASTER_ADDR=127.0.0.1".to_string(),
            "WORLD_SIZE=4".to_string(),
            "PET_NNODES=2".to_string(),
            "PET_NPROC_PER_NODE=2".to_string(),
            "PRICE=$(RANK) $5".to_string(),
            "RUN_ID=two".to_string(),
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT=110".to_string(),
        ] {
            assert!(log.lines().any(|l| l == line), "{line} is not in {log}");
        }
        assert!(log.contains(&format!("--nproc_per_node=2 --nnodes=2 --node_rank={rank}")));
    }
    let port = |log: &str| {
        let line = log.lines().find(|line| line.starts_with("MASTER_PORT="));
        line.unwrap().to_string()
    };
    assert_eq!(port(&master), port(&worker));
    assert!(!master.contains("--master_port=$("));
}

#[tokio::test]
async fn a_dataset_or_model_that_this_machine_does_not_have_is_refused_at_once() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").display().to_string();
    for (field, value) in [
        ("dataset_uri", format!("file://{missing}/")),
        ("dataset_uri", format!("file://{missing}.jsonl")),
        ("model_id", missing.clone()),
    ] {
        let mut request = request("succeed", "absent");
        request[field] = json!(value);
        let problem = service.submit(&request).await.problem(400);
        let error = &problem["errors"][0];
        assert_eq!(error["code"], "no-such-file");
        assert_eq!(error["pointer"], format!("/{field}"));
        let detail = error["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(&format!("{field}: {value} does not exist on this machine")),
            "{detail}"
        );
    }
    let mut there = request("succeed", "present");
    there["dataset_uri"] = json!(format!("file://{}/", folder.path().display()));
    assert_eq!(service.submit(&there).await.status, 201);
}

#[tokio::test]
async fn a_failing_replica_is_restarted_up_to_the_backoff_limit_and_each_log_is_kept() {
    let service = Service::start().await;
    service.create(&request("fail", "bad")).await;
    service.wait_for("meta-bad", "failed").await;
    let data = service.stop().await;
    for number in 0..3 {
        assert!(log(data.path(), "meta-bad-master-0", number).contains("exitcode"));
    }
    assert!(
        !data
            .path()
            .join("jobs/default/meta-bad/meta-bad-master-0/3.log")
            .exists()
    );
}

#[tokio::test]
async fn a_replica_that_is_killed_by_a_signal_fails_with_128_and_its_number() {
    let service = Service::start().await;
    service.create(&request("crash", "segv")).await;
    let status = service.wait_for("meta-segv", "failed").await;
    assert!(
        status["detail"]
            .as_str()
            .unwrap()
            .contains("exited with code 139"),
        "{status}"
    );
    service.stop().await;
}

#[tokio::test]
async fn jobs_wait_their_turn_and_start_in_order() {
    let service = Service::start().await;
    let mut wide = request("wait", "wide");
    wide["gpus_per_node"] = json!(4);
    service.create(&wide).await;
    service.wait_for("meta-wide", "running").await;
    service.create(&request("succeed", "next")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let waiting = service.get("/train/meta-next").await.json();
    assert_eq!(waiting["detail"], "PyTorchJob submitted");
    service.stop().await;
}

#[tokio::test]
async fn a_keeper_that_is_killed_leaves_nothing_beside_the_next_start() {
    let service = Service::start().await;
    service.create(&request("wait", "orphan")).await;
    service.wait_for("meta-orphan", "running").await;
    let first = eventually(async || only(&replicas(&service))).await;
    kill(shim(first));
    let second = eventually(async || only(&replicas(&service)).filter(|pid| *pid != first)).await;
    assert_ne!(second, first);
    service.stop().await;
}

#[tokio::test]
async fn nothing_of_a_replica_is_left_when_the_service_stops() {
    let service = Service::start().await;
    service.create(&request("nest", "nest")).await;
    service.wait_for("meta-nest", "running").await;
    let data = service.data.path().display().to_string();
    eventually(async || (processes_of(&data).len() == 2).then_some(())).await;
    service.stop().await;
    assert!(processes_of(&data).is_empty());
}

#[tokio::test]
async fn the_services_own_settings_never_reach_a_replica() {
    let service = Service::start().await;
    service.create(&request("succeed", "clean")).await;
    service.wait_for("meta-clean", "succeeded").await;
    let data = service.stop().await;
    let log = log(data.path(), "meta-clean-master-0", 0);
    assert!(!log.contains("TRAINER_API_TOKEN"));
}

#[tokio::test]
async fn a_replica_knows_its_job_and_what_made_it_and_a_plan_does_not() {
    let service = Service::start().await;
    let request = request("succeed", "made");
    let preview = service.preview(&request).await.text;
    service.create(&request).await;
    service.wait_for("meta-made", "succeeded").await;
    let job = service.get("/train/meta-made?view=full").await.json();
    let manifest = service.get("/train/meta-made/manifest").await.json();
    let data = service.stop().await;
    let log = log(data.path(), "meta-made-master-0", 0);
    let variable = |name: &str| {
        assert!(!preview.contains(name), "{preview}");
        let mut lines = log.lines().filter_map(|line| line.split_once('='));
        let line = lines.find(|(variable, _)| *variable == name);
        line.unwrap_or_else(|| panic!("{name} is not in {log}")).1
    };
    assert_eq!(variable("TRAINER_JOB_UID"), manifest["metadata"]["uid"]);
    let spec = &manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"];
    assert_eq!(variable("TRAINER_IMAGE"), spec["containers"][0]["image"]);
    let plugin = &job["plugin"];
    assert_eq!(variable("TRAINER_PLUGIN_NAME"), plugin["name"]);
    assert_eq!(variable("TRAINER_PLUGIN_VERSION"), plugin["version"]);
    let digest = format!("sha256:{}", variable("TRAINER_PLUGIN_SHA256"));
    assert_eq!(plugin["digest"], digest);
}
