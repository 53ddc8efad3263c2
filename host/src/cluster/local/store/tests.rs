//! Tests of the store, with a disk that fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::*;

/// A file on a disk that can be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    is_full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.room()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn record(name: &str) -> Record {
    let replicas = json(1);
    let job = serde_json::json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nprocPerNode": "1",
            "runPolicy": {"backoffLimit": 3, "cleanPodPolicy": "Running"},
            "pytorchReplicaSpecs": {"Master": replicas},
        },
    });
    Record::new(serde_json::from_value(job).unwrap())
}

fn json(replicas: u32) -> serde_json::Value {
    let template = serde_json::json!({"spec": {"containers": []}});
    serde_json::json!({
        "replicas": replicas, "restartPolicy": "OnFailure", "template": template,
    })
}

fn names(store: &Store) -> Vec<String> {
    let jobs = store.all().unwrap().into_iter();
    jobs.map(|record| record.job.name().to_string()).collect()
}

#[test]
fn a_store_works_again_when_the_disk_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    let is_full = Arc::new(AtomicBool::new(false));
    let of = is_full.clone();
    let open: Opener = Box::new(move || {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true);
        let disk = Disk {
            file: FileBackend::new(file.open(&path).unwrap())?,
            is_full: of.clone(),
        };
        redb::Builder::new().create_with_backend(disk)
    });
    let store = Store::with(open().unwrap(), open).unwrap();
    store.put(&record("first")).unwrap();
    for _ in 0..3 {
        is_full.store(true, Ordering::Relaxed);
        assert!(store.put(&record("lost")).is_err());
        assert!(store.remove("default/first").is_err());
        let failed = store.check().unwrap_err();
        assert!(matches!(failed, ClusterError::NotStored { .. }), "{failed}");
        is_full.store(false, Ordering::Relaxed);
        store.check().unwrap();
        // What was answered with an error is not there.
        assert_eq!(names(&store), ["first"]);
    }
    store.put(&record("second")).unwrap();
    assert_eq!(names(&store), ["first", "second"]);
}

#[test]
fn a_lock_that_a_child_of_a_killed_service_holds_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let holder = std::process::Command::new("flock")
        .arg(folder.path().join("jobs.redb"))
        .args(["sleep", "1"])
        .spawn();
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    Store::open(folder.path()).unwrap();
    let waited = begun.elapsed();
    holder.unwrap().wait().unwrap();
    assert!(waited > Duration::from_millis(200), "{waited:?}");
}
