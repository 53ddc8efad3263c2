//! Placement profiles: named settings of the service's operator for where and how jobs run.
//!
//! They are defined in one file. A namespace can have a default profile, and a request can choose
//! another with the annotation [`PROFILE_ANNOTATION`]. The file is checked when the service starts,
//! so that mistakes do not surface with the first job.

mod security;
mod train_jobs;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, PodSecurityContext, SecurityContext, Toleration, Volume, VolumeMount,
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::gang::SchedulingPolicy;
use crate::metadata;
use crate::secret_key::SecretKey;
use crate::suggestion::did_you_mean;

pub use security::RUNTIME_SECCOMP;

/// The annotation by which a request chooses a profile.
pub const PROFILE_ANNOTATION: &str = "trainer.deepfinery/profile";
/// The shared-memory volume of every job.
pub const SHARED_MEMORY_VOLUME: &str = "dshm";
/// The extended resource for GPUs, unless a profile sets another.
pub const DEFAULT_GPU_RESOURCE: &str = "nvidia.com/gpu";
/// The prefix of the names of the volumes for `pvc://` claims.
pub const CLAIM_VOLUME_PREFIX: &str = "claim-";

/// The profiles of this host.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Profiles {
    profiles: BTreeMap<String, Profile>,
    /// The default profile of each namespace.
    namespaces: BTreeMap<String, String>,
    /// The default profile of all other namespaces.
    default: Option<String>,
}

/// Where and how jobs run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Labels that nodes must have.
    pub node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "strict")]
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "strict")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub affinity: Option<Affinity>,
    /// Priority class of the pods.
    pub priority_class: Option<String>,
    /// The Kueue local queue. Kueue keeps the job suspended until the queue admits it.
    pub queue: Option<String>,
    /// The priority classes of Kueue that a request may choose with the label
    /// `kueue.x-k8s.io/priority-class`. Default: none.
    pub allow_priority_classes: Vec<String>,
    /// A scheduler that starts all pods of a job or none.
    pub scheduling_policy: Option<SchedulingPolicy>,
    /// Secrets for pulling images.
    pub image_pull_secrets: Vec<String>,
    pub service_account: Option<String>,
    /// Whether pods get the token of their service account. Default: no.
    pub automount_service_account_token: bool,
    /// As a pod's `securityContext`. Default: `seccompProfile: {type: RuntimeDefault}`; the members
    /// given here come first.
    #[serde(deserialize_with = "strict")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub pod_security_context: Option<PodSecurityContext>,
    /// As a container's `securityContext`. Default: no privilege escalation and no capabilities; the
    /// members given here come first.
    #[serde(deserialize_with = "strict")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub security_context: Option<SecurityContext>,
    /// The extended resource for GPUs, such as `amd.com/gpu` or `nvidia.com/mig-1g.5gb`. Default:
    /// [`DEFAULT_GPU_RESOURCE`].
    pub gpu_resource: Option<String>,
    /// Memory of a GPU in GiB, for estimates of what it can hold. Default: not known.
    pub gpu_memory_gb: Option<u32>,
    /// Labels of the PyTorchJob and its pods, before those of the request. Keys of Kubernetes that
    /// requests may not set are allowed.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the PyTorchJob and its pods, in the same way.
    pub annotations: BTreeMap<String, String>,
    /// Variables of every job, before those of the request.
    pub env: BTreeMap<String, String>,
    /// Variables of every job whose values are keys of secrets in the job's namespace.
    pub env_secrets: BTreeMap<String, SecretKey>,
    pub volumes: Vec<ProfileVolume>,
    /// Limit of /dev/shm in GiB, which counts against the memory limit. Default: the memory of the
    /// request, or 64 if it has none. 0: no limit but the kubelet's.
    #[schemars(range(max = u32::MAX))]
    pub shared_memory_gb: Option<u32>,
    /// Seconds after which a finished job is deleted. Default: it is kept. Not possible with
    /// TrainJobs.
    #[schemars(range(max = u32::MAX))]
    pub ttl_seconds_after_finished: Option<u32>,
    /// Seconds that a job may be active. Default: unlimited.
    #[schemars(range(max = u32::MAX))]
    pub active_deadline_seconds: Option<u32>,
    /// Restarts across all replicas after which a job fails. Default: three per node. A TrainJob
    /// restarts as a whole, by default three times.
    #[schemars(range(max = u32::MAX))]
    pub backoff_limit: Option<u32>,
}

