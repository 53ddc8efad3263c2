//! The secrets of the local cluster: a file for each key, which only the service's user can read. With
//! a key for the store, the values are encrypted.

mod store_key;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::job::Mask;
use crate::keys::CONTAINER;
use crate::pytorch_job::{PyTorchJob, ReplicaSpec};
use crate::request::SecretKey;
pub use store_key::{NoKey, StoreKey};

/// Maximum size of a value in bytes: the limit of Linux for a variable, less its name.
const MAX_BYTES: usize = 120 * 1024;

/// The secrets in a data folder.
#[derive(Clone, Debug)]
pub struct Secrets {
    folder: PathBuf,
    store_key: Option<StoreKey>,
}

/// A key of a secret that a job needs and cannot have.
#[derive(Debug, thiserror::Error)]
pub enum MissingSecret {
    #[error(
        "env.{variable}: secret {} of namespace {namespace} has no key {} on this machine; store it \
         with `trainer secret set {} {} --namespace {namespace}`",
        key.secret, key.key, key.secret, key.key
    )]
    Absent {
        variable: String,
        namespace: String,
        key: SecretKey,
    },
    #[error(
        "env.{variable}: key {} of secret {} of namespace {namespace} cannot be read on this machine; \
         the log of the service says why",
        key.key, key.secret
    )]
    Unreadable {
        variable: String,
        namespace: String,
        key: SecretKey,
    },
}

impl Secrets {
    /// Of a data folder.
    pub fn of(data_folder: &Path) -> Self {
        Self {
            folder: data_folder.join("secrets"),
            store_key: None,
        }
    }

    /// Encrypts new values with a key, and decrypts stored ones.
    #[must_use]
    pub fn with_key(self, store_key: Option<StoreKey>) -> Self {
        Self { store_key, ..self }
    }

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// If it cannot be the value of a variable, or cannot be written.
    pub fn set(&self, namespace: &str, key: &SecretKey, value: &str) -> io::Result<()> {
        check_value(value)?;
        self.store(namespace, key, value.as_bytes())
    }

    fn store(&self, namespace: &str, key: &SecretKey, value: &[u8]) -> io::Result<()> {
        let content = match &self.store_key {
            Some(store_key) => store_key.seal(&place(namespace, key), value)?,
            None => value.to_vec(),
        };
        let file = self.file(namespace, key);
        let folder = file.parent().unwrap_or(&self.folder);
        create_private(folder)?;
        // Readers see the old value or the new one.
        let new = folder.join(format!(".{}.{}", key.key, std::process::id()));
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(true).write(true).mode(0o600);
        options.open(&new)?.write_all(&content)?;
        std::fs::rename(new, file)
    }

    /// Creates the folder, so that it can be hidden from jobs. Encrypts the values that were stored without
    /// a key, and gives their number. Checks that all others can be read.
    ///
    /// # Errors
    ///
    /// The first value that cannot be read or written, by its name.
    pub fn secure(&self) -> io::Result<usize> {
        create_private(&self.folder)?;
        let mut encrypted = 0;
        for namespace in names(&self.folder)? {
            for key in self.list(&namespace)? {
                let named = |why: io::Error| {
                    let place = place(&namespace, &key);
                    io::Error::new(why.kind(), format!("secret {place}: {why}"))
                };
                let value = self.read(&namespace, &key).map_err(named)?;
                let content = std::fs::read(self.file(&namespace, &key)).map_err(named)?;
                if self.store_key.is_some() && !store_key::is_sealed(&content) {
                    self.store(&namespace, &key, value.as_bytes())
                        .map_err(named)?;
                    encrypted += 1;
                }
            }
        }
        Ok(encrypted)
    }

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn delete(&self, namespace: &str, key: &SecretKey) -> io::Result<()> {
        std::fs::remove_file(self.file(namespace, key))
    }

    /// The secrets and keys of a namespace, without values.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn list(&self, namespace: &str) -> io::Result<Vec<SecretKey>> {
        let mut keys = Vec::new();
        for secret in names(&self.folder.join(namespace))? {
            for key in names(&self.folder.join(namespace).join(&secret))? {
                let secret = secret.clone();
                keys.push(SecretKey { secret, key });
            }
        }
        keys.sort();
        Ok(keys)
    }

    /// Masks all values of a namespace.
    pub fn mask(&self, namespace: &str) -> Mask {
        let keys = self.list(namespace).unwrap_or_default();
        let values = keys.iter().filter_map(|key| self.read(namespace, key).ok());
        Mask::new(values)
    }

    /// The values of the variables of a replica that come from secrets.
    ///
    /// # Errors
    ///
    /// The first key that is missing.
    pub fn resolve(
        &self,
        namespace: &str,
        replica: &ReplicaSpec,
    ) -> Result<BTreeMap<String, String>, MissingSecret> {
        let values = references(replica).map(|(variable, key)| match self.read(namespace, &key) {
            Ok(value) => Ok((variable, value)),
            Err(why) => Err(MissingSecret::of(variable, namespace, key, &why)),
        });
        values.collect()
    }

    /// Checks that a job can have its secrets.
    ///
    /// # Errors
    ///
    /// The first key that is missing.
    pub fn check(&self, job: &PyTorchJob) -> Result<(), MissingSecret> {
        let master = &job.spec.pytorch_replica_specs.master;
        self.resolve(job.namespace(), master).map(drop)
    }

    fn read(&self, namespace: &str, key: &SecretKey) -> io::Result<String> {
        let content = std::fs::read(self.file(namespace, key))?;
        let value = store_key::open(self.store_key.as_ref(), &place(namespace, key), content);
        let value = value.map_err(|why| io::Error::new(ErrorKind::PermissionDenied, why))?;
        String::from_utf8(value)
            .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
    }

    /// The names are checked before they get here, and none of them has a slash.
    fn file(&self, namespace: &str, key: &SecretKey) -> PathBuf {
        self.folder.join(namespace).join(&key.secret).join(&key.key)
    }
}

