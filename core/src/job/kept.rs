//! The metrics of a run as an annotation of its job, so that they outlive the pods and their logs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Evaluation, Metrics, ObservedJob, Point, Recorder};
use crate::keys::METRICS_ANNOTATION;

/// The maximum length of the annotation's value in bytes. All annotations of an object together may
/// have 256 KiB, and every watch of the job receives them.
const MAX_BYTES: usize = 8 * 1024;
/// The maximum number of points that are tried. Fewer fit.
pub const MAX_KEPT_POINTS: usize = 400;

/// The rows of both series. A time is in nanoseconds after `start`.
#[derive(Serialize, Deserialize)]
struct Table {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<Timestamp>,
    points: Vec<PointRow>,
    evaluations: Vec<EvaluationRow>,
}

/// Step, time, loss, tokens per second, learning rate and norm of the gradients.
type PointRow = (
    u64,
    Option<i64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
);

/// Step, time and loss.
type EvaluationRow = (u64, Option<i64>, Option<f64>);

/// The annotation that keeps the metrics of a run, downsampled until they fit into 8 KiB. The first
/// and the last point are always exact. Returns `None` if the run has reported nothing.
pub fn metrics_annotation(metrics: &Metrics) -> Option<(String, String)> {
    if metrics.is_empty() {
        return None;
    }
    let fewer = |points: &usize| Some(points * 9 / 10).filter(|points| *points > 0);
    let mut texts = std::iter::successors(Some(MAX_KEPT_POINTS), fewer).map(|points| {
        let mut recorder = Recorder::new(points);
        recorder.add(metrics.clone());
        crate::json::to_string(&Table::of(&recorder.take()))
    });
    let text = texts.find(|text| text.len() <= MAX_BYTES)?;
    Some((METRICS_ANNOTATION.to_string(), text))
}

/// The metrics that a job keeps; empty if there are none, or another program wrote the annotation.
pub fn kept_metrics(job: &ObservedJob) -> Metrics {
    let kept = job.annotation(METRICS_ANNOTATION);
    let table: Option<Table> = kept.and_then(|text| serde_json::from_str(text).ok());
    table.map(Metrics::from).unwrap_or_default()
}

impl Table {
    fn of(metrics: &Metrics) -> Self {
        let times = metrics.points.iter().map(|point| point.time);
        let times = times.chain(metrics.evaluations.iter().map(|of| of.time));
        let start = times.flatten().min();
        let after = |time: Option<Timestamp>| {
            let after = time?.duration_since(start?).as_nanos();
            i64::try_from(after).ok()
        };
        let point = |of: &Point| {
            (
                of.step,
                after(of.time),
                of.loss,
                of.tokens_per_second,
                of.learning_rate,
                of.grad_norm,
            )
        };
        let evaluation = |of: &Evaluation| (of.step, after(of.time), of.eval_loss);
        Self {
            start,
            points: metrics.points.iter().map(point).collect(),
            evaluations: metrics.evaluations.iter().map(evaluation).collect(),
        }
    }
}

impl From<Table> for Metrics {
    fn from(table: Table) -> Self {
        let time = |after: Option<i64>| {
            let after = jiff::SignedDuration::from_nanos(after?);
            table.start?.checked_add(after).ok()
        };
        let point = |(step, after, loss, tokens_per_second, learning_rate, grad_norm)| Point {
            step,
            time: time(after),
            loss,
            tokens_per_second,
            learning_rate,
            grad_norm,
        };
        let evaluation = |(step, after, eval_loss)| Evaluation {
            step,
            time: time(after),
            eval_loss,
        };
        Self {
            points: table.points.into_iter().map(point).collect(),
            evaluations: table.evaluations.into_iter().map(evaluation).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn restored(metrics: &Metrics) -> Metrics {
        let (key, text) = metrics_annotation(metrics).unwrap();
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        kept_metrics(&annotated(&key, &text))
    }

    fn annotated(key: &str, text: &str) -> ObservedJob {
        let job = serde_json::json!({"metadata": {"annotations": {key: text}}});
        serde_json::from_value(job).unwrap()
    }

    fn point(step: u64, loss: Option<f64>, nanoseconds: i64) -> Point {
        let start: Timestamp = "2026-01-31T12:00:00.123456789Z".parse().unwrap();
        Point {
            step,
            time: Some(start + jiff::SignedDuration::from_nanos(nanoseconds)),
            loss,
            tokens_per_second: Some(1_234.567_890_123),
            learning_rate: Some(1e-5 / 3.0),
            grad_norm: Some(2.0 / 3.0),
        }
    }

    #[test]
    fn a_short_run_is_kept_whole() {
        let metrics = Metrics {
            points: vec![point(1, Some(2.5), 0), point(2, None, 1)],
            evaluations: vec![Evaluation {
                step: 2,
                time: None,
                eval_loss: Some(1.5),
            }],
        };
        assert_eq!(restored(&metrics), metrics);
    }

    #[test]
    fn a_run_without_metrics_is_not_kept() {
        assert_eq!(metrics_annotation(&Metrics::default()), None);
    }

    #[test]
    fn an_annotation_of_another_program_is_ignored() {
        let job = annotated(METRICS_ANNOTATION, "[1, 2");
        assert_eq!(kept_metrics(&job), Metrics::default());
    }

    #[test]
    fn a_long_run_uses_most_of_the_space() {
        let loss = |step: u64| Some((step as f64).sin() / 3.0);
        let points = (1..=100_000).map(|step| point(step, loss(step), step as i64 * 1_000_000));
        let points: Vec<Point> = points.collect();
        let evaluations = Vec::new();
        let kept = restored(&Metrics {
            points,
            evaluations,
        });
        assert!(kept.points.len() >= 50, "{}", kept.points.len());
    }

    proptest! {
        #[test]
        fn the_ends_and_the_extremes_of_any_run_are_kept(
            losses in prop::collection::vec(prop::option::of(any::<f64>().prop_filter("finite", |x| x.is_finite())), 1..600),
            gap in 1_i64..1_000_000_000_000,
        ) {
            let points = losses.iter().zip(1..);
            let points = points.map(|(loss, step)| point(step, *loss, step as i64 * gap));
            let points: Vec<Point> = points.collect();
            let kept = restored(&Metrics { points: points.clone(), evaluations: Vec::new() });
            prop_assert_eq!(kept.points.first(), points.first());
            prop_assert_eq!(kept.points.last(), points.last());
            prop_assert!(kept.points.iter().all(|kept| points.contains(kept)));
            let lowest = |points: &[Point]| points.iter().filter_map(|of| of.loss).reduce(f64::min);
            let highest = |points: &[Point]| points.iter().filter_map(|of| of.loss).reduce(f64::max);
            prop_assert_eq!(lowest(&kept.points), lowest(&points));
            prop_assert_eq!(highest(&kept.points), highest(&points));
        }
    }
}
