//! The jobs of the local cluster on disk: one redb table, written before anything is answered.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterError;
use crate::job::{PodDetails, PyTorchJob};

/// `namespace/name` to a [`Record`] as JSON.
const JOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("jobs");

/// A job and what the supervisor has to remember of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub job: PyTorchJob,
    /// Restarts of all replicas after a failure, against the backoff limit.
    pub restarts: u32,
    /// What stands for pods here, by name, once their replicas have been started.
    #[serde(default)]
    pub pods: BTreeMap<String, PodDetails>,
}

impl Record {
    /// A job that was just created.
    pub fn new(job: PyTorchJob) -> Self {
        Self {
            job,
            restarts: 0,
            pods: BTreeMap::new(),
        }
    }

    /// Where the job stands in the store.
    pub fn key(&self) -> String {
        key(self.job.namespace(), self.job.name())
    }
}

/// Where a job stands in the store.
pub fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// The store. Each call waits for the disk.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the store, or makes it.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, for example because another service has it open.
    pub fn open(path: &Path) -> Result<Self, ClusterError> {
        let doing = "opening the store of jobs";
        let database = Database::create(path).map_err(|e| ClusterError::internal(doing, e))?;
        let store = Self { database };
        store.write(doing, |table| {
            let _ = table;
            Ok(())
        })?;
        Ok(store)
    }

    /// Adds a job.
    ///
    /// # Errors
    ///
    /// [`ClusterError::AlreadyExists`] when its name is taken.
    pub fn insert(&self, record: &Record) -> Result<(), ClusterError> {
        let key = record.key();
        self.write("storing a job", |table| {
            if table.get(key.as_str())?.is_some() {
                let name = record.job.name().to_string();
                let run_id = None;
                return Ok(Err(ClusterError::AlreadyExists { name, run_id }));
            }
            table.insert(key.as_str(), bytes(record)?.as_slice())?;
            Ok(Ok(()))
        })?
    }

    /// Replaces a job.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn update(&self, record: &Record) -> Result<(), ClusterError> {
        self.write("storing a job's state", |table| {
            table.insert(record.key().as_str(), bytes(record)?.as_slice())?;
            Ok(())
        })
    }

    /// Removes a job.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn remove(&self, key: &str) -> Result<(), ClusterError> {
        self.write("deleting a job", |table| {
            table.remove(key)?;
            Ok(())
        })
    }

    /// All jobs.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn all(&self) -> Result<Vec<Record>, ClusterError> {
        let read = || -> Result<Vec<Record>, Failure> {
            let table = self.database.begin_read()?.open_table(JOBS)?;
            let mut records = Vec::new();
            for entry in table.iter()? {
                let (_, value) = entry?;
                records.push(serde_json::from_slice(value.value())?);
            }
            Ok(records)
        };
        read().map_err(|error| ClusterError::internal("reading the store of jobs", error))
    }

    fn write<T>(
        &self,
        doing: &'static str,
        change: impl FnOnce(&mut redb::Table<&str, &[u8]>) -> Result<T, Failure>,
    ) -> Result<T, ClusterError> {
        let write = || -> Result<T, Failure> {
            let transaction = self.database.begin_write()?;
            let result = change(&mut transaction.open_table(JOBS)?)?;
            transaction.commit()?;
            Ok(result)
        };
        write().map_err(|error| ClusterError::internal(doing, error))
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn bytes(record: &Record) -> Result<Vec<u8>, Failure> {
    Ok(serde_json::to_vec(record)?)
}
