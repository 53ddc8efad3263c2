//! One replica of a local job: what the operator and the kubelet would make of its pod template,
//! and the shim that runs it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};

use super::contain::Containment;
use super::expand::expand;
use super::failure;
use super::lifecycle::Exit;
use super::orphans::Shim;
use super::secrets::Secrets;
use super::shim::{Assignment, MARKER, Report, ShimCommand};
use crate::job::{Cause, MAX_LOG_BYTES, Mask, PodDetails, cause};
use crate::keys::CONTAINER;
use crate::manifest::identity_variables;
use crate::pytorch_job::{PyTorchJob, PyTorchJobSpec, ReplicaSpec, ReplicaType};

/// Which replica of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaIndex {
    pub replica_type: ReplicaType,
    pub index: u32,
}

/// What this machine gives to the replicas of a job.
#[derive(Clone, Debug)]
pub struct ReplicaContext {
    /// How the replica is contained, if it is.
    pub containment: Option<Containment>,
    pub most_log_bytes: u64,
    /// The program that keeps replicas: this one.
    pub program: PathBuf,
    /// The folder that holds `train.py`.
    pub working_directory: PathBuf,
    /// What every replica has beside its own variables, as an image would set it.
    pub base: BTreeMap<String, String>,
    /// The job's folder: logs and locks.
    pub folder: PathBuf,
    /// Where the nodes of the job meet.
    pub master_port: u16,
    pub job_uid: String,
    /// Distinguishes the jobs of this service from those of other services on this machine.
    pub owner: String,
    /// What stands for a pod's own temporary folder.
    pub scratch: PathBuf,
    pub secrets: Secrets,
}

/// A replica that runs.
#[derive(Debug)]
pub struct Replica {
    shim: Shim,
    orders: ChildStdin,
    reports: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    log: PathBuf,
    failure_file: PathBuf,
    /// Masks the values of its secrets.
    mask: Mask,
    master_port: u16,
}

impl ReplicaIndex {
    /// All replicas of a job, the master first.
    pub fn all(spec: &PyTorchJobSpec) -> Vec<Self> {
        let replicas = &spec.pytorch_replica_specs;
        let workers = replicas.worker.as_ref().map_or(0, |worker| worker.replicas);
        let of = |replica_type, count| {
            (0..count).map(move |index| Self {
                replica_type,
                index,
            })
        };
        of(ReplicaType::Master, replicas.master.replicas)
            .chain(of(ReplicaType::Worker, workers))
            .collect()
    }

    /// The rank of the node: the master's is 0.
    pub fn rank(self) -> u32 {
        match self.replica_type {
            ReplicaType::Master => self.index,
            ReplicaType::Worker => self.index + 1,
        }
    }

    /// The name that the operator gives the replica's pod.
    pub fn pod(self, job: &str) -> String {
        format!("{job}-{self}")
    }

    /// The reported state of the replica before it is started.
    pub fn waiting(self, job: &str) -> PodDetails {
        PodDetails {
            name: self.pod(job),
            replica: self.to_string(),
            phase: "Pending".to_string(),
            ..PodDetails::default()
        }
    }
}

impl fmt::Display for ReplicaIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.replica_type {
            ReplicaType::Master => "master",
            ReplicaType::Worker => "worker",
        };
        write!(formatter, "{kind}-{}", self.index)
    }
}

