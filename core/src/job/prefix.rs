//! The prefix that a job writes its checkpoints to, and whether the prefixes of two jobs overlap.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ObservedJob;
use crate::keys::{CHECKPOINT_PREFIX_ANNOTATION, CONTAINER, RESUME_VARIABLE};
use crate::metadata::OVERWRITE_VARIABLE;
use crate::pytorch_job::PyTorchJob;

/// A checkpoint prefix, normalized for comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    text: String,
    normal: String,
}

/// What a job does with checkpoints of an earlier run under its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlierCheckpoints {
    /// The job neither resumes nor overwrites, so there must be none.
    Refuse,
    /// The job resumes from them or replaces them.
    Use,
}

impl Prefix {
    /// Parses a URI such as `s3://bucket/runs/live/framework=hf`. Different schemes of the same
    /// store are equal, the case of authorities is ignored, and so are trailing and repeated
    /// slashes.
    pub fn new(uri: &str) -> Self {
        let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
        let scheme = match scheme {
            "abfs" => "abfss",
            scheme => scheme,
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let mut normal = format!("{scheme}://{}", authority.to_ascii_lowercase());
        for segment in segments {
            normal.push('/');
            normal.push_str(segment);
        }
        Self {
            text: uri.to_string(),
            normal,
        }
    }

    /// The prefix of a job, if this service created it.
    pub fn of(job: &ObjectMeta) -> Option<Self> {
        let annotations = job.annotations.as_ref()?;
        let prefix = annotations.get(CHECKPOINT_PREFIX_ANNOTATION)?;
        Some(Self::new(prefix))
    }

    /// The original URI.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The normalized prefix with a trailing slash.
    pub(super) fn folder(&self) -> String {
        format!("{}/", self.normal)
    }

    /// Whether two prefixes are equal, or one contains the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (one, other) = (self.normal.as_str(), other.normal.as_str());
        let contains = |outer: &str, inner: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        contains(one, other) || contains(other, one)
    }

    /// Whether another job, with a different name, has not ended and writes to this prefix.
    pub fn is_taken_by(&self, other: &ObservedJob, namespace: &str, name: &str) -> bool {
        let same_name = other.namespace() == namespace && other.name() == name;
        let taken = || Self::of(&other.metadata).is_some_and(|prefix| prefix.overlaps(self));
        !same_name && !other.status.has_ended() && taken()
    }
}

impl EarlierCheckpoints {
    /// Reads the setting from the environment of a job.
    pub fn of(job: &PyTorchJob) -> Self {
        let master = job.spec.pytorch_replica_specs.master.template.spec.as_ref();
        let mut containers = master.iter().flat_map(|pod| &pod.containers);
        let trainer = containers.find(|container| container.name == CONTAINER);
        let mut variables = trainer.iter().flat_map(|c| c.env.iter().flatten());
        let asked = [RESUME_VARIABLE, OVERWRITE_VARIABLE];
        match variables.any(|variable| asked.contains(&variable.name.as_str())) {
            true => Self::Use,
            false => Self::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlap(one: &str, other: &str) -> bool {
        Prefix::new(one).overlaps(&Prefix::new(other))
    }

    #[test]
    fn a_prefix_overlaps_itself_however_it_is_spelt() {
        let spellings = [
            (
                "s3://b/runs/live/framework=hf",
                "s3://b/runs/live/framework=hf/",
            ),
            (
                "s3://b/runs/live/framework=hf",
                "s3://b//runs/live/framework=hf",
            ),
            (
                "abfs://c@A.dfs.core.windows.net/x",
                "abfss://c@a.dfs.core.windows.net/x",
            ),
            ("file:///data/x", "file:///data//x/"),
        ];
        for (one, other) in spellings {
            assert!(overlap(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_prefix_within_another_one_overlaps_it() {
        let outer = "s3://b/runs/live/framework=hf";
        assert!(overlap(
            outer,
            "s3://b/runs/live/framework=hf/checkpoints/r/framework=meta"
        ));
        for beside in [
            "s3://b/runs/live/framework=hf2",
            "s3://b/runs/live/framework=meta",
            "s3://b/runs/live2/framework=hf",
            "s3://b2/runs/live/framework=hf",
            "s3://b/Runs/live/framework=hf",
            "gs://b/runs/live/framework=hf",
        ] {
            assert!(!overlap(outer, beside), "{beside}");
        }
    }

    proptest! {
        #[test]
        fn overlapping_is_mutual(one in "(s3|abfs|file)://[a-b]?(/[a-b]){0,3}/?",
                                 other in "(s3|abfs|file)://[a-b]?(/[a-b]){0,3}/?") {
            prop_assert_eq!(overlap(&one, &other), overlap(&other, &one));
            let inner = format!("{one}/x");
            prop_assert!(overlap(&one, &inner));
        }
    }
}
