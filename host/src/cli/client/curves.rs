//! `trainer metrics` and `trainer compare`: curves of runs, and how runs differ.

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::{Map, Value};

use super::arguments::{CompareArguments, Metric, MetricsArguments, MetricsOutput, Output};
use super::chart::{Curve, chart, number};
use super::failure::Failure;
use super::live::Display;
use super::lookup;
use super::output;
use super::server::Server;
use crate::keys::RESOLVED_ARGS_ANNOTATION;

/// The width of a chart in a pipe.
const COLUMNS: usize = 80;

/// Draws a curve, or prints the metrics for scripts.
///
/// # Errors
///
/// If the service cannot be reached, or has no such job.
pub fn metrics(arguments: &MetricsArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let namespace = arguments.namespace.as_deref();
    let call = server
        .job(&arguments.job, Some("metrics"), namespace)
        .query("points", arguments.points);
    let failed = |failure| lookup::suggest(&server, &arguments.job, failure);
    let format = match arguments.output {
        Some(MetricsOutput::Csv) => {
            let mut table = call.header("accept", "text/csv").send().map_err(failed)?;
            let mut table = table.body_mut().as_reader();
            std::io::copy(&mut table, &mut std::io::stdout())?;
            return Ok(());
        }
        Some(MetricsOutput::Json) => Some(Output::Json),
        Some(MetricsOutput::Yaml) => Some(Output::Yaml),
        None => None,
    };
    let metrics: Value = call.read().map_err(failed)?;
    match format {
        Some(format) => output::print(&metrics, &[], format),
        None => draw(
            arguments.metric,
            &[curve(&arguments.job, &metrics, arguments.metric)],
        ),
    }
}

/// Prints the differences between jobs, and draws their curves over each other.
///
/// # Errors
///
/// If the service cannot be reached, or one of the jobs does not exist.
pub fn compare(arguments: &CompareArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let namespace = arguments.namespace.as_deref();
    let runs = arguments.jobs.iter().map(|job| {
        Run::read(&server, job, namespace).map_err(|failure| lookup::suggest(&server, job, failure))
    });
    let runs = runs.collect::<Result<Vec<Run>, Failure>>()?;
    output::print_text(&differences(&runs))?;
    output::line("")?;
    let curves = runs
        .iter()
        .map(|run| curve(&run.job, &run.metrics, arguments.metric));
    draw(arguments.metric, &curves.collect::<Vec<_>>())
}

/// What is compared of a run.
struct Run {
    job: String,
    status: String,
    metrics: Value,
    /// By dotted name, as in a request.
    configuration: Map<String, Value>,
}

impl Run {
    fn read(server: &Server, job: &str, namespace: Option<&str>) -> Result<Self, Failure> {
        let details: Value = server
            .job(job, None, namespace)
            .query("view", Some("full"))
            .read()?;
        let manifest: Value = server.job(job, Some("manifest"), namespace).read()?;
        Ok(Self {
            job: job.to_string(),
            status: output::word(&details["status"]),
            metrics: server.job(job, Some("metrics"), namespace).read()?,
            configuration: configuration(&details, &manifest),
        })
    }

    fn last(&self, metric: &str) -> String {
        let points = self.metrics["points"].as_array();
        let last = points.and_then(|points| points.last());
        let value = last.and_then(|point| point[metric].as_f64());
        value.map(number).unwrap_or_default()
    }
}

/// The fields of the request that made a job, as far as the job has them.
fn configuration(details: &Value, manifest: &Value) -> Map<String, Value> {
    let replica = "/spec/pytorchReplicaSpecs/Master/template/spec/containers/0";
    let first = |pointers: &[String]| {
        let mut found = pointers.iter().filter_map(|at| manifest.pointer(at));
        found.next().cloned().unwrap_or_default()
    };
    let desired = details["replicas"].as_object().into_iter().flatten();
    let nodes: u64 = desired
        .filter_map(|(_, counts)| counts["desired"].as_u64())
        .sum();
    let mut fields = Map::new();
    for name in ["framework", "model_id", "dataset_uri"] {
        fields.insert(name.to_string(), details[name].clone());
    }
    fields.insert("plugin".to_string(), details["plugin"]["version"].clone());
    fields.insert("num_nodes".to_string(), nodes.into());
    let image = [
        format!("{replica}/image"),
        "/spec/trainer/image".to_string(),
    ];
    fields.insert("image".to_string(), first(&image));
    let resources = [
        format!("{replica}/resources/limits"),
        "/spec/trainer/resourcesPerNode/limits".to_string(),
    ];
    flatten("resources", &first(&resources), &mut fields);
    let arguments = manifest["metadata"]["annotations"][RESOLVED_ARGS_ANNOTATION].as_str();
    let arguments = arguments.and_then(|text| serde_json::from_str(text).ok());
    flatten("extra_args", &arguments.unwrap_or_default(), &mut fields);
    fields
}

/// Adds the leaves of a value under dotted names.
fn flatten(name: &str, value: &Value, fields: &mut Map<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(members) => members
            .iter()
            .for_each(|(member, value)| flatten(&format!("{name}.{member}"), value, fields)),
        value => {
            fields.insert(name.to_string(), value.clone());
        }
    }
}

/// A table of what differs, below the state of each run.
fn differences(runs: &[Run]) -> String {
    let header = runs.iter().map(|run| run.job.as_str());
    let header: Vec<&str> = std::iter::once("").chain(header).collect();
    let mut table = output::table(&header);
    let mut row = |name: &str, value: &dyn Fn(&Run) -> String| {
        let values = runs.iter().map(value);
        table.add_row(std::iter::once(name.to_string()).chain(values));
    };
    row("status", &|run| run.status.clone());
    row("last loss", &|run| run.last("loss"));
    row("tokens/s", &|run| run.last("tokens_per_second"));
    let names: BTreeSet<&String> = runs
        .iter()
        .flat_map(|run| run.configuration.keys())
        .collect();
    for name in names {
        let values: BTreeSet<String> = runs.iter().map(|run| field(run, name)).collect();
        if values.len() > 1 {
            row(name, &|run| field(run, name));
        }
    }
    output::lines(&table)
}

fn field(run: &Run, name: &str) -> String {
    match run.configuration.get(name) {
        None | Some(Value::Null) => "-".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// The curve of one metric. Values that are not numbers are left out.
fn curve(job: &str, metrics: &Value, metric: Metric) -> Curve {
    let series = metrics[metric.series()].as_array().into_iter().flatten();
    let samples = series.filter_map(|sample| {
        let value = sample[metric.name()]
            .as_f64()
            .filter(|value| value.is_finite());
        Some((sample["step"].as_u64()?, value?))
    });
    Curve {
        run: job.to_string(),
        samples: samples.collect(),
    }
}

fn draw(metric: Metric, curves: &[Curve]) -> Result<(), Failure> {
    let columns = Display::of(&std::io::stdout()).columns();
    match chart(metric.name(), curves, columns.unwrap_or(COLUMNS)) {
        Some(chart) => output::print_text(&chart),
        None => {
            let runs: Vec<&str> = curves.iter().map(|curve| curve.run.as_str()).collect();
            let runs = runs.join(", ");
            Ok(writeln!(
                std::io::stderr(),
                "no values of {} yet: {runs}",
                metric.name()
            )?)
        }
    }
}
