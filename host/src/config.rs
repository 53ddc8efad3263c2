//! The settings of a service: flags and the equivalent environment variables.

mod arguments;
mod images;
mod jobs;
mod secrets_key;

pub use arguments::{ClusterKind, LocalArguments, PlanningSettings, ServeSettings};
pub use jobs::{JobKindSetting, profiles_in};
use secrets_key::named_file;
pub use secrets_key::secrets_key;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;

use crate::audit::Audit;
use crate::bundle;
use crate::cluster::kubernetes::KubernetesSettings;
use crate::cluster::local::LocalSettings;
use crate::cluster::local::quota;
use crate::http::Token;
use crate::listen::Limits;
use crate::manifest::runtime_name;
use crate::packages::Images;
use crate::plugin::UnknownArguments;
use crate::profile::Profiles;
use crate::request::{AllowedNamespaces, RequestPolicy};
use crate::token;

const MEBIBYTE: u64 = 1024 * 1024;
/// In the repository: the built plugins, the data of a service, the training programs.
const BUILT_PLUGINS: &str = "target/plugins";
const BUILT_DATA: &str = "target/data";
const TRAINER: &str = "trainer";
/// The file in which a pod finds its own namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// A folder of the user's programs (XDG base directory specification): the one that `variable`
/// names, or `default` in the home folder.
fn user_folder(variable: &str, default: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let in_home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(default));
    let folder = named.filter(|folder| folder.is_absolute()).or_else(in_home);
    folder.unwrap_or_else(std::env::temp_dir).join("trainer")
}

/// Where a user's programs keep what they can create again.
pub fn user_cache() -> PathBuf {
    user_folder("XDG_CACHE_HOME", ".cache")
}

/// Where a service keeps its data.
pub fn data_folder(named: Option<&Path>) -> PathBuf {
    let default = || match is_repository() {
        true => PathBuf::from(BUILT_DATA),
        false => user_folder("XDG_STATE_HOME", ".local/state"),
    };
    named.map_or_else(default, Path::to_path_buf)
}

/// Whether the working directory is a checkout of this project in which plugins were built.
fn is_repository() -> bool {
    Path::new(BUILT_PLUGINS).is_dir()
}

impl PlanningSettings {
    /// Where a service keeps its data.
    pub fn data_folder(&self) -> PathBuf {
        data_folder(self.data_dir.as_deref())
    }

    /// Where a short-lived command caches compiled plugins: in the data folder of the service if it
    /// exists, else in the user's cache folder, so that nothing is created in the working
    /// directory.
    pub fn data_or_cache(&self) -> PathBuf {
        let built = Path::new(BUILT_DATA);
        match &self.data_dir {
            Some(folder) => folder.clone(),
            None if is_repository() && built.is_dir() => built.to_path_buf(),
            None => user_cache(),
        }
    }

    /// The folder with the plugins. Those in this binary are unpacked into the user's cache.
    ///
    /// # Errors
    ///
    /// When they cannot be unpacked.
    pub fn plugins_folder(&self) -> anyhow::Result<PathBuf> {
        match &self.plugins {
            Some(folder) => Ok(folder.clone()),
            None if is_repository() => Ok(PathBuf::from(BUILT_PLUGINS)),
            None => Ok(bundle::unpack(&user_cache())?.plugins),
        }
    }

    /// The policy for requests: what is allowed, and the defaults.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files of profiles or images.
    pub fn policy(&self) -> anyhow::Result<RequestPolicy> {
        Ok(RequestPolicy {
            default_image: self.default_image.clone(),
            default_namespace: self.namespace(),
            default_cpus_per_node: self.default_cpus,
            default_memory_per_node_gb: self.default_memory_gb,
            dataset_schemes: self.dataset_schemes.clone(),
            checkpoint_schemes: self.checkpoint_schemes.clone(),
            profiles: self.profiles()?,
            secrets: None,
            namespaces: self.namespaces(),
            job_kind: self.job_kind.kind().unwrap_or_default(),
            images: images::images_in(self.images.as_ref())?,
        })
    }

