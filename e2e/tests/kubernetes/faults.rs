//! Faults of the network and of the API server: each one causes the right response, nothing is created
//! twice, and the service recovers without a restart.

use std::time::Duration;

use anyhow::Result;
use e2e::control_plane::{ControlPlane, Overlay, Part};
use e2e::fault_proxy::{Call, Fault, FaultProxy, Refusal};
use e2e::{Server, Site};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{eventually, request, with_compiled_plugins};

/// A service whose calls pass through a proxy that breaks them.
struct Broken {
    proxy: FaultProxy,
    server: Server,
    kind: JobKind,
    namespace: String,
    _site: Site,
}

impl Broken {
    fn start(plane: &ControlPlane, kind: JobKind, name: &str) -> Result<Self> {
        let namespace = kinds::namespace(kind, name);
        let deployment = kinds::install(plane, kind, Overlay::OneNamespace, &namespace)?;
        let proxy = FaultProxy::start(&deployment.kubeconfig)?;
        let site = Site::on_kubernetes(&proxy.kubeconfig(), &namespace)?;
        let site = with_compiled_plugins(kinds::creates(site, kind));
        let server = site.start()?;
        server.wait_until_ready()?;
        Ok(Self {
            proxy,
            server,
            kind,
            namespace,
            _site: site,
        })
    }

    /// Submits a job whose pods run until they are deleted.
    fn submit(&self, run_id: &str) -> Answer {
        let run = request(run_id, &json!({"fake.test/run-for": "1h"}));
        let sent = ureq::post(format!("http://{}/train", self.server.address))
            .config()
            .http_status_as_error(false)
            .build()
            .send_json(&run);
        let mut answer = sent.unwrap();
        let retry_after = answer.headers().get("retry-after");
        Answer {
            status: answer.status().as_u16(),
            may_try_again: retry_after.is_some(),
            body: answer.body_mut().read_json().unwrap(),
        }
    }

    fn status_of(&self, run_id: &str) -> (u16, Value) {
        self.server.get(&format!("/train/meta-{run_id}")).unwrap()
    }

    /// How often the service has asked for a job to be created.
    fn creations(&self) -> usize {
        let calls = self.proxy.calls();
        calls.iter().filter(|call| call.creates_job()).count()
    }

    /// The names of the jobs that there are.
    fn jobs(&self, plane: &ControlPlane) -> Vec<String> {
        kinds::jobs(plane, self.kind, &self.namespace)
    }
}

struct Answer {
    status: u16,
    /// Whether `Retry-After` says when to try again.
    may_try_again: bool,
    body: Value,
}

impl Answer {
    fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }
}

fn refusal(code: u16, reason: &'static str, message: &str) -> Fault {
    Fault::Answer(Refusal {
        code,
        reason,
        message: message.to_string(),
        retry_after: (code == 429).then_some(1),
    })
}

for_both_kinds! {
    what_the_api_server_answers_to_a_creation_becomes_the_answer_of_the_table
    an_api_server_that_is_busy_for_a_moment_is_asked_again
    a_creation_whose_answer_is_lost_or_cut_was_made_once
    a_slow_api_server_is_waited_for_and_one_that_is_too_slow_is_a_504
    while_connections_are_refused_reads_go_on_and_afterwards_writes_do
    the_age_of_the_watch_and_the_failed_calls_tell_that_the_api_server_is_away
    a_watch_that_is_dropped_or_has_expired_is_taken_up_again
    without_a_watch_a_new_job_has_its_current_status_and_keeps_its_prefix
    a_service_that_starts_before_its_api_server_gets_ready_with_it
    an_api_server_that_is_killed_and_restarted_loses_nothing
}

fn what_the_api_server_answers_to_a_creation_becomes_the_answer_of_the_table(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let broken = Broken::start(plane, kind, "faults-answers").unwrap();
    let quota = "pytorchjobs is forbidden: exceeded quota: team, requested: count=1";
    let webhook = "admission webhook denied the request: spec.x: Forbidden: must be 1";
    for (code, reason, message, status, may_try_again, reported) in [
        (403, "Forbidden", quota, 400, false, "exceeded quota: team"),
        (
            409,
            "AlreadyExists",
            "it exists",
            400,
            false,
            "already exists",
        ),
        (
            422,
            "Invalid",
            webhook,
            400,
            false,
            "spec.x: Forbidden: must be 1",
        ),
        (429, "TooManyRequests", "slow down", 503, true, "too busy"),
        (500, "InternalError", "etcd: secret words", 500, false, ""),
        (
            503,
            "ServiceUnavailable",
            "not now",
            503,
            true,
            "cannot be reached",
        ),
    ] {
        let run_id = format!("code-{code}");
        broken.proxy.inject(
            Call::creates_job,
            usize::MAX,
            refusal(code, reason, message),
        );
        let answer = broken.submit(&run_id);
        broken.proxy.heal();
        assert_eq!(answer.status, status, "{code}: {}", answer.body);
        assert_eq!(
            answer.may_try_again, may_try_again,
            "{code}: {}",
            answer.body
        );
        assert!(
            answer.detail().contains(reported),
            "{code}: {}",
            answer.body
        );
        assert!(
            !answer.body.to_string().contains("secret words"),
            "{}",
            answer.body
        );
        assert_eq!(broken.jobs(plane), Vec::<String>::new(), "{code}");
    }
    assert_eq!(broken.submit("healed").status, 201);
}

