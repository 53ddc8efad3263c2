//! What the client's commands take.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;

#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Submit a training job.
    Submit(SubmitArguments),
    /// Show a job: its status, and why it waits or failed.
    Get(JobArguments),
    /// List jobs, newest first.
    List(ListArguments),
    /// Print what a job writes.
    Logs(LogsArguments),
    /// Print each change of a job's status until it ends.
    Events(EventsArguments),
    /// Stop the replicas of a job and keep the job.
    Suspend(JobArguments),
    /// Let a suspended job go on.
    Resume(JobArguments),
    /// Delete a job with its replicas. Its checkpoints stay.
    Delete(JobArguments),
    /// List the frameworks that the service has loaded.
    Frameworks(FrameworksArguments),
    /// Print the completion script of a shell.
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

/// Which service is meant.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Address of the service. Default: TRAINER_URL, else the server of the configuration, else
    /// <http://127.0.0.1:8080>.
    #[arg(long, conflicts_with = "server")]
    pub url: Option<String>,
    /// Token of the service. Default: the one in TRAINER_API_TOKEN, or in the server's `token_file`;
    /// with --server the file comes first.
    #[arg(long)]
    pub api_token: Option<String>,
    /// Server of the configuration file, whatever TRAINER_URL and TRAINER_SERVER say. Default:
    /// TRAINER_SERVER, else the `current` one of the file.
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
    /// Set a field, as in extra_args.lr=0.001. A value that is not JSON is taken as text, and so is
    /// every value of env, labels and annotations. A name with dots goes in quotes:
    /// 'annotations."trainer.deepfinery/profile"=a100'.
    #[arg(long, value_name = "FIELD=VALUE")]
    pub set: Vec<String>,
    /// Replace the checkpoints that the run's prefix has, as `overwrite: true` in the file does.
    #[arg(long)]
    pub overwrite: bool,
    /// Wait until the job ends, and exit with 7 unless it succeeds. With -o json or -o yaml the job is
    /// printed once, when it has ended.
    #[arg(long, conflicts_with = "dry_run")]
    pub watch: bool,
    /// Have everything checked, also by the cluster, and print what would be created.
    #[arg(long)]
    pub dry_run: bool,
    /// How the answer is printed.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct JobArguments {
    /// Name of the job.
    pub job: String,
    /// Its namespace, where several have a job of this name.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// How the answer is printed.
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
    /// Only jobs whose labels are so, as in team=aml,tier!=test.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// At most so many jobs. Default: all.
    #[arg(long)]
    pub limit: Option<usize>,
    /// How the answer is printed.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct LogsArguments {
    /// Name of the job.
    pub job: String,
    /// Go on until the job ends.
    #[arg(short, long)]
    pub follow: bool,
    /// Replicas such as master-0,worker-1, or all. Default: the first.
    #[arg(long)]
    pub replica: Option<String>,
    /// Only the last so many lines.
    #[arg(long)]
    pub tail: Option<u64>,
    /// Only lines since a time, or for so long, as in 10m.
    #[arg(long)]
    pub since: Option<String>,
    /// The log before the last restart.
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
    /// Begin each line with its time.
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
    /// How each change is printed: as a line for people, or as JSON.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct FrameworksArguments {
    /// How the answer is printed.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

/// How an answer is printed. Without one it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Json,
    Yaml,
    /// Names alone, one a line.
    Name,
}