impl Replica {
    /// Starts a replica.
    ///
    /// # Errors
    ///
    /// When its shim cannot be started.
    pub async fn start(
        job: &PyTorchJob,
        replica: ReplicaIndex,
        gpus: Option<&[u32]>,
        context: &ReplicaContext,
    ) -> std::io::Result<Self> {
        let pod = replica.pod(job.name());
        let folder = context.folder.join(&pod);
        make_private(&folder).await?;
        make_private(&context.scratch).await?;
        let log = next_log(&folder).await?;
        let failure_file = folder.join("failure.json");
        failure::forget(&failure_file).await?;
        let marker = marker(context, &pod);
        let values = secret_values(job, replica, context).await?;
        let mask = Mask::new(values.values().cloned());
        let mut assignment = Assignment {
            replica: marker.clone(),
            lock: folder.join("lock"),
            log: log.clone(),
            working_directory: context.working_directory.clone(),
            ..process(job, replica, gpus, context, &values)
        };
        let file = failure_file.display().to_string();
        let name = failure::FILE_VARIABLE.to_string();
        assignment.environment.insert(name, file);
        let mut command = Command::new(&context.program);
        command
            .arg("keep-replica")
            .env_clear()
            .env(MARKER, marker)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut shim = Shim::spawn(&mut command)?;
        let pipes = (shim.process.stdin.take(), shim.process.stdout.take());
        let (Some(orders), Some(reports)) = pipes else {
            return Err(std::io::Error::other("a shim without pipes"));
        };
        let mut replica = Self {
            shim,
            orders,
            reports: BufReader::new(reports).lines(),
            log,
            failure_file,
            mask,
            master_port: context.master_port,
        };
        // A shim that does not listen has ended, and its reports say so.
        let _ = replica.orders.write_all(&line(&assignment)?).await;
        Ok(replica)
    }

    /// What the shim reports next; `None` when it has ended.
    pub async fn report(&mut self) -> Option<Report> {
        let line = self.reports.next_line().await.ok().flatten();
        let report = line.and_then(|line| serde_json::from_str(&line).ok());
        if report.is_none() {
            // Its output is closed, so it is gone or about to be: leave no zombie.
            self.shim.wait().await;
        }
        report
    }

    /// Waits until the shim is gone, after its last report.
    pub async fn gone(mut self) {
        drop(self.orders);
        self.shim.wait().await;
    }

    /// Stops the replica: SIGTERM, then SIGKILL after the grace period.
    pub async fn stop(&mut self, grace: std::time::Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        if let Ok(line) = line(&ShimCommand::Stop { grace_ms }) {
            // A shim that does not listen has ended, which is what is wanted.
            let _ = self.orders.write_all(&line).await;
        }
    }

    /// How the replica ended, with what it left about a failure.
    pub async fn exit(&self, code: i32) -> Exit {
        if code == 0 {
            return Exit::ordinary(code, None);
        }
        let (log, file) = (self.log.clone(), self.failure_file.clone());
        let (master_port, mask) = (self.master_port, self.mask.clone());
        let read = move || {
            let log = tail(&log).unwrap_or_default();
            let reported = failure::read(&file);
            let Cause { message, restart } = cause(log.as_bytes(), code);
            let kind = failure::kind(restart, reported.as_ref(), &log, master_port);
            let cause = message.or_else(|| Some(reported?.message).filter(|m| !m.is_empty()));
            let cause = cause.map(|cause| mask.text(&cause));
            Exit { code, cause, kind }
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|_| Exit::ordinary(code, None))
    }
}

/// What marks the processes of a replica in their environment.
fn marker(context: &ReplicaContext, pod: &str) -> String {
    let ReplicaContext { owner, job_uid, .. } = context;
    format!("{owner}/{job_uid}/{pod}")
}

async fn make_private(folder: &Path) -> std::io::Result<()> {
    let mut builder = tokio::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).await
}

fn line(message: &impl serde::Serialize) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The file for the log of the next process in this pod: `0.log`, then `1.log`, as a kubelet
/// numbers the restarts of a container.
async fn next_log(folder: &Path) -> std::io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let log = folder.join(format!("{number}.log"));
        if !tokio::fs::try_exists(&log).await? {
            return Ok(log);
        }
        number += 1;
    }
}

/// The replicas of the type of a replica.
fn spec(job: &PyTorchJob, replica: ReplicaIndex) -> &ReplicaSpec {
    let replicas = &job.spec.pytorch_replica_specs;
    match (&replicas.worker, replica.replica_type) {
        (Some(worker), ReplicaType::Worker) => worker,
        _ => &replicas.master,
    }
}

