//! The ClusterTrainingRuntimes that TrainJobs refer to, one for each placement profile and one for
//! jobs without a profile.
//!
//! A runtime has what a TrainJob cannot express. Together they mean what the PyTorchJob means: the
//! master decides about success, a failure restarts the whole job a few times unless a restart cannot
//! fix it, and the pods of the last attempt stay.

use k8s_openapi::api::batch::v1::{
    JobSpec, JobTemplateSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule, SuccessPolicy as IndexPolicy,
    SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    CRASHES, GRACE_SECONDS, LAST_LINES, NO_SIDECAR, mounts, security, shared_memory_limit, volumes,
};
use crate::gang::SchedulingPolicy;
use crate::keys::{NODE, PERMANENT_EXIT_CODES};
use crate::profile::{Profile, Profiles};
use crate::train_job::{
    API_VERSION, ClusterTrainingRuntime, FailurePolicy, FailureRule, JobSetSpec, JobSetTemplate,
    MlPolicy, Network, RUNTIME_KIND, ReplicatedJob, RuntimeSpec, StartupPolicy, SuccessPolicy,
    TorchPolicy,
};

/// The runtime of jobs without a profile, and the start of the names of the others.
const RUNTIME: &str = "deepfinery-torch";

/// The reason of a Job that failed because of a rule of its pod failure policy.
const BY_POLICY: &str = "PodFailurePolicy";
/// The condition of a pod that was evicted, preempted or lost with its node.
const DISRUPTED: &str = "DisruptionTarget";

/// The name of the runtime of a profile: `deepfinery-torch-PROFILE`, or `deepfinery-torch` for jobs
/// without a profile.
pub fn runtime_name(profile: Option<&str>) -> String {
    match profile {
        Some(profile) => format!("{RUNTIME}-{profile}"),
        None => RUNTIME.to_string(),
    }
}

/// The runtimes of all profiles, beginning with the one for jobs without a profile. `image` is what
/// a runtime has to name; every job sets its own.
///
/// # Errors
///
/// The members of profiles that have no meaning for a TrainJob.
pub fn runtimes(
    profiles: &Profiles,
    image: &str,
) -> Result<Vec<ClusterTrainingRuntime>, Vec<String>> {
    profiles.check_for_train_jobs()?;
    let none = runtime(None, &Profile::default(), image);
    let named = profiles.all().iter();
    let named = named.map(|(name, profile)| runtime(Some(name), profile, image));
    Ok(std::iter::once(none).chain(named).collect())
}

fn runtime(name: Option<&str>, profile: &Profile, image: &str) -> ClusterTrainingRuntime {
    let labels = [
        ("app.kubernetes.io/managed-by", "trainer"),
        ("trainer.kubeflow.org/framework", "torch"),
    ];
    let scheduler = profile.scheduling_policy.as_ref();
    let metadata = scheduler.map(|scheduler| {
        let mut metadata = ObjectMeta::default();
        scheduler.annotate_training_runtime(&mut metadata);
        metadata
    });
    ClusterTrainingRuntime {
        api_version: API_VERSION,
        kind: RUNTIME_KIND,
        metadata: ObjectMeta {
            name: Some(runtime_name(name)),
            ..labelled(labels)
        },
        spec: RuntimeSpec {
            ml_policy: Some(MlPolicy {
                num_nodes: 1,
                torch: TorchPolicy {},
            }),
            pod_group_policy: scheduler.map(SchedulingPolicy::of_training_runtime),
            template: JobSetTemplate {
                metadata: metadata.filter(|metadata| metadata.annotations.is_some()),
                spec: job_set(profile, image),
            },
        },
    }
}