    fn profiles(&self) -> anyhow::Result<Profiles> {
        let profiles = profiles_in(self.profiles.as_ref())?;
        if self.job_kind == JobKindSetting::TrainJob {
            let wrong = |wrong: Vec<String>| anyhow::anyhow!("{}", wrong.join("\n  "));
            profiles.check_for_train_jobs().map_err(wrong)?;
        }
        Ok(profiles)
    }

    /// The namespaces that this service may use.
    pub fn namespaces(&self) -> AllowedNamespaces {
        let named = self.allowed_namespaces.iter().map(|name| name.trim());
        let mut named: BTreeSet<String> = named
            .filter(|name| !name.is_empty())
            .map(str::to_string)
            .collect();
        if named.contains("*") {
            return AllowedNamespaces::All;
        }
        named.insert(self.namespace());
        AllowedNamespaces::Only(named)
    }

    /// What plugins do with unknown arguments.
    pub fn unknown_arguments(&self) -> UnknownArguments {
        let default = match self.strict_arguments {
            true => UnknownArguments::Refuse,
            false => UnknownArguments::default(),
        };
        self.unknown_arguments.unwrap_or(default)
    }

    /// The default namespace.
    pub fn namespace(&self) -> String {
        let named = self.jobs_namespace.clone().filter(|name| !name.is_empty());
        let own = || std::fs::read_to_string(POD_NAMESPACE).ok();
        let name = named.or_else(own).unwrap_or_else(|| "default".to_string());
        name.trim().to_string()
    }
}

impl ServeSettings {
    /// Where jobs run.
    pub fn cluster(&self) -> ClusterKind {
        let default = match std::env::var_os("KUBERNETES_SERVICE_HOST") {
            Some(_) => ClusterKind::Kubernetes,
            None => ClusterKind::Local,
        };
        self.cluster.unwrap_or(default)
    }

    /// What is known about the packages of jobs. On the local cluster, images are not used.
    pub fn images(&self, of_images: Images) -> Images {
        match self.cluster() {
            ClusterKind::Kubernetes => of_images,
            ClusterKind::Local => images::local_packages(self.local.local_python.as_deref()),
        }
    }

    /// How to connect to Kubernetes.
    pub fn kubernetes_cluster(&self, profiles: &Profiles) -> KubernetesSettings {
        let named = profiles.all().keys();
        let named = named.map(|name| runtime_name(Some(name)));
        KubernetesSettings {
            job_kind: self.planning.job_kind.kind(),
            runtimes: std::iter::once(runtime_name(None)).chain(named).collect(),
            context: self.kube_context.clone().filter(|name| !name.is_empty()),
            default_namespace: self.planning.namespace(),
            namespaces: self.planning.namespaces(),
        }
    }

    /// The token that clients must send, if any.
    ///
    /// # Errors
    ///
    /// If the token cannot be sent in a header, if it is given twice, or if there is none and other
    /// machines can reach the service.
    pub fn token(&self) -> anyhow::Result<Option<Token>> {
        let given = token::given("TRAINER_API_TOKEN", &self.api_token)?;
        let token = match (given, self.token_file()) {
            (Some(_), Some(_)) => {
                bail!("both TRAINER_API_TOKEN and TRAINER_API_TOKEN_FILE are set: set one of them")
            }
            (None, Some(file)) => Some(token::in_file("TRAINER_API_TOKEN_FILE", file)?),
            (given, None) => given,
        };
        let is_open = token.is_none() && self.access_file().is_none();
        if is_open && !self.allow_anonymous && !self.listen.ip().is_loopback() {
            bail!(
                "TRAINER_API_TOKEN is empty, but {} is reachable from other machines, so anyone \
                 could start jobs. Set a token, listen on 127.0.0.1, or set \
                 TRAINER_ALLOW_ANONYMOUS=true",
                self.listen
            );
        }
        Ok(token.map(Token::new))
    }

