//! What an operator sees of a service: metrics and traces.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use e2e::{Server, Site, root};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use trainer_host::measure;

const LAUNCHER: &str = "#!/bin/sh\nexit 0\n";

fn request(site: &Site, run_id: &str) -> Value {
    e2e::training(site.data.path(), run_id, 1).unwrap()
}

/// The lines of `/metrics`.
fn metrics(server: &Server) -> Vec<String> {
    let (status, text) = server.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let text = text.as_str().unwrap();
    text.lines().map(str::to_string).collect()
}

#[test]
fn what_happened_is_what_is_measured() {
    let site = Site::with_launcher(LAUNCHER).unwrap();
    let server = site.start().unwrap();
    let name = server.submit(&request(&site, "one")).unwrap();
    server.wait_for(&name, "succeeded").unwrap();
    assert_eq!(
        server.post("/train", &request(&site, "one")).unwrap().0,
        400
    );
    let mut unknown = request(&site, "two");
    unknown["framework"] = "made-up".into();
    assert_eq!(server.post("/train", &unknown).unwrap().0, 400);
    let mut wrong = request(&site, "three");
    wrong["extra_args"] = json!({"lr": -1});
    assert_eq!(server.post("/train", &wrong).unwrap().0, 400);
    assert_eq!(server.get("/no/such/route").unwrap().0, 404);
    let measured = metrics(&server);
    for line in [
        r#"trainer_submissions_total{framework="meta",outcome="accepted"} 1"#,
        r#"trainer_submissions_total{framework="meta",outcome="refused"} 2"#,
        r#"trainer_submissions_total{framework="other",outcome="refused"} 1"#,
        r#"trainer_http_requests_total{route="/train",method="POST",code="201"} 1"#,
        r#"trainer_http_requests_total{route="/train",method="POST",code="400"} 3"#,
        r#"trainer_http_requests_total{route="none",method="GET",code="404"} 1"#,
        r#"trainer_http_request_duration_seconds_count{route="/train",method="POST"} 4"#,
        r#"trainer_plugin_call_duration_seconds_count{plugin="meta",outcome="planned"} 2"#,
        r#"trainer_plugin_call_duration_seconds_count{plugin="meta",outcome="refused"} 1"#,
        r#"trainer_jobs{status="succeeded"} 1"#,
        r#"trainer_jobs{status="running"} 0"#,
        "trainer_plugins_served 3",
        "# HELP trainer_submissions_total Requests to create a job, by outcome: accepted, refused \
         (invalid request), busy or failed",
    ] {
        assert!(
            measured.iter().any(|measured| measured == line),
            "{line} is not in\n{}",
            measured.join("\n")
        );
    }
    // What callers make up must never become a label.
    for made_up in ["made-up", "one", "/no/such/route"] {
        let labels = format!("=\"{made_up}\"");
        assert!(!measured.iter().any(|line| line.contains(&labels)));
    }
}

/// A collector of traces, and the spans that it was sent.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    pub(crate) spans: Receiver<Span>,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (sender, spans) = channel();
        let collect = move |body: Bytes| collect(sender.clone(), body);
        let router = Router::new().route("/v1/traces", post(collect));
        let bind = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(bind).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            endpoint,
            spans,
            _runtime: runtime,
        }
    }

    /// The next span of a name.
    fn span(&self, name: &str) -> Span {
        loop {
            let span = self.spans.recv_timeout(Duration::from_secs(30));
            let span = span.unwrap_or_else(|_| panic!("no span {name} within 30 s"));
            if span.name == name {
                return span;
            }
        }
    }
}

async fn collect(sender: Sender<Span>, body: Bytes) {
    let sent = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in sent.resource_spans {
        for scope in resource.scope_spans {
            for span in scope.spans {
                let _ = sender.send(span);
            }
        }
    }
}

#[test]
fn a_request_and_its_plugin_call_are_spans_of_the_senders_trace() {
    let collector = Collector::start();
    let site = Site::with_launcher(LAUNCHER)
        .unwrap()
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .set("OTEL_BSP_SCHEDULE_DELAY", "200")
        // Traces are whole whatever the log leaves out.
        .set("TRAINER_LOG", "error");
    let server = site.start().unwrap();
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let traced = server.post_with_header(
        "/train/preview",
        ("traceparent", &format!("00-{trace}-{parent}-01")),
        &request(&site, "traced"),
    );
    assert_eq!(traced.unwrap().0, 200);
    // Inner spans end first.
    let plugin = collector.span("plugin");
    let request = collector.span("POST /train/preview");
    assert_eq!(hex(&request.trace_id), trace);
    assert_eq!(hex(&request.parent_span_id), parent);
    assert_eq!(request.kind, 2, "a server's");
    assert_eq!(plugin.trace_id, request.trace_id);
    assert_eq!(plugin.parent_span_id, request.span_id);
    let attribute = |span: &Span, key: &str| {
        let mut attributes = span.attributes.iter();
        let found = attributes.find(|attribute| attribute.key == key);
        found.map(|found| format!("{:?}", found.value))
    };
    let status = attribute(&request, "http.response.status_code").unwrap();
    assert!(status.contains("200"), "{status}");
    let route = attribute(&request, "http.route").unwrap();
    assert!(route.contains("/train/preview"), "{route}");
    assert!(attribute(&plugin, "name").unwrap().contains("meta"));
}

#[test]
fn a_collector_that_is_away_delays_nothing() {
    let nobody = format!("http://{}", e2e::free_address().unwrap());
    let site = Site::with_launcher(LAUNCHER)
        .unwrap()
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &nobody);
    let server = site.start().unwrap();
    let name = server.submit(&request(&site, "untraced")).unwrap();
    server.wait_for(&name, "succeeded").unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_operators_page_lists_what_is_measured() {
    let page = std::fs::read_to_string(root().join("docs/operator.md")).unwrap();
    for measure in measure::ALL {
        let labels: Vec<String> = measure.labels.iter().map(|l| format!("`{l}`")).collect();
        let row = format!(
            "| `{}` | {} | {} |",
            measure.name,
            labels.join(", "),
            measure.meaning
        );
        assert!(page.contains(&row), "{row}");
    }
}
