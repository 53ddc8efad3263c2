//! The policy of a namespace or a role, as the access file has it.

use schemars::JsonSchema;
use serde::Deserialize;

/// What a policy allows. A list that is absent allows everything, except `labels`, `annotations`
/// and `env`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Images as patterns, in which `*` stands for any characters. The service's default image is
    /// always allowed.
    pub images: Option<Vec<String>>,
    /// Whether images need a digest. Default: optional.
    #[schemars(with = "DigestRule")]
    pub image_digest: Option<DigestRule>,
    /// Prefixes of `dataset_uri`: a scheme such as `hf://`, a bucket, or a folder.
    pub datasets: Option<Vec<String>>,
    /// Prefixes of `checkpoint_base_uri`.
    pub checkpoints: Option<Vec<String>>,
    /// Patterns of `model_id`. With `datasets` and `checkpoints` also of locations in `extra_args`.
    pub models: Option<Vec<String>>,
    /// Persistent volume claims, as patterns.
    pub claims: Option<Vec<String>>,
    /// Placement profiles. The namespace's default profile is always allowed.
    pub profiles: Option<Vec<String>>,
    /// Keys of labels, as patterns. Default: keys without a prefix and without a dot.
    pub labels: Option<Vec<String>>,
    /// Keys of annotations, as patterns. Default: keys without a prefix and without a dot.
    pub annotations: Option<Vec<String>>,
    /// Variables that change what a process loads or runs, such as `PYTHONPATH`, as patterns.
    /// Default: none. Other variables are always allowed.
    pub env: Option<Vec<String>>,
    /// Secrets that `env` may name, as patterns. Default: none.
    pub secrets: Option<Vec<String>>,
    /// Maximum number of nodes of a job.
    pub max_nodes: Option<u32>,
    /// Maximum number of GPUs of a job.
    pub max_gpus: Option<u32>,
    /// Maximum number of nodes of all unfinished jobs together: of the namespace, or of each caller of a role.
    pub max_total_nodes: Option<u32>,
    /// Maximum number of GPUs of all unfinished jobs together.
    pub max_total_gpus: Option<u32>,
    /// Maximum number of unfinished jobs.
    pub max_jobs: Option<u32>,
}

/// Whether images are named by digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DigestRule {
    Optional,
    Required,
}

impl Policy {
    pub(super) fn check(&self, place: &str, wrong: &mut Vec<String>) {
        let lists = [
            ("images", &self.images),
            ("datasets", &self.datasets),
            ("checkpoints", &self.checkpoints),
            ("models", &self.models),
            ("claims", &self.claims),
            ("profiles", &self.profiles),
            ("labels", &self.labels),
            ("annotations", &self.annotations),
            ("env", &self.env),
            ("secrets", &self.secrets),
        ];
        for (member, list) in lists {
            if list.iter().flatten().any(String::is_empty) {
                wrong.push(format!("{place}.{member}: an entry is empty; remove it"));
            }
        }
        for (member, list) in [
            ("datasets", &self.datasets),
            ("checkpoints", &self.checkpoints),
        ] {
            for entry in list.iter().flatten().filter(|entry| !entry.contains("://")) {
                wrong.push(format!(
                    "{place}.{member}: {entry:?} has no scheme; write a prefix such as \
                     s3://bucket/folder/ or hf://"
                ));
            }
        }
    }

    /// The prefixes and patterns of locations, if there are any.
    pub(super) fn locations(&self) -> Option<Vec<&str>> {
        let lists = [&self.datasets, &self.checkpoints, &self.models];
        let is_limited = self.datasets.is_some() || self.models.is_some();
        let all = lists.into_iter().flatten().flatten().map(String::as_str);
        is_limited.then(|| all.collect())
    }
}
