//! Jobs in the order of a list, so that reading a page does not visit all of them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::ObservedJob;
use crate::job_kind::JobKind;

/// The place of a job in a list: newest first. Kubernetes counts whole seconds, so names decide
/// within a second.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobPosition {
    /// Seconds since 1970.
    #[serde(rename = "c")]
    created: Reverse<i64>,
    /// Additional microseconds. Kubernetes has none.
    #[serde(rename = "m", default)]
    micros: Reverse<i64>,
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "s")]
    namespace: String,
    #[serde(rename = "k", default)]
    kind: JobKind,
}

impl JobPosition {
    pub fn of(job: &ObservedJob) -> Self {
        const MICROS: i64 = 1_000_000;
        let created = job.metadata.creation_timestamp.as_ref();
        let micros = created.map_or(0, |Time(created)| created.as_microsecond());
        Self {
            created: Reverse(micros.div_euclid(MICROS)),
            micros: Reverse(micros.rem_euclid(MICROS)),
            name: job.name().to_string(),
            namespace: job.namespace().to_string(),
            kind: job.kind,
        }
    }
}

/// Jobs by their place in a list.
#[derive(Debug, Default)]
pub struct JobsByAge(BTreeMap<JobPosition, Arc<ObservedJob>>);

impl JobsByAge {
    pub fn insert(&mut self, job: Arc<ObservedJob>) {
        self.0.insert(JobPosition::of(&job), job);
    }

    pub fn remove(&mut self, job: &ObservedJob) {
        self.0.remove(&JobPosition::of(job));
    }

    /// The jobs after a position, or all of them, newest first.
    pub fn after(&self, position: Option<&JobPosition>) -> impl Iterator<Item = &Arc<ObservedJob>> {
        let from = position.map_or(Bound::Unbounded, Bound::Excluded);
        let after = self.0.range((from, Bound::Unbounded));
        after.map(|(_, job)| job)
    }
}
