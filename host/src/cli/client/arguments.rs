//! The arguments of the client's commands.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::parser;

#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Submit a training job.
    Submit(SubmitArguments),
    /// Submit the request of a job again, with another run id.
    Clone(CloneArguments),
    /// Show the status of a job, and why it waits or failed.
    Get(JobArguments),
    /// Print the manifest of a job. Default: as YAML.
    Manifest(JobArguments),
    /// List jobs, newest first.
    List(ListArguments),
    /// Print the logs of a job.
    Logs(LogsArguments),
    /// Print status changes of a job until it finishes.
    Events(EventsArguments),
    /// Show the progress of a job until it finishes.
    Watch(WatchArguments),
    /// Draw a curve of a job, such as its loss, or export its metrics.
    Metrics(MetricsArguments),
    /// Show how jobs differ, and draw their curves over each other.
    Compare(CompareArguments),
    /// Stop the replicas of jobs, but keep the jobs.
    Suspend(JobsArguments),
    /// Resume suspended jobs.
    Resume(JobsArguments),
    /// Delete jobs and their replicas. Checkpoints are kept.
    Delete(JobsArguments),
    /// List the frameworks of the service.
    Frameworks(FrameworksArguments),
    /// Show who you are for the service, and what you may do.
    Whoami(WhoamiArguments),
    /// Print a completion script.
    Completion {
        /// Shell to complete for.
        shell: Shell,
    },
}

/// How to reach the service.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Address of the service. Default: TRAINER_URL, else the server of the configuration, else
    /// <http://127.0.0.1:8080>.
    #[arg(long, conflicts_with = "server")]
    pub url: Option<String>,
    /// Token of the service. Default: TRAINER_API_TOKEN, or the server's `token_file`; with
    /// --server the file takes precedence.
    #[arg(long)]
    pub api_token: Option<String>,
    /// Server of the configuration file; overrides TRAINER_URL and TRAINER_SERVER. Default:
    /// TRAINER_SERVER, else the file's `current` server.
    #[arg(long)]
    pub server: Option<String>,
    /// Configuration file with named servers. Default: `~/.config/trainer/config.yaml`.
    #[arg(long, env = "TRAINER_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SubmitArguments {
    /// File with the request as YAML or JSON, or - for standard input.
    #[arg(short, long)]
    pub file: PathBuf,
    /// Set a field, for example extra_args.lr=0.001. A value that is not JSON is a string, and so
    /// is every value of env, labels and annotations. Quote names that contain dots:
    /// 'annotations."trainer.deepfinery/profile"=a100'.
    #[arg(long, value_name = "FIELD=VALUE")]
    pub set: Vec<String>,
    /// Replace existing checkpoints of the run, like `overwrite: true` in the file.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub sending: SendingArguments,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct CloneArguments {
    /// Name of the job.
    pub job: String,
    /// Run id of the clone. Default: the next one, such as run-2 after run-1.
    #[arg(long)]
    pub run_id: Option<String>,
    /// Set a field, as for `submit`.
    #[arg(long, value_name = "FIELD=VALUE")]
    pub set: Vec<String>,
    /// Namespace of the job, if the name exists in several.
    #[arg(short, long)]
    pub namespace: Option<String>,
    #[command(flatten)]
    pub sending: SendingArguments,
    #[command(flatten)]
    pub connection: Connection,
}

/// What happens with a request.
#[derive(Debug, Args)]
pub struct SendingArguments {
    /// Wait until the job finishes, and exit with code 7 unless it succeeded. With -o json or -o
    /// yaml the job is printed once, at the end.
    #[arg(long, conflicts_with = "dry_run")]
    pub watch: bool,
    /// Validate only, including a server-side dry run by the cluster, and print the manifest.
    #[arg(long)]
    pub dry_run: bool,
    /// Output format.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
}

