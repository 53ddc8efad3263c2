//! Ten thousand jobs: reads are quick, cost the API server nothing, and the cache of them is small.

use std::time::{Duration, Instant};

use e2e::control_plane::{ControlPlane, Overlay};
use e2e::{Server, Site};
use futures_util::{StreamExt, TryStreamExt, stream};
use kube::client::Body;
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;

const JOBS: usize = 10_000;
const READS: usize = 5_000;

for_both_kinds! { ten_thousand_jobs_are_read_from_the_cache }

fn ten_thousand_jobs_are_read_from_the_cache(kind: JobKind) {
    let plane = ControlPlane::start().unwrap();
    let deployment = kinds::install(&plane, kind, Overlay::OneNamespace, "crowded").unwrap();
    let site = Site::on_kubernetes(&deployment.kubeconfig, "crowded").unwrap();
    let site = kinds::creates(site, kind);
    if kind == JobKind::TrainJob {
        // It would make a JobSet of each job.
        kinds::stop_trainer(&plane);
    }
    // Its plugins are compiled by now, as those of a service that runs are.
    let server = site.start().unwrap();
    server.wait_until_ready().unwrap();
    let manifest = manifest(&server, kind);
    drop(server);
    fill(&plane, kind, &manifest);

    let begun = Instant::now();
    let server = site.start().unwrap();
    server.wait_until_ready().unwrap();
    let ready = begun.elapsed();

    let calls = calls_for_jobs(&plane, kind);
    let mut times: Vec<Duration> = (0..READS).map(|number| read(&server, number)).collect();
    times.sort();
    let p99 = times[READS * 99 / 100];
    let memory = server.resident_memory().unwrap() / 1_000_000;
    assert_eq!(
        calls_for_jobs(&plane, kind),
        calls,
        "reads reached the API server"
    );
    println!(
        "{JOBS} {}s: ready in {ready:?}, p99 of a read {p99:?}, {memory} MB resident",
        kind.name()
    );
    assert!(p99 <= Duration::from_millis(5), "{p99:?}");
    assert!(memory <= 200, "{memory} MB");
    assert!(ready <= Duration::from_secs(5), "{ready:?}");
}

fn read(server: &Server, number: usize) -> Duration {
    // A stride that meets every part of the cache.
    let name = name(number * 7919 % JOBS);
    let begun = Instant::now();
    let (status, body) = server.get(&format!("/train/{name}")).unwrap();
    let time = begun.elapsed();
    assert_eq!((status, &body["name"]), (200, &json!(name)));
    time
}

fn name(number: usize) -> String {
    format!("meta-crowd-{number}")
}

/// A manifest as the service makes it, with replicas that are not to be started.
fn manifest(server: &Server, kind: JobKind) -> Value {
    let request = crate::service::request("crowd", &json!({}));
    let (_, preview) = server.post("/train/preview", &request).unwrap();
    let mut manifest = preview["manifest"].clone();
    match kind {
        JobKind::PyTorchJob => manifest["spec"]["runPolicy"]["suspend"] = json!(true),
        JobKind::TrainJob => manifest["spec"]["suspend"] = json!(true),
    }
    manifest
}

fn fill(plane: &ControlPlane, kind: JobKind, manifest: &Value) {
    let (api, jobs) = (kind.api_version(), kind.plural());
    let path = &format!("/apis/{api}/namespaces/crowded/{jobs}");
    let create = async {
        let client = plane.client().await?;
        stream::iter(0..JOBS)
            .map(|number| {
                let mut manifest = manifest.clone();
                manifest["metadata"]["name"] = json!(name(number));
                let client = client.clone();
                async move {
                    let request = hyper::Request::post(path.as_str())
                        .header("content-type", "application/json")
                        .body(Body::from(manifest.to_string().into_bytes()))?;
                    let status = client.send(request).await?.status();
                    anyhow::ensure!(status == 201, "{status}");
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(16)
            .try_collect::<Vec<()>>()
            .await
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(create).unwrap();
}

/// The number of requests for jobs to the API server, except open watches.
fn calls_for_jobs(plane: &ControlPlane, kind: JobKind) -> u64 {
    let of_kind = format!("resource=\"{}\"", kind.plural());
    let metrics = plane.kubectl(&["get", "--raw", "/metrics"]).unwrap();
    let asked = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains(&of_kind)
            && (line.contains("verb=\"GET\"") || line.contains("verb=\"LIST\""))
    });
    let counts = asked.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    counts.sum::<f64>() as u64
}
