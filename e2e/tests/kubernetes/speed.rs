//! What the service adds to the creation of a job, against the same API server in one run.

use std::time::{Duration, Instant};

use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::service::{Deployed, request};

const PAIRS: usize = 100;
/// How long the operator and the scheduler have for a job before the next one is measured.
const REST: Duration = Duration::from_millis(200);

/// Every other creation goes through the service, so that both meet the same machine.
#[test]
fn the_service_adds_at_most_a_millisecond_to_a_creation() {
    let service = Deployed::start("speed").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(service.plane.client()).unwrap();
    // Nothing runs: the pods of so many jobs would be what is measured.
    let fate = json!({"fake.test/start-after": "1h"});
    let (_, preview) = service
        .server
        .post("/train/preview", &request("run", &fate))
        .unwrap();
    let (mut through, mut bare) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let run = request(&format!("through-{pair}"), &fate);
        let begun = Instant::now();
        let (status, body) = service.server.post("/train", &run).unwrap();
        through.push(begun.elapsed());
        assert_eq!(status, 201, "{body}");
        std::thread::sleep(REST);
        let mut manifest = preview["manifest"].clone();
        manifest["metadata"]["name"] = json!(format!("bare-{pair}"));
        bare.push(runtime.block_on(create(&client, &manifest)));
        std::thread::sleep(REST);
    }
    let (through, bare) = (median(through), median(bare));
    let added = through.saturating_sub(bare);
    println!("a creation takes {bare:?} bare and {through:?} through the service: {added:?} more");
    assert!(added <= Duration::from_millis(1), "{added:?}");
}

async fn create(client: &Client, manifest: &Value) -> Duration {
    let body = manifest.to_string().into_bytes();
    let path = "/apis/kubeflow.org/v1/namespaces/speed/pytorchjobs?fieldValidation=Strict";
    let request = hyper::Request::post(path).header("content-type", "application/json");
    let request = request.body(Body::from(body)).unwrap();
    let begun = Instant::now();
    let answer = client.send(request).await.unwrap();
    let status = answer.status();
    answer.into_body().collect_bytes().await.unwrap();
    let time = begun.elapsed();
    assert_eq!(status, 201);
    time
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
