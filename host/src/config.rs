//! The settings of a service: flags and the equivalent environment variables.

mod images;
mod jobs;
mod secrets_key;

pub use jobs::{JobKindSetting, profiles_in};
use secrets_key::named_file;
pub use secrets_key::secrets_key;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};

use crate::audit::Audit;
use crate::bundle;
use crate::cluster::kubernetes::KubernetesSettings;
use crate::cluster::local::LocalSettings;
use crate::cluster::local::contain::{Mode, User};
use crate::cluster::local::quota;
use crate::http::{Origin, Token};
use crate::listen::Limits;
use crate::manifest::runtime_name;
use crate::packages::Images;
use crate::plugin::UnknownArguments;
use crate::profile::Profiles;
use crate::request::uri::{CHECKPOINT_SCHEMES, DATASET_SCHEMES, Scheme};
use crate::request::{AllowedNamespaces, DEFAULT_IMAGE, RequestPolicy};
use crate::telemetry::LogSettings;
use crate::{parser, token};

const MEBIBYTE: u64 = 1024 * 1024;
/// In the repository: the built plugins, the data of a service, the training programs.
const BUILT_PLUGINS: &str = "target/plugins";
const BUILT_DATA: &str = "target/data";
const TRAINER: &str = "trainer";
/// The file in which a pod finds its own namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The arguments of `trainer serve`.
#[derive(Debug, Args)]
pub struct ServeSettings {
    /// Address to listen on.
    #[arg(long, env = "TRAINER_LISTEN", default_value = "127.0.0.1:8080",
          value_parser = parser::listen_address)]
    pub listen: SocketAddr,
    /// Token that clients must send as X-TRAINER-TOKEN. Empty: no authentication, which is only
    /// allowed on loopback addresses.
    #[arg(
        long,
        env = "TRAINER_API_TOKEN",
        hide_env_values = true,
        default_value = ""
    )]
    pub api_token: String,
    /// File with the token, which only the service's user and group may read.
    #[arg(long, env = "TRAINER_API_TOKEN_FILE")]
    pub api_token_file: Option<PathBuf>,
    /// TOML file with named tokens, roles, namespaces and policies. It is read again when it
    /// changes. Default: every holder of the token may do everything.
    #[arg(long, env = "TRAINER_ACCESS")]
    pub access: Option<PathBuf>,
    /// File to which a line of JSON is appended for each change, or - for standard output.
    #[arg(long, env = "TRAINER_AUDIT")]
    pub audit: Option<String>,
    /// Secrets that `env` of a request may name. Default: all on the local cluster, none on
    /// Kubernetes. With an access file, its policy decides.
    #[arg(long, env = "TRAINER_ALLOWED_SECRETS", value_delimiter = ',')]
    pub allowed_secrets: Vec<String>,
    /// Serve without a token on an address that other machines can reach. Anyone who reaches it can
    /// start jobs.
    #[arg(long, env = "TRAINER_ALLOW_ANONYMOUS")]
    pub allow_anonymous: bool,
    /// Maximum number of connections. Lower if this process may not open twice as many files.
    #[arg(long, env = "TRAINER_MAX_CONNECTIONS", default_value_t = 4096,
          value_parser = parser::positive_u32)]
    pub max_connections: u32,
    /// Maximum number of connections per client address. Default: half of all.
    #[arg(long, env = "TRAINER_MAX_CONNECTIONS_PER_ADDRESS",
          value_parser = parser::positive_u32)]
    pub max_connections_per_address: Option<u32>,
    /// Additional host names that clients without a token may use, besides IP addresses and
    /// localhost.
    #[arg(long, env = "TRAINER_ALLOWED_HOSTS", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,
    /// Origins whose web pages may call this service, such as https://dashboard.example.org.
    #[arg(long, env = "TRAINER_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed_origins: Vec<Origin>,
    /// Where jobs run. Default: kubernetes inside a pod, local elsewhere.
    #[arg(long, env = "TRAINER_CLUSTER", value_enum)]
    pub cluster: Option<ClusterKind>,
    /// Context of the kubeconfig. Default: its current context, or the pod's own cluster.
    #[arg(long, env = "TRAINER_KUBE_CONTEXT")]
    pub kube_context: Option<String>,
    /// How often the folder of plugins is listed for changes, beside the system's notifications, in
    /// seconds.
    #[arg(long, env = "TRAINER_PLUGINS_POLL", default_value_t = 2,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub plugins_poll: u64,
    /// Seconds that requests in flight may take when the service stops.
    #[arg(long, env = "TRAINER_SHUTDOWN_GRACE", default_value_t = 20,
          value_parser = parser::duration)]
    pub shutdown_grace: u64,
    #[command(flatten)]
    pub planning: PlanningSettings,
    #[command(flatten)]
    pub local: LocalArguments,
    #[command(flatten)]
    pub log: LogSettings,
}

/// Where jobs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterKind {
    /// On this machine.
    Local,
    /// On Kubernetes, with the Kubeflow training operator or Kubeflow Trainer.
    Kubernetes,
}