    /// The access file, if there is one.
    pub fn access_file(&self) -> Option<&PathBuf> {
        named_file(self.access.as_ref())
    }

    /// The secrets that `env` may name; none for all. On Kubernetes a namespace has secrets that are
    /// not for jobs, so each must be named. An access file decides in place of this.
    pub fn allowed_secrets(&self) -> Option<Vec<String>> {
        let is_decided = self.access_file().is_some();
        let named = self
            .allowed_secrets
            .iter()
            .map(|name| name.trim().to_string());
        let named: Vec<String> = named.filter(|name| !name.is_empty()).collect();
        match (self.cluster(), named.is_empty()) {
            _ if is_decided => None,
            (ClusterKind::Local, true) => None,
            _ => Some(named),
        }
    }

    /// Where changes are recorded, if they are.
    pub fn audit(&self) -> Option<Audit> {
        let target = self.audit.as_deref().filter(|target| !target.is_empty());
        target.map(Audit::to)
    }

    /// Files that jobs must not read.
    fn secret_files(&self) -> Vec<PathBuf> {
        let audit = match self.audit() {
            Some(Audit::File(file)) => Some(file),
            Some(Audit::Output) | None => None,
        };
        let key = named_file(self.local.secrets_key_file.as_ref());
        let named = [self.token_file(), self.access_file(), key];
        let named = named.into_iter().flatten().cloned();
        named.chain(audit).collect()
    }

    /// The file with the token, if the token is in one.
    fn token_file(&self) -> Option<&PathBuf> {
        named_file(self.api_token_file.as_ref())
    }

    /// The limits for connections if this process may open `files` files. A connection that follows
    /// a log needs a second file.
    pub fn connections(&self, files: Option<u64>) -> Limits {
        let usable = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let files = files.and_then(|files| usize::try_from(files / 2).ok());
        let most = usable(self.max_connections)
            .min(files.unwrap_or(usize::MAX))
            .max(1);
        let named = self.max_connections_per_address.map(usable);
        Limits {
            most,
            most_per_address: named.unwrap_or(most.div_ceil(2)).min(most),
        }
    }

    /// The folder that contains train.py. The one in this binary is unpacked into the user's cache,
    /// since jobs cannot see the data folder.
    fn working_directory(&self) -> anyhow::Result<PathBuf> {
        match &self.local.local_workdir {
            Some(folder) => Ok(folder.clone()),
            None if is_repository() => Ok(PathBuf::from(TRAINER)),
            None => Ok(bundle::unpack(&user_cache())?.trainer),
        }
    }

    /// The settings of the local cluster. `program` is the path of this binary.
    ///
    /// # Errors
    ///
    /// When the training programs cannot be unpacked, or the key for secrets is not one.
    pub fn local_cluster(&self, program: PathBuf) -> anyhow::Result<LocalSettings> {
        Ok(LocalSettings {
            program,
            data_folder: self.planning.data_folder(),
            working_directory: self.working_directory()?,
            python: self.local.local_python.clone(),
            slots: self.local.local_slots,
            containment: self.local.local_containment,
            secret_files: self.secret_files(),
            secrets_key: secrets_key(self.local.secrets_key_file.as_ref())?,
            user: self.local.local_user,
            limits: quota::Limits {
                jobs: usize::try_from(self.local.local_max_jobs).unwrap_or(usize::MAX),
                manifest_bytes: u64::from(self.local.local_max_manifest_mb) * MEBIBYTE,
                log_bytes: u64::from(self.local.local_max_log_mb) * MEBIBYTE,
                all_logs_bytes: u64::from(self.local.local_max_log_total_mb) * MEBIBYTE,
            },
            restart_backoff: Duration::from_millis(self.local.local_backoff_ms),
            shutdown_grace: Duration::from_secs(self.shutdown_grace),
        })
    }
}
