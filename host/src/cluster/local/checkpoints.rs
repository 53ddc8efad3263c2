//! The checkpoints that a prefix on this machine has from an earlier run.

use std::path::{Path, PathBuf};

/// The newest step of a prefix, or nothing where it has none or this machine does not have it.
/// `claims` is the folder of `pvc://` URIs.
pub async fn newest_step(prefix: &str, claims: &Path) -> Option<u64> {
    let folder = folder(prefix, claims)?.join("checkpoints");
    let mut entries = tokio::fs::read_dir(folder).await.ok()?;
    let mut newest = None;
    while let Ok(Some(entry)) = entries.next_entry().await {
        newest = newest.max(entry.file_name().to_str().and_then(step));
    }
    newest
}

fn folder(prefix: &str, claims: &Path) -> Option<PathBuf> {
    match prefix.split_once("://")? {
        ("file", path) => Some(PathBuf::from(path)),
        ("pvc", path) => Some(claims.join(path)),
        _ => None,
    }
}

/// The step of a checkpoint: of the file that commits it, or of a name that `train.py` reads too.
fn step(name: &str) -> Option<u64> {
    if let Some(rest) = name.strip_prefix("step-")
        && let Some(digits) = rest.strip_suffix(".json")
    {
        let is_number = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
        return is_number.then(|| digits.parse().ok())?;
    }
    let older = name.strip_prefix("checkpoint-").or_else(|| {
        let (before, after) = name.split_once("step=")?;
        (before.is_empty() || before.ends_with(['-', '_'])).then_some(after)
    })?;
    let end = older.find(|c: char| !c.is_ascii_digit());
    let (digits, rest) = older.split_at(end.unwrap_or(older.len()));
    let ends = rest.is_empty() || rest.starts_with(['-', '.', '_']);
    ends.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checkpoints_have_a_step() {
        let names = [
            ("step-000500.json", Some(500)),
            ("step-1000000.json", Some(1_000_000)),
            ("checkpoint-40", Some(40)),
            ("llama--0.10-step=20-last", Some(20)),
            ("step=7.ckpt", Some(7)),
            // Not committed.
            ("step-000500", None),
            ("step-000500.pt", None),
            ("step-000500.part-1.json", None),
            ("checkpoint-40x", None),
            ("notes.txt", None),
        ];
        for (name, expected) in names {
            assert_eq!(step(name), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn the_newest_step_is_found_in_folders_and_claims_alone() {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = root.path().join("claim/run/checkpoints");
        std::fs::create_dir_all(&checkpoints).unwrap();
        for name in ["step-000003.json", "step-000020.json", "step-000030.pt"] {
            std::fs::write(checkpoints.join(name), "").unwrap();
        }
        let file = format!("file://{}/claim/run", root.path().display());
        assert_eq!(newest_step(&file, root.path()).await, Some(20));
        assert_eq!(newest_step("pvc://claim/run", root.path()).await, Some(20));
        assert_eq!(newest_step("pvc://claim/other", root.path()).await, None);
        assert_eq!(newest_step("s3://claim/run", root.path()).await, None);
    }
}
