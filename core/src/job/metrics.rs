//! The metrics of a run over its steps, read from its log and downsampled while they are read.

mod series;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use series::{Sample, Series};

/// The maximum length of a parsed line in bytes; lines of the trainer have about 150.
const LONGEST_LINE: usize = 4096;

/// One training step as the log reported it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Point {
    /// The optimizer step, counted from 1.
    pub step: u64,
    /// When the line was written; absent if the log has no times.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub time: Option<Timestamp>,
    /// The training loss; `null` if it is not a number.
    pub loss: Option<f64>,
    /// Of all processes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// The norm of the gradients before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
}

/// One evaluation as the log reported it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Evaluation {
    /// The optimizer step after which the model was evaluated.
    pub step: u64,
    /// When the line was written; absent if the log has no times.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub time: Option<Timestamp>,
    /// The loss on the evaluation data; `null` if it is not a number.
    pub eval_loss: Option<f64>,
}

/// The metrics of a run: what `GET /train/{job_name}/metrics` returns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Metrics {
    /// In ascending order of steps. A longer run is downsampled to its first and last point and the
    /// extremes in between.
    pub points: Vec<Point>,
    pub evaluations: Vec<Evaluation>,
}

impl Metrics {
    /// Whether the run has reported nothing yet.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.evaluations.is_empty()
    }
}

/// A line of the log that reports a step or an evaluation. It is read in one pass into borrowed
/// members: a long run has a million lines.
#[derive(Deserialize)]
struct Line<'a> {
    event: &'a str,
    step: u64,
    /// The outer `Option` is whether the line has the member, which may be `null`.
    #[serde(default, deserialize_with = "present")]
    loss: Option<Option<f64>>,
    #[serde(default, deserialize_with = "present")]
    eval_loss: Option<Option<f64>>,
    tokens_per_second: Option<f64>,
    learning_rate: Option<f64>,
    grad_norm: Option<f64>,
}

fn present<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(member).map(Some)
}

/// Collects the metrics of a log in memory bounded by the number of points asked for.
#[derive(Debug)]
pub struct Recorder {
    points: Series<Point>,
    evaluations: Series<Evaluation>,
    times: Times,
}

impl Recorder {
    /// Creates a recorder that keeps at most `points` points and as many evaluations, but at least
    /// four of each.
    pub fn new(points: usize) -> Self {
        Self {
            points: Series::new(points),
            evaluations: Series::new(points),
            times: Times::default(),
        }
    }

    /// Adds what is known from elsewhere, before the lines that follow.
    pub fn add(&mut self, known: Metrics) {
        for point in known.points {
            self.points.push(point);
        }
        for evaluation in known.evaluations {
            self.evaluations.push(evaluation);
        }
    }

    /// Reads complete lines of a log, which may start with a time. Lines that are not metrics are
    /// skipped.
    pub fn read(&mut self, lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n') {
            self.read_line(line);
        }
    }

    fn read_line(&mut self, line: &[u8]) {
        let (time, line) = self.times.split(line);
        if line.len() > LONGEST_LINE || !line.starts_with(b"{") {
            return;
        }
        let Ok(line) = serde_json::from_slice::<Line>(line) else {
            return;
        };
        match (line.event, line.loss, line.eval_loss) {
            ("progress", Some(loss), _) => self.points.push(Point {
                step: line.step,
                time,
                loss,
                tokens_per_second: line.tokens_per_second,
                learning_rate: line.learning_rate,
                grad_norm: line.grad_norm,
            }),
            ("evaluation", _, Some(eval_loss)) => self.evaluations.push(Evaluation {
                step: line.step,
                time,
                eval_loss,
            }),
            _ => {}
        }
    }

    /// Takes what was recorded since the start or the last call.
    pub fn take(&mut self) -> Metrics {
        Metrics {
            points: self.points.take(),
            evaluations: self.evaluations.take(),
        }
    }
}

/// Reads the times in front of lines. Neighbouring lines often have the same.
#[derive(Debug, Default)]
struct Times {
    text: Vec<u8>,
    time: Option<Timestamp>,
}

impl Times {
    /// Splits `2026-01-31T12:00:00.000000Z {...}` into its time and the rest.
    fn split<'a>(&mut self, line: &'a [u8]) -> (Option<Timestamp>, &'a [u8]) {
        let Some(space) = memchr::memchr(b' ', line).filter(|_| !line.starts_with(b"{")) else {
            return (None, line);
        };
        let (text, rest) = (&line[..space], &line[space + 1..]);
        if text != self.text {
            let parsed = std::str::from_utf8(text).ok();
            self.time = parsed.and_then(|text| text.parse().ok());
            self.text = text.to_vec();
        }
        match self.time {
            Some(time) => (Some(time), rest),
            None => (None, line),
        }
    }
}

