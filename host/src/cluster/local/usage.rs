//! What the logs of all jobs take on disk together. It is measured now and again: each log has its
//! own limit, so between two measurements they grow by a bounded amount.

use std::fs::{DirEntry, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cluster::ClusterError;

/// The shortest time between two measurements.
const SHORTEST: Duration = Duration::from_secs(1);
/// Measuring takes at most this part of the time.
const PART: u32 = 20;
/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// The bytes on disk of all logs.
#[derive(Clone, Debug)]
pub struct LogUsage {
    /// The folder with a folder of logs for each job.
    folder: PathBuf,
    allowed: u64,
    known: Arc<Mutex<Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    bytes: u64,
    /// When to measure again. None while somebody does.
    due: Option<Instant>,
}

impl LogUsage {
    pub fn new(folder: PathBuf, allowed: u64) -> Self {
        let known = Known {
            bytes: 0,
            due: Some(Instant::now()),
        };
        Self {
            folder,
            allowed,
            known: Arc::new(Mutex::new(known)),
        }
    }

    /// Whether another job may be kept.
    ///
    /// # Errors
    ///
    /// How much the logs take, and how to get room.
    pub async fn check(&self) -> Result<(), ClusterError> {
        if self.begins_to_measure(Instant::now()) {
            let usage = self.clone();
            let measured = tokio::task::spawn_blocking(move || usage.measure());
            // Wait only if the job would be refused otherwise.
            if self.known().bytes > self.allowed {
                let _ = measured.await;
            }
        }
        let (bytes, allowed) = (self.known().bytes, self.allowed);
        if bytes <= allowed {
            return Ok(());
        }
        Err(ClusterError::Refused {
            message: format!(
                "the logs of the jobs that are kept take {bytes} bytes on disk, \
                 TRAINER_LOCAL_MAX_LOG_TOTAL_MB allows {allowed}. Delete jobs that have ended"
            ),
        })
    }

    fn begins_to_measure(&self, now: Instant) -> bool {
        let mut known = self.known();
        let is_due = known.due.is_some_and(|due| due <= now);
        if is_due {
            known.due = None;
        }
        is_due
    }

    fn measure(&self) {
        let begun = Instant::now();
        let bytes = bytes_below(&self.folder);
        let wait = SHORTEST.max(begun.elapsed() * PART);
        *self.known() = Known {
            bytes,
            due: Some(Instant::now() + wait),
        };
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes on disk of all files in a folder. Jobs come and go meanwhile, and a job can write what
/// it likes into its own folder: symbolic links are not followed.
fn bytes_below(folder: &Path) -> u64 {
    let mut folders = vec![folder.to_path_buf()];
    let mut bytes: u64 = 0;
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for (entry, metadata) in entries.filter_map(with_metadata) {
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            bytes = bytes.saturating_add(metadata.blocks() * BLOCK_BYTES);
        }
    }
    bytes
}

fn with_metadata(entry: DirEntry) -> Option<(DirEntry, Metadata)> {
    // Of the entry itself, not of what a link points to.
    let metadata = entry.metadata().ok()?;
    Some((entry, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, bytes: usize) {
        let file = folder.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, vec![b'x'; bytes]).unwrap();
    }

    #[test]
    fn files_count_with_what_they_take_on_disk_and_links_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let empty = bytes_below(folder.path());
        write(folder.path(), "a/b/0.log", 100_000);
        let sparse = std::fs::File::create(folder.path().join("a/b/1.log")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("a/b/root")).unwrap();
        let taken = bytes_below(folder.path()) - empty;
        assert!((100_000..200_000).contains(&taken), "{taken}");
    }

    #[tokio::test]
    async fn a_job_is_refused_while_the_logs_take_too_much() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a/0.log", 200_000);
        let usage = LogUsage::new(folder.path().to_path_buf(), 100_000);
        usage.measure();
        let refused = usage.check().await.unwrap_err().to_string();
        assert!(
            refused.contains("TRAINER_LOCAL_MAX_LOG_TOTAL_MB"),
            "{refused}"
        );
        std::fs::remove_file(folder.path().join("a/0.log")).unwrap();
        // Measured again as soon as it is due.
        usage.known().due = Some(Instant::now());
        usage.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_job_waits_for_no_measurement_while_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let usage = LogUsage::new(folder.path().to_path_buf(), 100_000);
        usage.known().due = None;
        usage.check().await.unwrap();
    }
}
