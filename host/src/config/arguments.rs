//! The arguments of `trainer serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::JobKindSetting;
use crate::cluster::local::contain::{Mode, User};
use crate::http::Origin;
use crate::parser;
use crate::plugin::UnknownArguments;
use crate::request::DEFAULT_IMAGE;
use crate::request::uri::{CHECKPOINT_SCHEMES, DATASET_SCHEMES, Scheme};
use crate::telemetry::LogSettings;

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
