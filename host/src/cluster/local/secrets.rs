//! The secrets of the local cluster: a file for each key, which only the service's user can read.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::job::Mask;
use crate::keys::CONTAINER;
use crate::pytorch_job::{PyTorchJob, ReplicaSpec};
use crate::request::SecretKey;

/// Maximum size of a value in bytes: the limit of Linux for a variable, less its name.
const MAX_BYTES: usize = 120 * 1024;

/// The secrets in a data folder.
#[derive(Clone, Debug)]
pub struct Secrets {
    folder: PathBuf,
}

/// A key of a secret that a job needs and that is not there.
#[derive(Debug, thiserror::Error)]
#[error(
    "env.{variable}: secret {} of namespace {namespace} has no key {} on this machine; store it with \
     `trainer secret set {} {} --namespace {namespace}`",
    key.secret, key.key, key.secret, key.key
)]
pub struct MissingSecret {
    variable: String,
    namespace: String,
    key: SecretKey,
}

impl Secrets {
    /// Of a data folder.
    pub fn of(data_folder: &Path) -> Self {
        Self {
            folder: data_folder.join("secrets"),
        }
    }

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// If it cannot be the value of a variable, or cannot be written.
    pub fn set(&self, namespace: &str, key: &SecretKey, value: &str) -> io::Result<()> {
        let wrong = |why: &str| Err(io::Error::new(ErrorKind::InvalidInput, why.to_string()));
        if value.is_empty() || value.len() > MAX_BYTES {
            return wrong("a value has 1 to 122880 bytes");
        }
        if value.contains('\0') {
            return wrong("a value must not contain NUL");
        }
        let file = self.file(namespace, key);
        let folder = file.parent().unwrap_or(&self.folder);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // Readers see the old value or the new one.
        let new = folder.join(format!(".{}.{}", key.key, std::process::id()));
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(true).write(true).mode(0o600);
        options.open(&new)?.write_all(value.as_bytes())?;
        std::fs::rename(new, file)
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
            Err(_) => Err(MissingSecret {
                variable,
                namespace: namespace.to_string(),
                key,
            }),
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
        std::fs::read_to_string(self.file(namespace, key))
    }

    /// The names are checked before they get here, and none of them has a slash.
    fn file(&self, namespace: &str, key: &SecretKey) -> PathBuf {
        self.folder.join(namespace).join(&key.secret).join(&key.key)
    }
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
}
