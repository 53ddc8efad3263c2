//! Creations and a hundred thousand jobs with an API server that answers at once: warnings, the processor
//! time of a creation, and the time of reads.

use std::time::{Duration, Instant};

use e2e::stand_in::{Jobs, StandIn, name_of};
use e2e::{Server, Site};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{request, with_compiled_plugins};

for_both_kinds! {
    several_nodes_without_queue_and_gang_cause_a_warning
    #[ignore = "`make bench-kubernetes` runs it"]
    a_creation_takes_at_most_200_microseconds_of_processor_time
    #[ignore = "`make bench-kubernetes` runs it"]
    a_hundred_thousand_jobs_are_ready_soon_and_listed_quickly
}

/// The `Warning` headers of a submission to a service that decides by itself which kind to create.
fn warnings(kind: JobKind, profiles: &str, run: &Value) -> Vec<String> {
    let stand_in = StandIn::start(kind, no_jobs()).unwrap();
    let site = Site::on_kubernetes(&stand_in.kubeconfig(), "default").unwrap();
    let file = site.data.path().join("profiles.yaml");
    std::fs::write(&file, profiles).unwrap();
    let site = with_compiled_plugins(site).set("TRAINER_PROFILES", &file.display().to_string());
    let server = site.start().unwrap();
    server.wait_until_ready().unwrap();
    let sent = ureq::post(format!("http://{}/train", server.address)).send_json(run);
    let answer = sent.unwrap();
    let headers = answer.headers().get_all("warning").iter();
    headers
        .map(|header| header.to_str().unwrap().to_string())
        .collect()
}

#[test]
fn a_profile_that_a_train_job_cannot_follow_causes_a_warning() {
    let profiles = "{profiles: {short: {ttl_seconds_after_finished: 60}}, default: short}";
    let run = request("kept", &json!({}));
    assert_eq!(warnings(JobKind::PyTorchJob, profiles, &run), [""; 0]);
    let warnings = warnings(JobKind::TrainJob, profiles, &run);
    assert!(
        warnings[0].contains("ttl_seconds_after_finished"),
        "{warnings:?}"
    );
}

fn several_nodes_without_queue_and_gang_cause_a_warning(kind: JobKind) {
    let mut run = request("nodes", &json!({}));
    run["num_nodes"] = json!(4);
    let none = warnings(kind, "{profiles: {}}", &run);
    assert!(none[0].contains("Nothing starts the 4 pods"), "{none:?}");
    let gang = "{profiles: {gang: {scheduling_policy: {volcano: {}}}}, default: gang}";
    assert_eq!(warnings(kind, gang, &run), [""; 0]);
}

const CLIENTS: usize = 4;
const WARM_UP: usize = 200;
const CREATIONS: usize = 1500;

fn site(stand_in: &StandIn, kind: JobKind) -> Site {
    let site = Site::on_kubernetes(&stand_in.kubeconfig(), "default").unwrap();
    with_compiled_plugins(kinds::creates(site, kind))
}

fn no_jobs() -> Jobs {
    Jobs {
        count: 0,
        manifest: json!({"metadata": {}}),
    }
}

fn a_creation_takes_at_most_200_microseconds_of_processor_time(kind: JobKind) {
    let stand_in = StandIn::start(kind, no_jobs()).unwrap();
    let server = site(&stand_in, kind).start().unwrap();
    server.wait_until_ready().unwrap();
    let create = |client: usize, round: &str, count: usize| {
        for number in 0..count {
            let run = request(&format!("{round}-{client}-{number}"), &json!({}));
            let (status, body) = server.post("/train", &run).unwrap();
            assert_eq!(status, 201, "{body}");
        }
    };
    let create_all = |round: &str, count: usize| {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || create(client, round, count));
            }
        });
    };
    create_all("warm", WARM_UP);
    let (before, begun) = (server.processor_time().unwrap(), Instant::now());
    create_all("run", CREATIONS);
    let took = begun.elapsed();
    let all = u32::try_from(CLIENTS * CREATIONS).unwrap();
    let each = (server.processor_time().unwrap() - before) / all;
    let rate = f64::from(all) / took.as_secs_f64();
    println!(
        "{}: {each:?} of processor time per creation, {rate:.0} per second",
        kind.name()
    );
    assert!(each <= Duration::from_micros(200), "{each:?}");
}

/// A manifest as the service makes it.
fn manifest(kind: JobKind) -> Value {
    let stand_in = StandIn::start(kind, no_jobs()).unwrap();
    let server = site(&stand_in, kind).start().unwrap();
    server.wait_until_ready().unwrap();
    let run = request("crowd", &json!({}));
    let (status, preview) = server.post("/train/preview", &run).unwrap();
    assert_eq!(status, 200, "{preview}");
    preview["manifest"].clone()
}

const JOBS: usize = 100_000;
const READS: usize = 1000;
const PAGES: usize = 101;

fn a_hundred_thousand_jobs_are_ready_soon_and_listed_quickly(kind: JobKind) {
    let jobs = Jobs {
        count: JOBS,
        manifest: manifest(kind),
    };
    let stand_in = StandIn::start(kind, jobs).unwrap();
    let site = site(&stand_in, kind);
    let begun = Instant::now();
    let server = site.start().unwrap();
    while server.get("/readyz").unwrap().0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    let ready = begun.elapsed();
    let pages = times(PAGES, |_| page(&server, "/train?page_size=100"));
    let only = "/train?page_size=100&status=submitted&framework=meta";
    let filtered = times(PAGES, |_| page(&server, only));
    let reads = times(READS, |number| {
        let name = name_of(number * 7919 % JOBS);
        let (status, body) = server.get(&format!("/train/{name}")).unwrap();
        assert_eq!((status, &body["name"]), (200, &json!(name)));
    });
    let memory = server.resident_memory().unwrap() / 1_000_000;
    let (page, filtered) = (pages[PAGES / 2], filtered[PAGES / 2]);
    let read = reads[READS * 99 / 100];
    println!(
        "{JOBS} {}s: ready in {ready:?}, a page of 100 in {page:?} (with filters {filtered:?}) at the \
         median, p99 of a read {read:?}, {memory} MB resident",
        kind.name()
    );
    assert!(ready <= Duration::from_secs(30), "{ready:?}");
    assert!(page <= Duration::from_millis(20), "{page:?}");
    assert!(filtered <= Duration::from_millis(20), "{filtered:?}");
    assert!(read <= Duration::from_millis(5), "{read:?}");
    assert!(memory <= 1000, "{memory} MB");
}

fn page(server: &Server, path: &str) {
    let (status, list) = server.get(path).unwrap();
    assert_eq!(status, 200, "{list}");
    assert_eq!(list["jobs"].as_array().unwrap().len(), 100);
}

/// The times of repeated actions, in order of length.
fn times(count: usize, act: impl Fn(usize)) -> Vec<Duration> {
    let time = |number| {
        let begun = Instant::now();
        act(number);
        begun.elapsed()
    };
    let mut times: Vec<Duration> = (0..count).map(time).collect();
    times.sort();
    times
}
