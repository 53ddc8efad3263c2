//! The metrics of a run over its steps, read from its log and downsampled while they are read.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The maximum length of a parsed line in bytes; lines of the trainer have about 150.
const LONGEST_LINE: usize = 4096;
/// A bucket keeps its first, last, lowest and highest sample.
const SAMPLES_PER_BUCKET: usize = 4;

/// One training step as the log reported it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// The optimizer step, counted from 1.
    pub step: u64,
    /// When the line was written; absent if the log has no times.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub time: Option<Timestamp>,
    /// The training loss; `null` if it is not a number.
    #[serde(deserialize_with = "Option::deserialize")]
    pub loss: Option<f64>,
    /// Of all processes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// The norm of the gradients before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
}

/// One evaluation as the log reported it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evaluation {
    /// The optimizer step after which the model was evaluated.
    pub step: u64,
    /// When the line was written; absent if the log has no times.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub time: Option<Timestamp>,
    /// The loss on the evaluation data; `null` if it is not a number.
    #[serde(deserialize_with = "Option::deserialize")]
    pub eval_loss: Option<f64>,
}

/// The metrics of a run: what `GET /train/{job_name}/metrics` returns.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Metrics {
    /// In ascending order of steps. A longer run is downsampled to its first and last point and the
    /// extremes in between.
    pub points: Vec<Point>,
    pub evaluations: Vec<Evaluation>,
}

/// A line of the log, distinguished by its member `event`.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Progress(Point),
    Evaluation(Evaluation),
}

/// Collects the metrics of a log in memory bounded by the number of points asked for.
#[derive(Debug)]
pub struct Recorder {
    points: Series<Point>,
    evaluations: Series<Evaluation>,
}

impl Recorder {
    /// Creates a recorder that keeps at most `points` points and as many evaluations, but at least
    /// four of each.
    pub fn new(points: usize) -> Self {
        Self {
            points: Series::new(points),
            evaluations: Series::new(points),
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
        let (time, line) = split_time(line);
        if line.len() > LONGEST_LINE || !line.starts_with(b"{") {
            return;
        }
        match serde_json::from_slice(line) {
            Ok(Event::Progress(point)) => self.points.push(Point { time, ..point }),
            Ok(Event::Evaluation(evaluation)) => {
                self.evaluations.push(Evaluation { time, ..evaluation });
            }
            Err(_) => {}
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

/// Splits `2026-01-31T12:00:00.000000Z {...}` into its time and the rest.
fn split_time(line: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let Some(space) = memchr::memchr(b' ', line).filter(|_| !line.starts_with(b"{")) else {
        return (None, line);
    };
    let time = std::str::from_utf8(&line[..space]).ok();
    match time.and_then(|time| time.parse().ok()) {
        Some(time) => (Some(time), &line[space + 1..]),
        None => (None, line),
    }
}

/// An element of a series.
trait Sample: Clone {
    fn step(&self) -> u64;
    /// The value whose extremes are kept.
    fn value(&self) -> Option<f64>;
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

/// Samples in ascending order of steps, downsampled: neighbouring buckets are merged whenever there
/// are too many.
#[derive(Debug)]
struct Series<S> {
    buckets: Vec<Bucket<S>>,
    max_buckets: usize,
    /// How many samples a bucket takes before the next one starts.
    width: usize,
}

#[derive(Debug)]
struct Bucket<S> {
    /// The first, the last and the extremes, in ascending order of steps.
    kept: Vec<S>,
    /// How many samples the bucket represents.
    count: usize,
}

impl<S: Sample> Series<S> {
    fn new(samples: usize) -> Self {
        Self {
            buckets: Vec::new(),
            max_buckets: (samples / SAMPLES_PER_BUCKET).max(1),
            width: 1,
        }
    }

    fn push(&mut self, sample: S) {
        self.forget_from(sample.step());
        match self.buckets.last_mut() {
            Some(bucket) if bucket.count < self.width => bucket.add(sample),
            _ => self.begin(sample),
        }
    }

    /// A run that resumed from a checkpoint repeats steps: the later attempt counts.
    fn forget_from(&mut self, step: u64) {
        while let Some(bucket) = self.buckets.last_mut() {
            if bucket.kept.last().is_some_and(|last| last.step() < step) {
                return;
            }
            bucket.kept.retain(|kept| kept.step() < step);
            if bucket.kept.is_empty() {
                self.buckets.pop();
            }
        }
    }

    fn begin(&mut self, sample: S) {
        if self.buckets.len() == self.max_buckets {
            self.merge();
        }
        match self.buckets.last_mut() {
            Some(bucket) if bucket.count < self.width => bucket.add(sample),
            _ => self.buckets.push(Bucket {
                kept: vec![sample],
                count: 1,
            }),
        }
    }

    fn merge(&mut self) {
        self.width *= 2;
        let mut merged: Vec<Bucket<S>> = Vec::with_capacity(self.max_buckets);
        for bucket in self.buckets.drain(..) {
            match merged.last_mut() {
                Some(last) if last.count + bucket.count <= self.width => last.absorb(bucket),
                _ => merged.push(bucket),
            }
        }
        self.buckets = merged;
    }

    fn take(&mut self) -> Vec<S> {
        self.width = 1;
        let buckets = self.buckets.drain(..);
        buckets.flat_map(|bucket| bucket.kept).collect()
    }
}

impl<S: Sample> Bucket<S> {
    fn add(&mut self, sample: S) {
        self.kept.push(sample);
        self.count += 1;
        self.thin_out();
    }

    fn absorb(&mut self, other: Self) {
        self.kept.extend(other.kept);
        self.count += other.count;
        self.thin_out();
    }

    fn thin_out(&mut self) {
        if self.kept.len() <= SAMPLES_PER_BUCKET {
            return;
        }
        let last = self.kept.len() - 1;
        let by_value = || {
            let valued = self.kept.iter().enumerate();
            valued.filter_map(|(index, sample)| Some((index, sample.value()?)))
        };
        let lowest = by_value().min_by(|(_, a), (_, b)| a.total_cmp(b));
        let highest = by_value().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let extremes = [lowest, highest].map(|found| found.map(|(index, _)| index));
        let mut index = 0;
        self.kept.retain(|_| {
            let is_kept = index == 0 || index == last || extremes.contains(&Some(index));
            index += 1;
            is_kept
        });
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