#[derive(Debug, Args)]
pub struct JobArguments {
    /// Name of the job.
    pub job: String,
    /// Namespace of the job, if the name exists in several.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct JobsArguments {
    /// Names of the jobs.
    #[arg(required_unless_present = "selector", value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Label selector instead of names, for example team=aml,tier!=test.
    #[arg(short = 'l', long, conflicts_with = "jobs")]
    pub selector: Option<String>,
    /// Namespace of the jobs. With a selector, the default is all namespaces.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    /// Only jobs of this framework.
    #[arg(long)]
    pub framework: Option<String>,
    /// Only jobs with this status: submitted, running, succeeded or failed.
    #[arg(long)]
    pub status: Option<String>,
    /// Only jobs of this namespace.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Only jobs that you submitted, on a service with named tokens.
    #[arg(long, conflicts_with = "owner")]
    pub mine: bool,
    /// Only jobs that this caller submitted.
    #[arg(long)]
    pub owner: Option<String>,
    /// Label selector, for example team=aml,tier!=test.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Maximum number of jobs. Default: all.
    #[arg(long, value_parser = parser::count::<usize>)]
    pub limit: Option<usize>,
    /// Show changes until interrupted: a table with the progress of each job on a terminal, a line
    /// for each change in a pipe.
    #[arg(short, long, conflicts_with_all = ["output", "selector"])]
    pub watch: bool,
    /// Output format.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct LogsArguments {
    /// Name of the job.
    pub job: String,
    /// Follow the logs until the job finishes.
    #[arg(short, long)]
    pub follow: bool,
    /// Replicas, for example master-0,worker-1, or all. Default: the first.
    #[arg(long)]
    pub replica: Option<String>,
    /// Only this many of the last lines.
    #[arg(long, value_parser = parser::count::<u64>)]
    pub tail: Option<u64>,
    /// Only lines newer than a time (RFC 3339) or a duration such as 10m.
    #[arg(long)]
    pub since: Option<String>,
    /// Print the log of the attempt before the last restart.
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
    /// Print a timestamp at the start of each line.
    #[arg(long)]
    pub timestamps: bool,
    /// Namespace of the job.
    #[arg(short, long)]
    pub namespace: Option<String>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct EventsArguments {
    /// Name of the job.
    pub job: String,
    /// Namespace of the job.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Output format: a readable line per change, or JSON.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct WatchArguments {
    /// Name of the job.
    pub job: String,
    /// Namespace of the job.
    #[arg(short, long)]
    pub namespace: Option<String>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct MetricsArguments {
    /// Name of the job.
    pub job: String,
    /// Metric to draw.
    #[arg(long, value_enum, default_value_t = Metric::Loss)]
    pub metric: Metric,
    /// Maximum number of points, from 4 to 10000. Default: 500.
    #[arg(long)]
    pub points: Option<u32>,
    /// Namespace of the job.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Print all metrics in this format.
    #[arg(short, long, value_enum)]
    pub output: Option<MetricsOutput>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct CompareArguments {
    /// Names of two to six jobs.
    #[arg(required = true, num_args = 2..=6, value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Metric to draw.
    #[arg(long, value_enum, default_value_t = Metric::Loss)]
    pub metric: Metric,
    /// Namespace of the jobs.
    #[arg(short, long)]
    pub namespace: Option<String>,
    #[command(flatten)]
    pub connection: Connection,
}

/// A metric, named as in `GET /train/{job_name}/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Metric {
    Loss,
    EvalLoss,
    TokensPerSecond,
    LearningRate,
    GradNorm,
}

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::EvalLoss => "eval_loss",
            Self::TokensPerSecond => "tokens_per_second",
            Self::LearningRate => "learning_rate",
            Self::GradNorm => "grad_norm",
        }
    }

    /// The member of the response that has it.
    pub fn series(self) -> &'static str {
        match self {
            Self::EvalLoss => "evaluations",
            _ => "points",
        }
    }
}

/// Formats of metrics. Without one a chart is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricsOutput {
    Json,
    Yaml,
    Csv,
}

#[derive(Debug, Args)]
pub struct FrameworksArguments {
    /// Output format.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct WhoamiArguments {
    /// Output format.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

/// Machine-readable output formats. Without one the output is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Json,
    Yaml,
    /// Names only, one per line.
    Name,
}