/// A volume of every pod that uses the profile.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileVolume {
    /// As in a pod's `volumes`: a name and a source.
    #[serde(deserialize_with = "strict")]
    #[schemars(with = "Map<String, Value>")]
    pub volume: Volume,
    /// As in a container's `volumeMounts`; the name is optional.
    #[serde(deserialize_with = "mount")]
    #[schemars(with = "Map<String, Value>")]
    pub mount: VolumeMount,
}

/// A profile and its name.
#[derive(Clone, Debug, PartialEq)]
pub struct ChosenProfile {
    pub name: String,
    pub profile: Profile,
}

impl Profiles {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, one sentence each, starting with the path of the member in the
    /// file.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        for (name, profile) in &self.profiles {
            if !metadata::is_dns_label(name) {
                wrong.push(format!(
                    "profiles.{name}: not a valid profile name; use 1-63 characters a-z, 0-9 and \
                     '-', starting and ending with a letter or digit"
                ));
            }
            profile.check(&format!("profiles.{name}"), &mut wrong);
        }
        let namespaces = self.namespaces.iter();
        let named = namespaces.map(|(namespace, name)| (format!("namespaces.{namespace}"), name));
        let default = self
            .default
            .iter()
            .map(|name| ("default".to_string(), name));
        for (place, name) in named.chain(default) {
            if !self.profiles.contains_key(name) {
                wrong.push(format!("{place}: {}", self.unknown(name)));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong),
        }
    }

    /// Every profile, by name.
    pub fn all(&self) -> &BTreeMap<String, Profile> {
        &self.profiles
    }

    /// Chooses the profile of a request: the one it names, else its namespace's, else the default.
    ///
    /// # Errors
    ///
    /// A sentence, if no profile has the name.
    pub fn choose(
        &self,
        named: Option<&str>,
        namespace: &str,
    ) -> Result<Option<ChosenProfile>, String> {
        let of_namespace = || self.namespaces.get(namespace).or(self.default.as_ref());
        let Some(name) = named.or_else(|| of_namespace().map(String::as_str)) else {
            return Ok(None);
        };
        let profile = self.profiles.get(name).ok_or_else(|| self.unknown(name))?;
        Ok(Some(ChosenProfile {
            name: name.to_string(),
            profile: profile.clone(),
        }))
    }

    /// The name of the profile of requests that choose none.
    pub fn default_of(&self, namespace: &str) -> Option<&str> {
        let name = self.namespaces.get(namespace).or(self.default.as_ref());
        name.map(String::as_str)
    }

    fn unknown(&self, name: &str) -> String {
        if self.profiles.is_empty() {
            return format!("unknown profile {name:?}; this service defines no profiles");
        }
        let known: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
        let hint = did_you_mean(name, known.iter().copied());
        let known = known.join(", ");
        format!("unknown profile {name:?}; known: {known}{hint}")
    }
}

