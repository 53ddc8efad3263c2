//! `trainer runtimes`: the ClusterTrainingRuntimes that TrainJobs refer to.

use std::io::Write;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use crate::config::profiles_in;
use crate::manifest;
use crate::profile::Profiles;
use crate::request::DEFAULT_IMAGE;

/// The arguments of `trainer runtimes`.
#[derive(Debug, Args)]
pub struct RuntimesSettings {
    /// YAML file with placement profiles. Without one, only the runtime of jobs without a profile is
    /// printed.
    #[arg(long, env = "TRAINER_PROFILES")]
    pub profiles: Option<PathBuf>,
}

pub(super) fn runtimes(settings: &RuntimesSettings) -> anyhow::Result<()> {
    let profiles = profiles_in(settings.profiles.as_ref())?;
    let text = yaml(&profiles)?;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The runtimes of profiles, as a stream of YAML documents.
fn yaml(profiles: &Profiles) -> anyhow::Result<String> {
    // Every job sets its own image.
    let runtimes = manifest::runtimes(profiles, DEFAULT_IMAGE);
    let runtimes = runtimes.map_err(|wrong| anyhow!("{}", wrong.join("\n  ")))?;
    let mut text = String::new();
    for runtime in runtimes {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&runtime)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn documents(profiles: Value) -> Result<Vec<Value>, String> {
        let profiles: Profiles = serde_json::from_value(profiles).unwrap();
        let text = yaml(&profiles).map_err(|error| error.to_string())?;
        let documents = text.split("---\n").filter(|text| !text.is_empty());
        Ok(documents
            .map(|text| serde_saphyr::from_str(text).unwrap())
            .collect())
    }

    #[test]
    fn deploy_has_the_runtime_of_jobs_without_a_profile() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../deploy/components/trainjob/runtime.yaml"
        );
        let deployed = std::fs::read_to_string(file).unwrap();
        let deployed: Value = serde_saphyr::from_str(&deployed).unwrap();
        assert_eq!(
            vec![deployed],
            documents(json!({})).unwrap(),
            "write it with `trainer runtimes`"
        );
    }

    #[test]
    fn a_runtime_has_what_a_train_job_cannot_express() {
        let runtimes = documents(json!({"profiles": {"a100": {
            "priority_class": "research", "shared_memory_gb": 32, "backoff_limit": 7,
            "automount_service_account_token": true,
            "security_context": {"capabilities": {"add": ["IPC_LOCK"]}},
        }}}))
        .unwrap();
        assert_eq!(runtimes[0]["metadata"]["name"], "deepfinery-torch");
        assert_eq!(runtimes[1]["metadata"]["name"], "deepfinery-torch-a100");
        let job_set = &runtimes[1]["spec"]["template"]["spec"];
        assert_eq!(job_set["failurePolicy"]["maxRestarts"], 7);
        let job = &job_set["replicatedJobs"][0]["template"]["spec"];
        assert_eq!(job["backoffLimit"], 0);
        let codes = &job["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"];
        assert_eq!(*codes, json!([78, 126, 127]));
        assert_eq!(job["successPolicy"]["rules"][0]["succeededIndexes"], "0");
        let pod = &job["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Never");
        assert_eq!(pod["priorityClassName"], "research");
        assert_eq!(pod["volumes"][0]["emptyDir"]["sizeLimit"], "32Gi");
        assert_eq!(pod["automountServiceAccountToken"], true);
        let capabilities = &pod["containers"][0]["securityContext"]["capabilities"];
        assert_eq!(*capabilities, json!({"add": ["IPC_LOCK"], "drop": ["ALL"]}));
        assert_eq!(
            runtimes[0]["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"],
            3
        );
    }

    #[test]
    fn a_profile_whose_jobs_are_to_be_deleted_after_a_time_has_no_runtime() {
        let refused = documents(json!({"profiles": {"a": {"ttl_seconds_after_finished": 60}}}));
        let refused = refused.unwrap_err();
        assert!(
            refused.starts_with("profiles.a.ttl_seconds_after_finished: "),
            "{refused}"
        );
    }
}
