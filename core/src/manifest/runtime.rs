//! The ClusterTrainingRuntimes that TrainJobs refer to, one for each placement profile and one for
//! jobs without a profile.
//!
//! A runtime has what a TrainJob cannot express. Together they mean what the PyTorchJob means: the
//! master decides about success, a failure restarts the whole job a few times, and the pods of the
//! last attempt stay.

use k8s_openapi::api::batch::v1::{
    JobSpec, JobTemplateSpec, SuccessPolicy as IndexPolicy, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{CRASHES, GRACE_SECONDS, LAST_LINES, NO_SIDECAR, mounts, placement, volumes};
use crate::gang::SchedulingPolicy;
use crate::keys::NODE;
use crate::profile::{Profile, Profiles};
use crate::train_job::{
    API_VERSION, ClusterTrainingRuntime, FailurePolicy, JobSetSpec, JobSetTemplate, MlPolicy,
    Network, RUNTIME_KIND, ReplicatedJob, RuntimeSpec, StartupPolicy, SuccessPolicy, TorchPolicy,
};

/// The runtime of jobs without a profile, and the start of the names of the others.
const RUNTIME: &str = "deepfinery-torch";

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
        failure_policy: Some(FailurePolicy {
            max_restarts: profile.backoff_limit.unwrap_or(CRASHES),
        }),
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
        volumes: Some(volumes(&[])),
        ..PodSpec::default()
    };
    if let Some(gib) = profile.shared_memory_gb {
        placement::limit_shared_memory(&mut pod, gib);
    }
    pod
}

fn labelled<const N: usize>(labels: [(&str, &str); N]) -> ObjectMeta {
    let labels = labels.map(|(key, value)| (key.to_string(), value.to_string()));
    ObjectMeta {
        labels: Some(labels.into()),
        ..ObjectMeta::default()
    }
}