impl MissingSecret {
    fn of(variable: String, namespace: &str, key: SecretKey, why: &io::Error) -> Self {
        let place = place(namespace, &key);
        let namespace = namespace.to_string();
        if why.kind() == ErrorKind::NotFound {
            return Self::Absent {
                variable,
                namespace,
                key,
            };
        }
        warn!(secret = place, %why, "cannot read a secret");
        Self::Unreadable {
            variable,
            namespace,
            key,
        }
    }
}

fn create_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Checks that a text can be the value of a variable.
fn check_value(value: &str) -> io::Result<()> {
    let wrong = |why: &str| Err(io::Error::new(ErrorKind::InvalidInput, why.to_string()));
    if value.is_empty() {
        return wrong("the value is empty; send it on standard input");
    }
    if value.len() > MAX_BYTES {
        return wrong("the value has more than 122880 bytes, the limit for a variable");
    }
    if value.contains('\0') {
        return wrong("a value must not contain NUL");
    }
    Ok(())
}

/// The name of a key, by which its value is encrypted.
fn place(namespace: &str, key: &SecretKey) -> String {
    format!("{namespace}/{}/{}", key.secret, key.key)
}

/// The names of the files in a folder, without temporary ones. A folder that is missing has none.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.retain(|name| !name.starts_with('.'));
    Ok(names)
}

/// The variables of a replica that come from secrets.
fn references(replica: &ReplicaSpec) -> impl Iterator<Item = (String, SecretKey)> {
    let pods = replica.template.spec.iter();
    let containers = pods.flat_map(|pod| &pod.containers);
    let trainer = containers.filter(|container| container.name == CONTAINER);
    let variables = trainer.flat_map(|container| container.env.iter().flatten());
    variables.filter_map(|variable| {
        let reference = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        let key = SecretKey {
            secret: reference.name.clone(),
            key: reference.key.clone(),
        };
        Some((variable.name.clone(), key))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(secret: &str, key: &str) -> SecretKey {
        SecretKey {
            secret: secret.to_string(),
            key: key.to_string(),
        }
    }

    #[test]
    fn a_value_is_for_the_service_alone_and_masked_in_its_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::of(folder.path());
        let hub = key("hf-token", "token");
        secrets.set("team-a", &hub, "first-value").unwrap();
        secrets.set("team-a", &hub, "second-value").unwrap();
        let file = folder.path().join("secrets/team-a/hf-token/token");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(secrets.list("team-a").unwrap(), std::slice::from_ref(&hub));
        assert_eq!(secrets.mask("team-a").text("my second-value"), "my ***");
        assert!(secrets.mask("team-b").is_empty());
        secrets.delete("team-a", &hub).unwrap();
        assert_eq!(secrets.list("team-a").unwrap(), []);
        assert!(secrets.set("team-a", &hub, "nul\0").is_err());
    }

    #[test]
    fn a_store_with_a_key_has_no_plain_value_and_needs_that_key() {
        let folder = tempfile::tempdir().unwrap();
        let store_key = |digits: &str| Some(StoreKey::parse(&digits.repeat(32)).unwrap());
        let plain = Secrets::of(folder.path());
        let sealed = plain.clone().with_key(store_key("5a"));
        let (hub, late) = (key("hf-token", "token"), key("late", "token"));
        plain.set("team-a", &hub, "hunter2-hub").unwrap();
        sealed.set("team-b", &late, "hunter2-late").unwrap();
        // What was stored before there was a key.
        assert_eq!(sealed.mask("team-a").text("hunter2-hub"), "***");
        assert_eq!((sealed.secure().unwrap(), sealed.secure().unwrap()), (1, 0));
        for (namespace, key) in [("team-a", &hub), ("team-b", &late)] {
            let content = std::fs::read(sealed.file(namespace, key)).unwrap();
            assert!(store_key::is_sealed(&content));
            assert!(sealed.read(namespace, key).unwrap().starts_with("hunter2-"));
        }
        let without = plain.secure().unwrap_err().to_string();
        assert!(
            without.contains("secret team-a/hf-token/token: it is encrypted"),
            "{without}"
        );
        let other = plain
            .with_key(store_key("5b"))
            .secure()
            .unwrap_err()
            .to_string();
        assert!(other.contains("it cannot be decrypted"), "{other}");
        // A file in the place of another is refused.
        std::fs::copy(sealed.file("team-b", &late), sealed.file("team-a", &hub)).unwrap();
        assert!(sealed.read("team-a", &hub).is_err());
    }
}
