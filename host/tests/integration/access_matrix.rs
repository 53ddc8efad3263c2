//! Each operation by each role, on its own and on other runs and namespaces: a table that is
//! generated from real requests and committed. `UPDATE_ACCESS_MATRIX=1` writes it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use axum::http::Method;
use serde_json::Value;
use tower::ServiceExt;
use trainer_host::access_rules::{OPERATIONS, Reach};
use trainer_host::http::openapi::operations;
use trainer_host::request::RequestPolicy;

use crate::access::{ask, submit, teams, waiting};
use crate::service::Service;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/access-matrix.md");
const CALLERS: [(&str, &str); 4] = [
    ("viewer", "vera"),
    ("submitter", "alice"),
    ("operator", "olga"),
    ("admin", "adam"),
];
/// Owner and namespace of the run that an operation is tried on.
const RUNS: [(&str, Option<&str>, &str); 3] = [
    ("own run", None, "team-a"),
    ("run of another", Some("alex"), "team-a"),
    ("other namespace", Some("bob"), "team-b"),
];

#[test]
fn each_operation_of_the_api_has_a_row_and_each_row_an_operation() {
    let known: BTreeSet<&str> = operations::OPERATIONS
        .iter()
        .map(|known| known.id)
        .collect();
    let rows: BTreeSet<&str> = OPERATIONS.iter().map(|(id, _)| *id).collect();
    assert_eq!(known, rows);
    assert_eq!(rows.len(), OPERATIONS.len());
}

#[tokio::test]
async fn the_committed_table_of_operations_and_roles_is_what_the_service_does() {
    let service = Service::with_access(&teams(), RequestPolicy::default()).await;
    let mut table = String::from(
        "# Operations and roles\n\nGenerated from requests to a service: what each role may do with \
         its own runs, runs of others in its\nnamespaces, and runs in other namespaces. Admins have \
         all namespaces. An operation that concerns no run\nhas one cell.\n\n| operation | role |",
    );
    for (column, ..) in RUNS {
        write!(table, " {column} |").unwrap();
    }
    table.push_str("\n| --- | --- | --- | --- | --- |\n");
    let mut number = 0;
    for (id, reach) in OPERATIONS {
        for (role, caller) in CALLERS {
            write!(table, "| {id} | {role} |").unwrap();
            for run in RUNS {
                number += 1;
                let cell = match reach {
                    Reach::Namespace(_) | Reach::OwnJob => {
                        tried(&service, id, caller, run, number).await
                    }
                    _ if run == RUNS[0] => outcome(&service, id, caller, "none", "team-a").await,
                    _ => String::new(),
                };
                write!(table, " {cell} |").unwrap();
            }
            table.push('\n');
        }
    }
    service.stop().await;
    if std::env::var_os("UPDATE_ACCESS_MATRIX").is_some() {
        std::fs::write(FILE, &table).unwrap();
    }
    let committed = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        committed == table,
        "docs/access-matrix.md is not current:\n{table}"
    );
}

/// The outcome of an operation on a new run.
async fn tried(
    service: &Service,
    id: &str,
    caller: &str,
    (_, owner, namespace): (&str, Option<&str>, &str),
    number: u32,
) -> String {
    let run = format!("run-{number}");
    let owner = owner.unwrap_or(caller);
    let creates = matches!(id, "createJob" | "previewJob");
    if creates && namespace == "team-a" && owner != caller {
        return String::new();
    }
    if !creates
        && submit(service, owner, &waiting(&run, namespace))
            .await
            .status
            != 201
    {
        return "has none".to_string();
    }
    outcome(service, id, caller, &run, namespace).await
}

async fn outcome(service: &Service, id: &str, caller: &str, run: &str, namespace: &str) -> String {
    let operation = operations::OPERATIONS
        .iter()
        .find(|known| known.id == id)
        .unwrap();
    let mut path = operation.path.replace("{job_name}", &format!("meta-{run}"));
    path = path.replace("{name}", "meta");
    if operation.query("namespace").is_some() {
        path = format!("{path}?namespace={namespace}");
    }
    let method = Method::from_bytes(operation.method.to_ascii_uppercase().as_bytes()).unwrap();
    let body: Option<Value> =
        matches!(id, "createJob" | "previewJob").then(|| waiting(run, namespace));
    let request = ask(caller, method, &path, body.as_ref());
    // Streams of events have no end, so only the status is read.
    let status = service
        .router
        .clone()
        .oneshot(request)
        .await
        .unwrap()
        .status();
    let meanings = BTreeMap::from([(401, "refused"), (403, "refused")]);
    meanings
        .get(&status.as_u16())
        .unwrap_or(&"allowed")
        .to_string()
}