/// The first three policies are JobSet's defaults, which its webhook would set.
fn job_set(profile: &Profile, image: &str) -> JobSetSpec {
    JobSetSpec {
        success_policy: Some(SuccessPolicy { operator: "All" }),
        startup_policy: Some(StartupPolicy {
            startup_policy_order: "AnyOrder",
        }),
        network: Some(Network {
            enable_dns_hostnames: true,
            publish_not_ready_addresses: true,
        }),
        failure_policy: Some(failure_policy(profile)),
        replicated_jobs: vec![ReplicatedJob {
            name: NODE,
            replicas: Some(1),
            template: JobTemplateSpec {
                metadata: Some(labelled([(
                    "trainer.kubeflow.org/trainjob-ancestor-step",
                    "trainer",
                )])),
                spec: Some(job(profile, image)),
            },
        }],
    }
}

/// Restarts are limited, except after disruptions, which are not the fault of the job. The Job shows
/// why it failed by its message, because the reason is the same for all rules of [`pod_failures`].
fn failure_policy(profile: &Profile) -> FailurePolicy {
    FailurePolicy {
        max_restarts: profile.backoff_limit.unwrap_or(CRASHES),
        rules: vec![
            FailureRule {
                name: "disruption",
                action: "RestartJobSetAndIgnoreMaxRestarts",
                on_job_failure_reasons: vec![BY_POLICY],
                on_job_failure_message_patterns: vec!["has condition DisruptionTarget"],
            },
            FailureRule {
                name: "permanent",
                action: "FailJobSet",
                on_job_failure_reasons: vec![BY_POLICY],
                on_job_failure_message_patterns: Vec::new(),
            },
        ],
    }
}

/// The failures that the JobSet distinguishes. The first rule that fits counts: the container of a
/// disrupted pod may end with any code.
fn pod_failures() -> PodFailurePolicy {
    let fail = || PodFailurePolicyRule {
        action: "FailJob".to_string(),
        ..PodFailurePolicyRule::default()
    };
    let disruption = PodFailurePolicyRule {
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: DISRUPTED.to_string(),
            status: Some("True".to_string()),
        }]),
        ..fail()
    };
    let permanent = PodFailurePolicyRule {
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(NODE.to_string()),
            operator: "In".to_string(),
            values: PERMANENT_EXIT_CODES.to_vec(),
        }),
        ..fail()
    };
    PodFailurePolicy {
        rules: vec![disruption, permanent],
    }
}

fn job(profile: &Profile, image: &str) -> JobSpec {
    // The master alone decides, as with a PyTorchJob.
    let master = SuccessPolicyRule {
        succeeded_indexes: Some("0".to_string()),
        ..SuccessPolicyRule::default()
    };
    JobSpec {
        // A failed process fails the whole job, which then restarts as a whole. Restarts of single
        // pods would delete the failed ones, with their logs.
        backoff_limit: Some(0),
        completion_mode: Some("Indexed".to_string()),
        pod_failure_policy: Some(pod_failures()),
        success_policy: Some(IndexPolicy {
            rules: vec![master],
        }),
        template: PodTemplateSpec {
            metadata: Some(ObjectMeta {
                annotations: Some(
                    NO_SIDECAR
                        .map(|(k, v)| (k.to_string(), v.to_string()))
                        .into(),
                ),
                ..ObjectMeta::default()
            }),
            spec: Some(pod(profile, image)),
        },
        ..JobSpec::default()
    }
}

fn pod(profile: &Profile, image: &str) -> PodSpec {
    let mut pod = PodSpec {
        containers: vec![Container {
            name: NODE.to_string(),
            image: Some(image.to_string()),
            termination_message_policy: Some(LAST_LINES.to_string()),
            volume_mounts: Some(mounts(&[])),
            ..Container::default()
        }],
        priority_class_name: profile.priority_class.clone(),
        restart_policy: Some("Never".to_string()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        volumes: Some(volumes(&[], shared_memory_limit(profile, None))),
        ..PodSpec::default()
    };
    security::restrict(&mut pod, profile);
    pod
}

fn labelled<const N: usize>(labels: [(&str, &str); N]) -> ObjectMeta {
    let labels = labels.map(|(key, value)| (key.to_string(), value.to_string()));
    ObjectMeta {
        labels: Some(labels.into()),
        ..ObjectMeta::default()
    }
}