/// Settings for planning jobs: plugins, and the operator's policy for requests.
#[derive(Debug, Args)]
pub struct PlanningSettings {
    /// Folder with the framework plugins (*.wasm). Default: target/plugins in the repository, and
    /// otherwise the plugins in this binary.
    #[arg(long, env = "TRAINER_PLUGINS")]
    pub plugins: Option<PathBuf>,
    /// Folder for persistent data: jobs, logs, claims, compiled plugins. Default: target/data in the
    /// repository, and otherwise `trainer` in the user's state folder (~/.local/state).
    #[arg(long, env = "TRAINER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Default namespace of jobs. Default: the pod's own, else `default`.
    #[arg(long, env = "TRAINER_JOBS_NAMESPACE")]
    pub jobs_namespace: Option<String>,
    /// Allowed namespaces (* for all). The default namespace is always allowed.
    #[arg(
        long,
        env = "TRAINER_ALLOWED_NAMESPACES",
        value_delimiter = ',',
        default_value = "*"
    )]
    pub allowed_namespaces: Vec<String>,
    /// YAML file with placement profiles: nodes, queues, volumes and other pod settings.
    #[arg(long, env = "TRAINER_PROFILES")]
    pub profiles: Option<PathBuf>,
    /// What jobs are on Kubernetes. `auto`: PyTorchJobs if the cluster has them, else TrainJobs.
    #[arg(long, env = "TRAINER_JOB_KIND", value_enum, default_value = "auto")]
    pub job_kind: JobKindSetting,
    /// YAML file with the packages of images, so that jobs which need others are refused. Default:
    /// only those of the trainer image are known.
    #[arg(long, env = "TRAINER_IMAGES")]
    pub images: Option<PathBuf>,
    /// Default image of jobs.
    #[arg(long, env = "TRAINER_DEFAULT_IMAGE", default_value = DEFAULT_IMAGE)]
    pub default_image: String,
    /// Default CPU request per replica. Default: none.
    #[arg(long, env = "TRAINER_DEFAULT_CPUS", value_parser = parser::any_u32)]
    pub default_cpus: Option<u32>,
    /// Default memory request per replica in GiB. Default: none.
    #[arg(long, env = "TRAINER_DEFAULT_MEMORY_GB", value_parser = parser::any_u32)]
    pub default_memory_gb: Option<u32>,
    /// Allowed schemes of dataset_uri.
    #[arg(long, env = "TRAINER_DATASET_SCHEMES", value_delimiter = ',',
          default_values_t = DATASET_SCHEMES.to_vec())]
    pub dataset_schemes: Vec<Scheme>,
    /// Allowed schemes of checkpoint_base_uri.
    #[arg(long, env = "TRAINER_CHECKPOINT_SCHEMES", value_delimiter = ',',
          default_values_t = CHECKPOINT_SCHEMES.to_vec())]
    pub checkpoint_schemes: Vec<Scheme>,
    /// What to do with arguments that the framework does not know. Default: suggest.
    #[arg(long, env = "TRAINER_UNKNOWN_ARGUMENTS", value_enum)]
    pub unknown_arguments: Option<UnknownArguments>,
    /// Same as `--unknown-arguments refuse`. If both are set, `--unknown-arguments` wins.
    #[arg(long, env = "TRAINER_STRICT_ARGUMENTS")]
    pub strict_arguments: bool,
}

/// How the local cluster runs jobs.
#[derive(Debug, Args)]
pub struct LocalArguments {
    /// Folder that contains train.py. Default: trainer in the repository, and otherwise the programs
    /// in this binary.
    #[arg(long, env = "TRAINER_LOCAL_WORKDIR")]
    pub local_workdir: Option<PathBuf>,
    /// Python environment whose bin folder comes first in the PATH of replicas.
    #[arg(long, env = "TRAINER_LOCAL_PYTHON")]
    pub local_python: Option<PathBuf>,
    /// Slots of the local cluster. Default: the number of GPUs, or of cores on a machine without
    /// GPUs.
    #[arg(long, env = "TRAINER_LOCAL_SLOTS", value_parser = parser::any_u32)]
    pub local_slots: Option<u32>,
    /// Whether to isolate jobs from the service, its files and each other. `auto`: if this machine
    /// supports it.
    #[arg(
        long,
        env = "TRAINER_LOCAL_CONTAINMENT",
        value_enum,
        default_value = "auto"
    )]
    pub local_containment: Mode,
    /// File with the key by which the secrets in the data folder are encrypted: 32 bytes in base64 or
    /// hexadecimal. Or set TRAINER_SECRETS_KEY to the key. Default: they are not encrypted.
    #[arg(long, env = "TRAINER_SECRETS_KEY_FILE")]
    pub secrets_key_file: Option<PathBuf>,
    /// User that jobs run as (UID:GID), if the service runs as root. Default: the user of the
    /// service.
    #[arg(long, env = "TRAINER_LOCAL_USER")]
    pub local_user: Option<User>,
    /// Maximum number of stored jobs, including finished ones.
    #[arg(long, env = "TRAINER_LOCAL_MAX_JOBS", default_value_t = 20_000,
          value_parser = parser::any_u32)]
    pub local_max_jobs: u32,
    /// Maximum size of all manifests together, in MiB.
    #[arg(long, env = "TRAINER_LOCAL_MAX_MANIFEST_MB", default_value_t = 256,
          value_parser = parser::any_u32)]
    pub local_max_manifest_mb: u32,
    /// Maximum size of the log of one attempt of a replica, in MiB. The beginning of a longer log
    /// is dropped.
    #[arg(long, env = "TRAINER_LOCAL_MAX_LOG_MB", default_value_t = 1024,
          value_parser = parser::positive_u32)]
    pub local_max_log_mb: u32,
    /// Maximum size of all logs on disk in MiB. Beyond that, more jobs are refused until some are
    /// deleted.
    #[arg(long, env = "TRAINER_LOCAL_MAX_LOG_TOTAL_MB", default_value_t = 65_536)]
    pub local_max_log_total_mb: u32,
    /// Delay before a failed replica restarts, in milliseconds. It doubles with each failure.
    #[arg(long, env = "TRAINER_LOCAL_BACKOFF_MS", default_value_t = 1000,
          value_parser = parser::duration)]
    pub local_backoff_ms: u64,
}

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