impl Profile {
    fn check(&self, place: &str, wrong: &mut Vec<String>) {
        for (key, value) in &self.node_selector {
            if metadata::check_label_value(value).is_err() || key.is_empty() {
                wrong.push(format!(
                    "{place}.node_selector.{key}: {value:?}: {}",
                    metadata::NameFault::LabelValue
                ));
            }
        }
        let names = [
            ("priority_class", &self.priority_class),
            ("queue", &self.queue),
            ("service_account", &self.service_account),
        ];
        let names = names
            .into_iter()
            .filter_map(|(member, name)| Some((member, name.as_ref()?)));
        let secrets = self
            .image_pull_secrets
            .iter()
            .map(|name| ("image_pull_secrets", name));
        let classes = self
            .allow_priority_classes
            .iter()
            .map(|name| ("allow_priority_classes", name));
        for (member, name) in names.chain(secrets).chain(classes) {
            if !metadata::is_dns_subdomain(name) {
                wrong.push(format!(
                    "{place}.{member}: {name:?} is not a valid name; use a-z, 0-9, '-' and '.', \
                     starting and ending with a letter or digit"
                ));
            }
        }
        let not_extended = |name: &&String| !metadata::is_extended_resource(name);
        if let Some(name) = self.gpu_resource.as_ref().filter(not_extended) {
            wrong.push(format!(
                "{place}.gpu_resource: {name:?} is not a valid extended resource name; example: \
                 amd.com/gpu"
            ));
        }
        let policy = self.scheduling_policy.as_ref();
        wrong.extend(policy.and_then(|p| p.check(&format!("{place}.scheduling_policy"))));
        if self.gpu_memory_gb == Some(0) {
            wrong.push(format!(
                "{place}.gpu_memory_gb: 0 is not a size; give GiB, or leave it out"
            ));
        }
        for (member, keys) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            for key in keys.keys() {
                if let Err(finding) = metadata::check_operator_key(key) {
                    wrong.push(format!("{place}.{member}: {key:?}: {finding}"));
                }
            }
        }
        for (key, value) in &self.labels {
            if let Err(finding) = metadata::check_label_value(value) {
                wrong.push(format!("{place}.labels.{key}: {value:?}: {finding}"));
            }
        }
        self.check_variables(place, wrong);
        self.check_security(place, wrong);
        let mut taken = BTreeSet::from([SHARED_MEMORY_VOLUME]);
        for (index, ProfileVolume { volume, mount }) in self.volumes.iter().enumerate() {
            let place = format!("{place}.volumes[{index}]");
            let name = volume.name.as_str();
            if !metadata::is_dns_label(name) || name.starts_with(CLAIM_VOLUME_PREFIX) {
                wrong.push(format!(
                    "{place}.volume.name: {name:?} is not a valid volume name; use 1-63 characters a-z, \
                     0-9 and '-', and do not start with {CLAIM_VOLUME_PREFIX}, which is reserved"
                ));
            }
            if !taken.insert(name) {
                wrong.push(format!(
                    "{place}.volume.name: {name:?} is already in use; choose another name"
                ));
            }
            if !mount.mount_path.starts_with('/') {
                wrong.push(format!(
                    "{place}.mount.mountPath: {:?} is not an absolute path; it must start with /",
                    mount.mount_path
                ));
            }
        }
    }
}

impl Profile {
    fn check_variables(&self, place: &str, wrong: &mut Vec<String>) {
        let texts = self.env.keys().map(|name| ("env", name));
        let secrets = self.env_secrets.keys().map(|name| ("env_secrets", name));
        for (member, name) in texts.chain(secrets) {
            if let Err(finding) = metadata::check_request_variable(name) {
                wrong.push(format!("{place}.{member}.{name}: {finding}"));
            }
        }
        for (name, key) in &self.env_secrets {
            if let Err(why) = key.check() {
                wrong.push(format!("{place}.env_secrets.{name}: {why}"));
            }
            if self.env.contains_key(name) {
                wrong.push(format!(
                    "{place}.env_secrets.{name}: is also in env; keep one of the two"
                ));
            }
        }
    }
}

/// Deserializes a part of a pod as strictly as the API server would: an unknown member is an error,
/// which serde alone would drop.
fn strict<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: DeserializeOwned + Serialize,
    D: serde::Deserializer<'de>,
{
    use serde::de::Error;
    let given = Value::deserialize(deserializer)?;
    let read: T = serde_json::from_value(given.clone()).map_err(D::Error::custom)?;
    let kept = serde_json::to_value(&read).map_err(D::Error::custom)?;
    match dropped(&given, &kept) {
        Some(name) => Err(D::Error::custom(format!("unknown field {name:?}"))),
        None => Ok(read),
    }
}

/// Deserializes a mount. Its name is that of the volume it belongs to.
fn mount<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<VolumeMount, D::Error> {
    #[derive(Deserialize)]
    struct Nameless {
        #[serde(flatten)]
        members: Map<String, Value>,
    }
    let Nameless { mut members } = Nameless::deserialize(deserializer)?;
    members.entry("name").or_insert_with(|| Value::from(""));
    strict(Value::Object(members)).map_err(serde::de::Error::custom)
}

/// A member of the first value that is missing from the second.
fn dropped<'a>(given: &'a Value, kept: &Value) -> Option<&'a str> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            given.iter().find_map(|(name, value)| match kept.get(name) {
                Some(kept) => dropped(value, kept),
                // Empty and null members are not serialized again.
                None => match value {
                    Value::Null => None,
                    Value::Array(items) if items.is_empty() => None,
                    Value::Object(members) if members.is_empty() => None,
                    _ => Some(name),
                },
            })
        }
        (Value::Array(given), Value::Array(kept)) => given
            .iter()
            .zip(kept)
            .find_map(|(given, kept)| dropped(given, kept)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
