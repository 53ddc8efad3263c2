//! What a job reads from this machine's disk: its dataset and its model have to be there when it is
//! submitted, not when its processes look for them.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::ClusterError;
use crate::job::ObservedJob;
use crate::keys::{DATASET_URI_ANNOTATION, MODEL_ID_ANNOTATION};

/// A disk that takes longer to answer, such as a mount whose server is gone, refuses nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Refuses a job whose dataset or model is a path of this machine that does not exist.
///
/// # Errors
///
/// [`ClusterError::MissingInput`].
pub async fn check(job: &ObservedJob) -> Result<(), ClusterError> {
    let dataset = job.annotation(DATASET_URI_ANNOTATION).unwrap_or_default();
    if let Some(path) = dataset.strip_prefix("file://")
        && is_missing(path).await
    {
        return Err(ClusterError::MissingInput {
            pointer: "/dataset_uri",
            detail: format!("dataset_uri: {dataset} does not exist on this machine"),
        });
    }
    let model = job.annotation(MODEL_ID_ANNOTATION).unwrap_or_default();
    let path = model.strip_prefix("file://").unwrap_or(model);
    if is_missing(path).await {
        return Err(ClusterError::MissingInput {
            pointer: "/model_id",
            detail: format!(
                "model_id: {model} does not exist on this machine; give a folder that exists, or a \
                 name on the hub"
            ),
        });
    }
    Ok(())
}

/// Whether an absolute path certainly does not exist. What this service may not look at may exist.
async fn is_missing(path: &str) -> bool {
    if !Path::new(path).is_absolute() {
        return false;
    }
    let looked = tokio::time::timeout(PATIENCE, tokio::fs::metadata(path)).await;
    let missing = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory);
    looked.is_ok_and(|found| found.is_err_and(|error| missing(error.kind())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_absolute_path_that_is_not_there_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data.jsonl");
        std::fs::write(&file, "").unwrap();
        let path = |path: &Path| path.display().to_string();
        for (path, expected) in [
            (path(folder.path()), false),
            (path(&file), false),
            (path(&folder.path().join("other/")), true),
            (path(&file.join("inside")), true),
            ("meta-llama/Llama-3.1-8B".to_string(), false),
            ("nowhere".to_string(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_missing(&path).await, expected, "{path}");
        }
    }
}
