//! What the service adds to the creation of a job, against the same API server in one run.

use std::time::{Duration, Instant};

use e2e::Server;
use e2e::control_plane::Part;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{Deployed, request};

/// Others on the machine make everything half as slow again, for seconds at a time: the round that was
/// the quickest in all is the one that counts. To go by one of the two alone would favour it.
const ROUNDS: usize = 10;
const PAIRS: usize = 100;

for_both_kinds! { the_service_adds_at_most_a_millisecond_to_a_creation }

/// One client of each, made alike: what is compared is the way and nothing else. Every other creation
/// goes through the service, so that both meet the same machine, and each comes right after a dry run
/// by the same way, so that neither pays for caches that the other has used. The operator is gone: it
/// would begin with a job on the same two cores while its answer is on the way.
fn the_service_adds_at_most_a_millisecond_to_a_creation(kind: JobKind) {
    let service = Deployed::start_alone(kind, "speed").unwrap();
    match kind {
        JobKind::PyTorchJob => {
            let webhooks = ["delete", "validatingwebhookconfigurations", "--all"];
            service.plane.kubectl(&webhooks).unwrap();
        }
        JobKind::TrainJob => kinds::stop_trainer(service.plane),
    }
    service.plane.kill(Part::Operator).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // With the service's own token: the API server lets its administrator by without a queue.
    let bare_client = runtime.block_on(service.client()).unwrap();
    let address = format!("http://{}", service.server.address);
    let through_client = runtime
        .block_on(async { Client::try_from(kube::Config::new(address.parse().unwrap())).unwrap() });
    let nothing = json!({});
    let preview = service
        .server
        .post("/train/preview", &request("run", &nothing));
    let mut manifest = preview.unwrap().1["manifest"].clone();
    let (api, jobs, namespace) = (kind.api_version(), kind.plural(), &service.namespace);
    let jobs = format!("/apis/{api}/namespaces/{namespace}/{jobs}?fieldValidation=Strict");
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let (mut through, mut bare) = (Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            let run = request(&format!("through-{round}-{pair}"), &nothing);
            let timed = async {
                let dry_run = "/train/preview?dry_run=server";
                post(&through_client, dry_run, &run, 200).await;
                post(&through_client, "/train", &run, 201).await
            };
            through.push(runtime.block_on(timed));
            manifest["metadata"]["name"] = json!(format!("bare-{round}-{pair}"));
            let timed = async {
                let dry_run = format!("{jobs}&dryRun=All");
                post(&bare_client, &dry_run, &manifest, 201).await;
                post(&bare_client, &jobs, &manifest, 201).await
            };
            bare.push(runtime.block_on(timed));
        }
        let (bare, through) = (median(bare), median(through));
        println!("round {round}: {bare:?} bare, {through:?} through the service");
        rounds.push((bare, through));
    }
    let quietest = rounds
        .into_iter()
        .min_by_key(|(bare, through)| *bare + *through);
    let (bare, through) = quietest.unwrap();
    let added = through.saturating_sub(bare);
    println!("inside the service: {:?}", inside(&service.server));
    println!("a creation takes {bare:?} bare and {through:?} through the service: {added:?} more");
    assert!(added <= Duration::from_millis(1), "{added:?}");
}

/// The time that a creation and its dry run spend in the service and not in its calls.
fn inside(server: &Server) -> Duration {
    let seconds = |measure: &str, labels: &str| {
        let of = |part| {
            server
                .measured(&format!("{measure}_{part}{{{labels}}}"))
                .unwrap()
        };
        of("sum") / of("count")
    };
    let http = "trainer_http_request_duration_seconds";
    let dry_run = seconds(http, r#"route="/train/preview",method="POST""#);
    let creation = seconds(http, r#"route="/train",method="POST""#);
    let call = seconds(
        "trainer_kubernetes_request_duration_seconds",
        r#"method="POST""#,
    );
    Duration::from_secs_f64((dry_run + creation) / 2.0 - call)
}

/// How long it takes until the whole answer is there.
async fn post(client: &Client, path: &str, body: &Value, wanted: u16) -> Duration {
    let body = Body::from(body.to_string().into_bytes());
    let request = hyper::Request::post(path).header("content-type", "application/json");
    let request = request.body(body).unwrap();
    let begun = Instant::now();
    let answer = client.send(request).await.unwrap();
    let status = answer.status();
    answer.into_body().collect_bytes().await.unwrap();
    let time = begun.elapsed();
    assert_eq!(status, wanted);
    time
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
