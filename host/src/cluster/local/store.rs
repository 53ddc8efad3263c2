//! The jobs of the local cluster on disk: one redb table, written before anything is answered.
//!
//! After a failed write the database is closed, and the next write opens it again: redb refuses
//! everything after an I/O error. Whether a write that failed is on disk is not known, so the next
//! one first puts back what stood there before.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tracing::info;

use super::folder::{FolderError, patiently};
use crate::cluster::ClusterError;
use crate::job::PodDetails;
use crate::pytorch_job::PyTorchJob;

/// `namespace/name` to a [`Record`] as JSON.
const JOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("jobs");
/// Written to find out whether the disk takes writes.
const PROBE: TableDefinition<&str, u64> = TableDefinition::new("probe");

/// A job and what has to be remembered of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub job: PyTorchJob,
    /// Restarts of all replicas after a failure, against the backoff limit.
    pub restarts: u32,
    /// What stands for pods here, by name, once their replicas have been started.
    #[serde(default)]
    pub pods: BTreeMap<String, PodDetails>,
    /// The creation time in microseconds since 1970. The time in the manifest has a resolution of one
    /// second, which does not order jobs that are created in the same second.
    #[serde(default)]
    created_us: Option<i64>,
}

impl Record {
    /// A job that was just created.
    pub fn new(job: PyTorchJob) -> Self {
        let created = job.metadata.creation_timestamp.as_ref();
        Self {
            created_us: created.map(|created| created.0.as_microsecond()),
            job,
            restarts: 0,
            pods: BTreeMap::new(),
        }
    }

    /// Where the job stands in the store.
    pub fn key(&self) -> String {
        key(self.job.namespace(), self.job.name())
    }

    /// Restores what the manifest does not keep.
    fn read(mut self) -> Self {
        let created = self.created_us.map(Timestamp::from_microsecond);
        if let Some(Ok(created)) = created {
            self.job.metadata.creation_timestamp = Some(Time(created));
        }
        self
    }
}

/// Where a job stands in the store.
pub fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// The database is read only at start, so its pages need not stay in memory.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The store. Each call waits for the disk.
pub struct Store {
    open: Opener,
    state: Mutex<State>,
}

struct State {
    /// Absent after a failure.
    database: Option<Database>,
    /// What stood in the store before the writes that failed.
    before: BTreeMap<String, Option<Vec<u8>>>,
    /// Why the last write failed.
    failure: Option<String>,
}

impl Store {
    /// Opens the store of a data folder, or makes it.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, for example because another service has it open.
    pub fn open(folder: &Path) -> Result<Self, ClusterError> {
        let doing = "opening the store of jobs";
        let path = folder.join("jobs.redb");
        make_private(&path).map_err(|error| ClusterError::internal(doing, error))?;
        let open = move || {
            let mut options = redb::Builder::new();
            options.set_cache_size(CACHE_BYTES).create(&path)
        };
        // A child of a killed service has its lock until it runs its own program.
        let held = |error: &DatabaseError| matches!(error, DatabaseError::DatabaseAlreadyOpen);
        let opener: Opener = Box::new(open.clone());
        let database = patiently(open, held).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => ClusterError::internal(
                doing,
                FolderError::InUse {
                    path: folder.to_path_buf(),
                    pid: None,
                },
            ),
            error => ClusterError::internal(doing, error),
        })?;
        Self::with(database, opener)
    }

    fn with(database: Database, open: Opener) -> Result<Self, ClusterError> {
        let state = State {
            database: Some(database),
            before: BTreeMap::new(),
            failure: None,
        };
        let store = Self {
            open,
            state: Mutex::new(state),
        };
        // A reader of a table that was never written finds none.
        store.write("opening the store of jobs", None)?;
        Ok(store)
    }

    /// Writes a job.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put(&self, record: &Record) -> Result<(), ClusterError> {
        let doing = "storing a job";
        let bytes = serde_json::to_vec(record);
        let bytes = bytes.map_err(|error| ClusterError::internal(doing, error))?;
        self.write(doing, Some((record.key(), Some(bytes))))
    }

    /// Removes a job.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn remove(&self, key: &str) -> Result<(), ClusterError> {
        self.write("deleting a job", Some((key.to_string(), None)))
    }

    /// Whether the disk takes writes. Tries one if the last one failed.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn check(&self) -> Result<(), ClusterError> {
        if self.state().failure.is_none() {
            return Ok(());
        }
        self.write("writing to the store of jobs", None)
    }

    /// All jobs.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn all(&self) -> Result<Vec<Record>, ClusterError> {
        let mut state = self.state();
        let mut read = || -> Result<Vec<Record>, Failure> {
            let database = state.database(&self.open)?;
            let table = database.begin_read()?.open_table(JOBS)?;
            let mut records = Vec::new();
            for entry in table.iter()? {
                let (_, value) = entry?;
                let record: Record = serde_json::from_slice(value.value())?;
                records.push(record.read());
            }
            Ok(records)
        };
        read().map_err(|error| ClusterError::internal("reading the store of jobs", error))
    }

    fn write(&self, doing: &'static str, change: Option<Change>) -> Result<(), ClusterError> {
        let mut state = self.state();
        match state.write(&self.open, change) {
            Ok(()) => {
                if state.failure.take().is_some() {
                    info!("the store of jobs can be written again");
                }
                Ok(())
            }
            Err(error) => {
                // Nothing that was opened before an I/O error can be used after it.
                state.database = None;
                state.failure = Some(error.to_string());
                Err(ClusterError::NotStored {
                    action: doing,
                    source: error,
                })
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key and its new value, `None` to remove it.
type Change = (String, Option<Vec<u8>>);
type Failure = Box<dyn std::error::Error + Send + Sync>;

impl State {
    fn database(&mut self, open: &Opener) -> Result<&Database, Failure> {
        if self.database.is_none() {
            self.database = Some(open()?);
        }
        self.database
            .as_ref()
            .ok_or_else(|| "the store is closed".into())
    }

    fn write(&mut self, open: &Opener, change: Option<Change>) -> Result<(), Failure> {
        let mut before = std::mem::take(&mut self.before);
        let written = self.transact(open, &mut before, change);
        match written {
            Ok(()) => Ok(()),
            Err(error) => {
                self.before = before;
                Err(error)
            }
        }
    }

    fn transact(
        &mut self,
        open: &Opener,
        before: &mut BTreeMap<String, Option<Vec<u8>>>,
        change: Option<Change>,
    ) -> Result<(), Failure> {
        let transaction = self.database(open)?.begin_write()?;
        {
            let mut jobs = transaction.open_table(JOBS)?;
            for (key, value) in before.iter() {
                set(&mut jobs, key, value.as_deref())?;
            }
            if let Some((key, value)) = change {
                let old = jobs.get(key.as_str())?.map(|old| old.value().to_vec());
                before.entry(key.clone()).or_insert(old);
                set(&mut jobs, &key, value.as_deref())?;
            } else {
                let mut probe = transaction.open_table(PROBE)?;
                let last = probe.get("writes")?.map_or(0, |last| last.value());
                probe.insert("writes", last.wrapping_add(1))?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn set(
    jobs: &mut redb::Table<&str, &[u8]>,
    key: &str,
    value: Option<&[u8]>,
) -> Result<(), redb::StorageError> {
    match value {
        Some(value) => jobs.insert(key, value).map(drop),
        None => jobs.remove(key).map(drop),
    }
}

/// Makes the file for this user alone. redb makes it with the rights that the umask leaves.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW).open(path).map(drop)
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
