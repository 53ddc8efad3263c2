//! The alerts and the dashboard: PromQL that asks for what the service measures.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use promql_parser::label::Matchers;
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What is measured, with its labels: the table of the operator's page, which a test of the service
/// compares with what it measures.
fn measured() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string(root().join("docs/operator.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `trainer_"));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1);
        let mut unquoted = || cells.next().unwrap().trim().replace('`', "");
        let (name, labels) = (unquoted(), unquoted());
        let labels = labels.split(", ").map(str::to_string).collect();
        (name, labels)
    })
    .collect()
}

/// The expressions of the alerts and of the dashboard.
fn expressions() -> Vec<String> {
    let monitoring = root().join("deploy/components/monitoring");
    let alerts = std::fs::read_to_string(monitoring.join("alerts.yaml")).unwrap();
    let alerts: Value = serde_saphyr::from_str(&alerts).unwrap();
    let dashboard = std::fs::read_to_string(monitoring.join("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut found = Vec::new();
    for rule in alerts["spec"]["groups"][0]["rules"].as_array().unwrap() {
        found.push(rule["expr"].as_str().unwrap().to_string());
    }
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            // Grafana's own.
            found.push(expression.replace("$__rate_interval", "5m"));
        }
    }
    found
}

/// What an expression asks Prometheus for.
#[derive(Default)]
struct Asked {
    measures: BTreeSet<String>,
    labels: BTreeSet<String>,
}

impl Asked {
    fn selector(&mut self, selector: &VectorSelector) {
        let name = selector.name.clone().unwrap();
        self.measures
            .insert(name.trim_end_matches("_bucket").to_string());
        let Matchers { matchers, .. } = &selector.matchers;
        self.labels.extend(matchers.iter().map(|m| m.name.clone()));
    }
}

impl ExprVisitor for Asked {
    type Error = ();

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, ()> {
        match expression {
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs),
            Expr::Aggregate(aggregate) => {
                if let Some(LabelModifier::Include(by)) = &aggregate.modifier {
                    self.labels.extend(by.labels.iter().cloned());
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

#[test]
fn alerts_and_dashboard_ask_for_what_is_measured() {
    let measured = measured();
    let (mut shown, mut count) = (BTreeSet::new(), 0);
    for expression in expressions() {
        let parsed = parser::parse(&expression).unwrap_or_else(|e| panic!("{e}: {expression}"));
        let mut asked = Asked::default();
        walk_expr(&mut asked, &parsed).unwrap();
        for measure in &asked.measures {
            let labels = measured.get(measure);
            let labels = labels.unwrap_or_else(|| panic!("{measure}: {expression}"));
            for label in &asked.labels {
                // The two that Prometheus adds: the bound of a bucket, and whom it asked.
                let is_added = ["le", "pod"].contains(&label.as_str());
                assert!(is_added || labels.contains(label), "{label}: {expression}");
            }
        }
        shown.extend(asked.measures);
        count += 1;
    }
    assert!(count >= 20, "{count}");
    let all: BTreeSet<String> = measured.into_keys().collect();
    assert_eq!(shown, all, "each of them is shown");
}