fn an_api_server_that_is_busy_for_a_moment_is_asked_again(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let broken = Broken::start(plane, kind, "faults-busy").unwrap();
    broken.proxy.inject(
        Call::creates_job,
        1,
        refusal(429, "TooManyRequests", "slow down"),
    );
    assert_eq!(broken.submit("patient").status, 201);
    assert_eq!(broken.jobs(plane), ["meta-patient"]);
}

fn a_creation_whose_answer_is_lost_or_cut_was_made_once(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let broken = Broken::start(plane, kind, "faults-lost").unwrap();
    for (run_id, fault) in [("lost", Fault::LoseAnswer), ("cut", Fault::Cut)] {
        let before = broken.creations();
        broken.proxy.inject(Call::creates_job, 1, fault);
        let answer = broken.submit(run_id);
        assert_eq!(answer.status, 201, "{run_id}: {}", answer.body);
        assert_eq!(answer.body["name"], format!("meta-{run_id}"));
        assert_eq!(broken.creations() - before, 1, "{run_id}");
    }
    assert_eq!(broken.jobs(plane), ["meta-cut", "meta-lost"]);
    // Its own job is known again by more than its name: one that somebody else made is a conflict.
    broken.proxy.inject(Call::creates_job, 1, Fault::LoseAnswer);
    let taken = broken.submit("lost");
    assert_eq!(taken.status, 400, "{}", taken.body);
    assert!(taken.detail().contains("already exists"), "{}", taken.body);
}

fn a_slow_api_server_is_waited_for_and_one_that_is_too_slow_is_a_504(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let broken = Broken::start(plane, kind, "faults-slow").unwrap();
    broken
        .proxy
        .inject(Call::creates_job, 1, Fault::Slow(Duration::from_secs(2)));
    assert_eq!(broken.submit("slow").status, 201);
    broken
        .proxy
        .inject(Call::creates_job, 1, Fault::Slow(Duration::from_secs(25)));
    let late = broken.submit("too-slow");
    assert_eq!(late.status, 504, "{}", late.body);
    assert_eq!(broken.jobs(plane), ["meta-slow"]);
    assert_eq!(broken.submit("healed").status, 201);
}

fn while_connections_are_refused_reads_go_on_and_afterwards_writes_do(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let broken = Broken::start(plane, kind, "faults-refused").unwrap();
    assert_eq!(broken.submit("before").status, 201);
    eventually_is(&broken, "before", "running");
    broken.proxy.refuse();
    let refused = broken.submit("during");
    assert_eq!(
        (refused.status, refused.may_try_again),
        (503, true),
        "{}",
        refused.body
    );
    let (status, known) = broken.status_of("before");
    assert_eq!((status, &known["status"]), (200, &json!("running")));
    assert_eq!(broken.status_of("unknown").0, 503);
    assert_eq!(broken.server.get("/readyz").unwrap().0, 503);
    assert_eq!(broken.server.get("/livez").unwrap().0, 200);
    broken.proxy.accept().unwrap();
    assert_eq!(broken.submit("after").status, 201);
    eventually_is(&broken, "after", "running");
    assert_eq!(broken.jobs(plane), ["meta-after", "meta-before"]);
}