/// The values of the variables that come from secrets.
async fn secret_values(
    job: &PyTorchJob,
    replica: ReplicaIndex,
    context: &ReplicaContext,
) -> std::io::Result<BTreeMap<String, String>> {
    let (secrets, namespace) = (context.secrets.clone(), job.namespace().to_string());
    let spec = spec(job, replica).clone();
    let read = tokio::task::spawn_blocking(move || secrets.resolve(&namespace, &spec));
    let read = read.await.map_err(std::io::Error::other)?;
    read.map_err(std::io::Error::other)
}

/// Command and environment of a replica, with everything in them that Kubernetes would expand.
fn process(
    job: &PyTorchJob,
    replica: ReplicaIndex,
    gpus: Option<&[u32]>,
    context: &ReplicaContext,
    secrets: &BTreeMap<String, String>,
) -> Assignment {
    let spec = spec(job, replica);
    let containers = spec.template.spec.iter().flat_map(|pod| &pod.containers);
    let container = containers.clone().find(|c| c.name == CONTAINER);
    let mut variables = BTreeMap::new();
    // A value may refer to variables that come before it.
    for variable in container.iter().flat_map(|c| c.env.iter().flatten()) {
        let value = match secrets.get(&variable.name) {
            Some(secret) => secret.clone(),
            None => expand(variable.value.as_deref().unwrap_or_default(), &variables),
        };
        variables.insert(variable.name.clone(), value);
    }
    for value in variables.values_mut() {
        *value = in_scratch(value, &context.scratch);
    }
    variables.extend(operator_variables(job, replica, context.master_port));
    let command: Vec<String> = container
        .iter()
        .flat_map(|c| c.command.iter().flatten().chain(c.args.iter().flatten()))
        .map(|word| in_scratch(&expand(word, &variables), &context.scratch))
        .collect();
    let mut environment = context.base.clone();
    let identity = identity_variables(job, &context.job_uid);
    environment.extend(
        identity
            .into_iter()
            .map(|(name, value)| (name.to_string(), value)),
    );
    if let Some(gpus) = gpus {
        let gpus: Vec<String> = gpus.iter().map(u32::to_string).collect();
        environment.insert("CUDA_VISIBLE_DEVICES".to_string(), gpus.join(","));
    }
    environment.extend(variables);
    Assignment {
        replica: String::new(),
        command,
        environment,
        containment: context.containment.clone(),
        most_log_bytes: context.most_log_bytes,
        working_directory: PathBuf::new(),
        log: PathBuf::new(),
        lock: PathBuf::new(),
    }
}

/// A path in the temporary folder of a pod, in a folder of this service instead. In a pod the folder
/// is the pod's own; here anybody could make it first, with links in it.
fn in_scratch(value: &str, scratch: &Path) -> String {
    /// Where plugins put the scratch files of a replica.
    const IN_A_POD: &str = "/tmp/trainer";
    match value.strip_prefix(IN_A_POD) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            format!("{}{rest}", scratch.display())
        }
        _ => value.to_string(),
    }
}

/// What the operator adds to each pod, after the pod's own variables.
///
/// Source: kubeflow/trainer v1.9.4, pkg/controller.v1/pytorch/{envvar,master}.go. The master's
/// address is this machine, and its port one that is free here.
fn operator_variables(
    job: &PyTorchJob,
    replica: ReplicaIndex,
    master_port: u16,
) -> BTreeMap<String, String> {
    let nodes = ReplicaIndex::all(&job.spec).len();
    let processes = &job.spec.nproc_per_node;
    let world = nodes * processes.parse().unwrap_or(1);
    let (nodes, world) = (nodes.to_string(), world.to_string());
    let (rank, port) = (replica.rank().to_string(), master_port.to_string());
    [
        ("PYTHONUNBUFFERED", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", &port),
        ("WORLD_SIZE", &world),
        ("RANK", &rank),
        ("PET_MASTER_ADDR", "127.0.0.1"),
        ("PET_MASTER_PORT", &port),
        ("PET_NODE_RANK", &rank),
        ("PET_NNODES", &nodes),
        ("PET_NPROC_PER_NODE", processes),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .into()
}

fn tail(log: &Path) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = super::log::open_file(log)?;
    let length = file.metadata()?.len();
    let most = MAX_LOG_BYTES as u64;
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
