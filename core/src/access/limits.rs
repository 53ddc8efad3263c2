//! The limits of a policy for all unfinished jobs together.

use super::{Refusal, Rules};
use crate::finding::{Code, Finding};
use crate::job::{JobState, ObservedJob};
use crate::keys::{GPUS_PER_NODE_ANNOTATION, OWNER_ANNOTATION};
use crate::request::JobRequest;

/// What the unfinished jobs of a namespace or an owner use. Suspended jobs count, because they can
/// be resumed at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub jobs: u32,
    pub nodes: u32,
    pub gpus: u32,
}

impl Usage {
    /// Adds up the unfinished ones of some jobs.
    pub fn of<'a>(jobs: impl Iterator<Item = &'a ObservedJob>) -> Self {
        let mut usage = Self::default();
        for job in jobs.filter(|job| !JobState::of(job).is_final()) {
            let nodes = nodes(job);
            usage.jobs = usage.jobs.saturating_add(1);
            usage.nodes = usage.nodes.saturating_add(nodes);
            let gpus = nodes.saturating_mul(gpus_per_node(job));
            usage.gpus = usage.gpus.saturating_add(gpus);
        }
        usage
    }

    fn with(self, request: &JobRequest) -> Self {
        let gpus = request.num_nodes.saturating_mul(request.gpus_per_node);
        Self {
            jobs: self.jobs.saturating_add(1),
            nodes: self.nodes.saturating_add(request.num_nodes),
            gpus: self.gpus.saturating_add(gpus),
        }
    }
}

/// The number of replicas.
fn nodes(job: &ObservedJob) -> u32 {
    let replicas = job.spec.pytorch_replica_specs.values();
    let replicas = replicas.map(|desired| desired.replicas);
    replicas.fold(0, u32::saturating_add)
}

/// The GPUs of each replica. A job that this service did not create counts one.
fn gpus_per_node(job: &ObservedJob) -> u32 {
    let recorded = job.annotation(GPUS_PER_NODE_ANNOTATION);
    recorded.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Whether a job belongs to an owner.
pub(super) fn is_of(job: &ObservedJob, owner: Option<&str>) -> bool {
    owner.is_some() && job.annotation(OWNER_ANNOTATION) == owner
}

impl Rules<'_> {
    /// Whether any policy limits all jobs together.
    pub fn limit_totals(&self) -> bool {
        let mut policies = self.policies.iter();
        policies.any(|(_, policy)| {
            let limits = [
                policy.max_total_nodes,
                policy.max_total_gpus,
                policy.max_jobs,
            ];
            limits.iter().any(Option::is_some)
        })
    }

    /// What a request would exceed, given all jobs of the service. The limits of a namespace count
    /// its jobs, and those of a role the jobs of the caller.
    pub fn check_totals<'a, I>(
        &self,
        request: &JobRequest,
        owner: Option<&str>,
        jobs: impl Fn() -> I,
    ) -> Vec<Refusal>
    where
        I: Iterator<Item = &'a ObservedJob>,
    {
        let mut refusals = Vec::new();
        for (place, policy) in &self.policies {
            let used = match place.starts_with("namespaces.") {
                true => Usage::of(jobs().filter(|job| job.namespace() == request.namespace)),
                false => Usage::of(jobs().filter(|job| is_of(job, owner))),
            };
            let wanted = used.with(request);
            for (member, used, wanted, most, unit, field) in [
                (
                    "max_jobs",
                    used.jobs,
                    wanted.jobs,
                    policy.max_jobs,
                    "jobs",
                    "",
                ),
                (
                    "max_total_nodes",
                    used.nodes,
                    wanted.nodes,
                    policy.max_total_nodes,
                    "nodes",
                    "/num_nodes",
                ),
                (
                    "max_total_gpus",
                    used.gpus,
                    wanted.gpus,
                    policy.max_total_gpus,
                    "GPUs",
                    "/gpus_per_node",
                ),
            ] {
                // A request that adds nothing, such as a CPU job to the GPUs, exceeds nothing.
                let Some(most) = most.filter(|most| wanted > *most && wanted > used) else {
                    continue;
                };
                let detail = format!(
                    "{}{wanted} {unit} with the unfinished jobs, which have {used}, are not allowed \
                     by {place}.{member}; allowed: at most {most}",
                    match field.strip_prefix('/') {
                        Some(field) => format!("{field}: "),
                        None => String::new(),
                    }
                );
                refusals.push(Refusal {
                    rule: format!("{place}.{member}"),
                    finding: Finding::new(Code::PolicyTotal, field, detail),
                });
            }
        }
        refusals
    }
}