fn the_age_of_the_watch_and_the_failed_calls_tell_that_the_api_server_is_away(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let broken = Broken::start(plane, kind, "faults-measured").unwrap();
    broken.proxy.refuse();
    broken.proxy.drop_watches();
    assert_eq!(broken.submit("during").status, 503);
    // A connection that was open may be found closed only by the call.
    let failed = ["unreachable", "cut-off"].map(|outcome| {
        let labels = format!("method=\"POST\",outcome=\"{outcome}\"");
        let series = format!("trainer_kubernetes_requests_total{{{labels}}}");
        broken.server.measured(&series).unwrap()
    });
    assert!(failed.iter().sum::<f64>() >= 1.0, "{failed:?}");
    let age = format!("trainer_watch_age_seconds{{scope={:?}}}", broken.namespace);
    let old = eventually(|| match broken.server.measured(&age).unwrap() {
        old if old > 3.0 => Ok(old),
        young => Err(format!("{age} is {young}")),
    });
    broken.proxy.accept().unwrap();
    eventually(|| match broken.server.measured(&age).unwrap() {
        young if young < old => Ok(()),
        old => Err(format!("{age} is {old}")),
    });
    let running = broken.server.measured(r#"trainer_jobs{status="running"}"#);
    assert!(running.unwrap() == 0.0);
}

fn a_watch_that_is_dropped_or_has_expired_is_taken_up_again(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let broken = Broken::start(plane, kind, "faults-watch").unwrap();
    for (run_id, expired) in [("dropped", false), ("expired", true)] {
        assert_eq!(broken.submit(run_id).status, 201);
        eventually_is(&broken, run_id, "running");
        if expired {
            let gone = refusal(410, "Expired", "too old resource version");
            let jobs = format!("/{}", kind.plural());
            let watches_jobs = move |call: &Call| call.watches() && call.path.ends_with(&jobs);
            broken.proxy.inject(watches_jobs, 1, gone);
        }
        broken.proxy.drop_watches();
        let job = format!("meta-{run_id}");
        let own = ["--namespace", &broken.namespace];
        // Its master succeeds. Only a watch that has recovered can report it.
        let ended = json!({"status": {"phase": "Succeeded", "containerStatuses": []}}).to_string();
        let pod = kinds::master(plane, kind, &broken.namespace, &job);
        let patch = [
            "patch",
            "pod",
            &pod,
            "--subresource=status",
            "--type=merge",
            "--patch",
            &ended,
        ];
        plane.kubectl(&[&patch[..], &own].concat()).unwrap();
        eventually_is(&broken, run_id, "succeeded");
    }
}

fn without_a_watch_a_new_job_has_its_current_status_and_keeps_its_prefix(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let broken = Broken::start(plane, kind, "faults-no-watch").unwrap();
    let down = refusal(503, "ServiceUnavailable", "not now");
    broken.proxy.inject(Call::watches, usize::MAX, down);
    broken.proxy.drop_watches();
    assert_eq!(broken.submit("new").status, 201);
    eventually_is(&broken, "new", "running");
    let mut second = request("new", &json!({}));
    second["job_name"] = json!("second");
    let (status, refused) = broken.server.post("/train", &second).unwrap();
    assert_eq!(status, 400, "{refused}");
    assert_eq!(refused["type"], "urn:trainer:problem:prefix-taken");
    // Only the API server knows of a deletion by somebody else.
    let delete = ["delete", kind.plural(), "meta-new", "--wait=true"];
    let own = ["--namespace", &broken.namespace];
    plane.kubectl(&[&delete[..], &own].concat()).unwrap();
    assert_eq!(broken.server.post("/train", &second).unwrap().0, 201);
}

fn a_service_that_starts_before_its_api_server_gets_ready_with_it(kind: JobKind) {
    let plane = ControlPlane::shared().unwrap();
    let namespace = kinds::namespace(kind, "faults-start");
    let deployment = kinds::install(plane, kind, Overlay::OneNamespace, &namespace).unwrap();
    let proxy = FaultProxy::start(&deployment.kubeconfig).unwrap();
    proxy.refuse();
    let site = Site::on_kubernetes(&proxy.kubeconfig(), &namespace).unwrap();
    let site = with_compiled_plugins(kinds::creates(site, kind));
    let server = site.start().unwrap();
    assert_eq!(server.get("/readyz").unwrap().0, 503);
    proxy.accept().unwrap();
    server.wait_until_ready().unwrap();
}

fn an_api_server_that_is_killed_and_restarted_loses_nothing(kind: JobKind) {
    let plane = ControlPlane::start().unwrap();
    let broken = Broken::start(&plane, kind, "faults-killed").unwrap();
    assert_eq!(broken.submit("before").status, 201);
    eventually_is(&broken, "before", "running");
    plane.kill(Part::ApiServer).unwrap();
    let refused = broken.submit("during");
    assert_eq!(
        (refused.status, refused.may_try_again),
        (503, true),
        "{}",
        refused.body
    );
    assert_eq!(broken.status_of("before").1["status"], "running");
    plane.start_again(Part::ApiServer).unwrap();
    broken.server.wait_until_ready().unwrap();
    assert_eq!(broken.submit("after").status, 201);
    eventually_is(&broken, "after", "running");
    assert_eq!(broken.jobs(&plane), ["meta-after", "meta-before"]);
}

fn eventually_is(broken: &Broken, run_id: &str, status: &str) {
    eventually(|| match broken.status_of(run_id) {
        (200, summary) if summary["status"] == status => Ok(()),
        (code, body) => Err(format!("{code}: {body}")),
    });
}