impl Sample for Point {
    fn step(&self) -> u64 {
        self.step
    }

    fn value(&self) -> Option<f64> {
        self.loss
    }
}

impl Sample for Evaluation {
    fn step(&self) -> u64 {
        self.step
    }

    fn value(&self) -> Option<f64> {
        self.eval_loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(step: u64, loss: f64) -> String {
        format!(
            "{{\"event\": \"progress\", \"step\": {step}, \"total_steps\": 9, \"loss\": {loss}, \
             \"tokens_per_second\": 5.5, \"seconds_left\": 1.0}}\n"
        )
    }

    fn recorded(log: &str, points: usize) -> Metrics {
        let mut recorder = Recorder::new(points);
        recorder.read(log.as_bytes());
        recorder.take()
    }

    fn steps(metrics: &Metrics) -> Vec<u64> {
        metrics.points.iter().map(|point| point.step).collect()
    }

    #[test]
    fn a_progress_line_becomes_a_point() {
        let metrics = recorded(&line(3, 2.5), 500);
        assert_eq!(metrics.points[0].loss, Some(2.5));
        assert_eq!(metrics.points[0].tokens_per_second, Some(5.5));
        assert_eq!(metrics.points[0].time, None);
    }

    #[test]
    fn the_time_in_front_of_a_line_is_read() {
        let metrics = recorded(&format!("2026-01-31T12:00:00.5Z {}", line(3, 2.5)), 500);
        let time = metrics.points[0].time.map(|time| time.to_string());
        assert_eq!(time.as_deref(), Some("2026-01-31T12:00:00.5Z"));
    }

    #[test]
    fn an_evaluation_line_becomes_an_evaluation() {
        let metrics = recorded(
            r#"{"event": "evaluation", "step": 4, "eval_loss": 1.5}"#,
            500,
        );
        assert_eq!(metrics.evaluations[0].eval_loss, Some(1.5));
        assert!(metrics.points.is_empty());
    }

    #[test]
    fn a_diverged_loss_is_kept_as_null() {
        let metrics = recorded(&line(3, 2.5).replace("2.5", "null"), 500);
        assert_eq!(metrics.points[0].loss, None);
    }

    #[test]
    fn other_lines_are_skipped() {
        let log = format!(
            "epoch 1\n{{\"event\": \"other\"}}\n{{\n\n2026 {}",
            line(1, 1.0)
        );
        assert!(recorded(&log, 500).points.is_empty());
    }

    #[test]
    fn steps_that_a_later_attempt_repeats_replace_the_earlier_ones() {
        let first: String = (1..=6).map(|step| line(step, 1.0)).collect();
        let second: String = (4..=8).map(|step| line(step, 2.0)).collect();
        let metrics = recorded(&(first + &second), 500);
        assert_eq!(steps(&metrics), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(metrics.points[4].loss, Some(2.0));
    }

    #[test]
    fn a_long_run_keeps_its_ends_and_its_extremes() {
        let loss = |step| match step {
            70_001 => 99.0,
            30_003 => -99.0,
            _ => 5.0,
        };
        let log: String = (1..=100_000).map(|step| line(step, loss(step))).collect();
        let metrics = recorded(&log, 100);
        let steps = steps(&metrics);
        assert!(steps.len() <= 100, "{}", steps.len());
        assert!(steps.len() >= 40, "{}", steps.len());
        for kept in [1, 30_003, 70_001, 100_000] {
            assert!(steps.contains(&kept), "{kept} in {steps:?}");
        }
    }

    proptest! {
        #[test]
        fn any_run_keeps_order_bounds_and_extremes(
            losses in prop::collection::vec(prop::option::of(-10.0..10.0), 1..400),
            points in 4_usize..60,
        ) {
            let log: String = losses.iter().zip(1..).map(|(loss, step)| {
                let loss = loss.map_or("null".to_string(), |loss: f64| loss.to_string());
                line(step, 0.5).replace("0.5", &loss)
            }).collect();
            let metrics = recorded(&log, points);
            let steps = steps(&metrics);
            prop_assert!(steps.len() <= points);
            prop_assert!(steps.is_sorted());
            prop_assert_eq!(steps.first(), Some(&1));
            prop_assert_eq!(steps.last(), Some(&(losses.len() as u64)));
            let lowest = losses.iter().flatten().copied().reduce(f64::min);
            let kept = metrics.points.iter().filter_map(|point| point.loss).reduce(f64::min);
            prop_assert_eq!(lowest, kept);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Recorder::new(4).read(&bytes);
        }
    }
}
