//! Gang scheduling: a scheduler that starts all pods of a job or none, as a profile chooses it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::metadata;
use crate::pytorch_job::{JobSchedulingPolicy, PyTorchJob};

/// Volcano's annotation of the queue of a TrainJob's pods.
const VOLCANO_QUEUE_ANNOTATION: &str = "scheduling.volcano.sh/queue-name";

/// The scheduler of a profile that starts all pods of a job or none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SchedulingPolicy {
    /// The coscheduling plugin of the Kubernetes scheduler-plugins.
    SchedulerPlugins(Coscheduling),
    Volcano(Volcano),
}

/// Settings of the coscheduling plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Coscheduling {
    /// Seconds that the pods of a job wait for each other. Default: the scheduler's.
    #[schemars(range(max = u32::MAX))]
    pub timeout_seconds: Option<u32>,
}

/// Settings of Volcano.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Volcano {
    /// Volcano's queue. Default: its queue `default`.
    pub queue: Option<String>,
}

impl SchedulingPolicy {
    /// Checks what the types cannot express. `place` is the path of the policy in the file.
    pub(crate) fn check(&self, place: &str) -> Option<String> {
        let Self::Volcano(Volcano { queue: Some(queue) }) = self else {
            return None;
        };
        (!metadata::is_dns_subdomain(queue)).then(|| {
            format!(
                "{place}.volcano.queue: {queue:?} is not a valid name; use a-z, 0-9, '-' and '.', \
                 starting and ending with a letter or digit"
            )
        })
    }

    /// The policy of a PyTorchJob with this number of pods.
    pub fn of_pytorch_job(&self, pods: u32, priority_class: Option<&str>) -> JobSchedulingPolicy {
        let mut policy = JobSchedulingPolicy {
            min_available: pods,
            queue: None,
            priority_class: None,
            schedule_timeout_seconds: None,
        };
        match self {
            Self::SchedulerPlugins(settings) => {
                policy.schedule_timeout_seconds = settings.timeout_seconds;
            }
            Self::Volcano(settings) => {
                policy.queue.clone_from(&settings.queue);
                policy.priority_class = priority_class.map(str::to_string);
            }
        }
        policy
    }

    /// `podGroupPolicy` of the training runtime of TrainJobs. Trainer counts the pods itself.
    pub fn of_training_runtime(&self) -> Value {
        match self {
            Self::SchedulerPlugins(settings) => match settings.timeout_seconds {
                Some(seconds) => json!({"coscheduling": {"scheduleTimeoutSeconds": seconds}}),
                None => json!({"coscheduling": {}}),
            },
            Self::Volcano(_) => json!({"volcano": {}}),
        }
    }

    /// Adds what Volcano reads of the metadata of a training runtime's template.
    pub fn annotate_training_runtime(&self, template: &mut ObjectMeta) {
        if let Self::Volcano(Volcano { queue: Some(queue) }) = self {
            let annotations = template.annotations.get_or_insert_default();
            annotations.insert(VOLCANO_QUEUE_ANNOTATION.to_string(), queue.clone());
        }
    }
}

/// The warning about a job of several pods that no scheduler starts together. Queues are another
/// matter: the quota of a queue is given to a whole job.
pub fn no_gang_warning(job: &PyTorchJob) -> Option<String> {
    if job.spec.run_policy.scheduling_policy.is_some() {
        return None;
    }
    let worker = job.spec.pytorch_replica_specs.worker.as_ref()?;
    let pods = job.spec.pytorch_replica_specs.master.replicas + worker.replicas;
    Some(format!(
        "Nothing starts the {pods} pods of the job together: if the cluster has room for some of them \
         only, these hold their GPUs and wait for the others. The operator can set queue or \
         scheduling_policy in a profile."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(value: Value) -> Result<SchedulingPolicy, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn each_scheduler_has_its_own_settings() {
        let plugins = policy(json!({"scheduler-plugins": {"timeout_seconds": 600}})).unwrap();
        assert_eq!(
            serde_json::to_value(plugins.of_pytorch_job(4, Some("high"))).unwrap(),
            json!({"minAvailable": 4, "scheduleTimeoutSeconds": 600})
        );
        let expected = json!({"coscheduling": {"scheduleTimeoutSeconds": 600}});
        assert_eq!(plugins.of_training_runtime(), expected);

        let volcano = policy(json!({"volcano": {"queue": "research"}})).unwrap();
        assert_eq!(
            serde_json::to_value(volcano.of_pytorch_job(4, Some("high"))).unwrap(),
            json!({"minAvailable": 4, "queue": "research", "priorityClass": "high"})
        );
        assert_eq!(volcano.of_training_runtime(), json!({"volcano": {}}));
        let mut template = ObjectMeta::default();
        volcano.annotate_training_runtime(&mut template);
        let annotations = template.annotations.unwrap();
        assert_eq!(annotations[VOLCANO_QUEUE_ANNOTATION], "research");
    }

    #[test]
    fn settings_of_another_scheduler_are_refused() {
        for wrong in [
            json!({"volcano": {"timeout_seconds": 1}}),
            json!({"scheduler-plugins": {"queue": "a"}}),
            json!({"yunikorn": {}}),
        ] {
            policy(wrong.clone()).unwrap_err();
        }
        let wrong = policy(json!({"volcano": {"queue": "Not a name"}})).unwrap();
        let message = wrong.check("profiles.a.scheduling_policy").unwrap();
        assert!(message.starts_with("profiles.a.scheduling_policy.volcano.queue: "));
    }
}
