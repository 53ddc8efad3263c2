//! A series of samples that is downsampled while it grows.

/// A bucket keeps its first, last, lowest and highest sample.
const SAMPLES_PER_BUCKET: usize = 4;

/// An element of a series.
pub(super) trait Sample: Clone {
    fn step(&self) -> u64;
    /// The value whose extremes are kept.
    fn value(&self) -> Option<f64>;
}

/// Samples in ascending order of steps, downsampled: neighbouring buckets are merged whenever there
/// are too many.
#[derive(Debug)]
pub(super) struct Series<S> {
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
    pub(super) fn new(samples: usize) -> Self {
        Self {
            buckets: Vec::new(),
            max_buckets: (samples / SAMPLES_PER_BUCKET).max(1),
            width: 1,
        }
    }

    pub(super) fn push(&mut self, sample: S) {
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

    pub(super) fn take(&mut self) -> Vec<S> {
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
