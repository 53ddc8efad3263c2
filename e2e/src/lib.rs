//! Starts the real service and talks to it over HTTP, for the end-to-end tests and the benchmark.

pub mod control_plane;
pub mod documents;
pub mod fault_proxy;
pub mod stand_in;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::Response;

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The service's binary.
pub fn binary() -> PathBuf {
    root().join("target/release/trainer")
}

/// A running service.
pub struct Server {
    process: Child,
    agent: Agent,
    pub address: String,
}

/// Where a service keeps its data, and how it is started.
pub struct Site {
    pub data: TempDir,
    pub settings: Vec<(String, String)>,
}

/// The Python environment that trains: the one that `TRAINER_TEST_PYTHON` names, or target/python.
pub fn python() -> PathBuf {
    let named = std::env::var("TRAINER_TEST_PYTHON");
    named.map_or_else(|_| root().join("target/python"), PathBuf::from)
}

impl Site {
    /// A site with real PyTorch.
    ///
    /// # Errors
    ///
    /// When the Python environment is not there.
    pub fn with_pytorch() -> Result<Self> {
        let python = python();
        if !python.join("bin/torchrun").exists() {
            bail!(
                "no torchrun in {}: `make python` installs it",
                python.display()
            );
        }
        Self::new(tempfile::tempdir()?, &python, &root().join("trainer"))
    }

    /// A site whose torchrun is a shell script.
    ///
    /// # Errors
    ///
    /// When the script cannot be written.
    pub fn with_launcher(script: &str) -> Result<Self> {
        Self::with_launcher_in(&std::env::temp_dir(), script)
    }

    /// A site in a folder of one's own whose torchrun is a shell script.
    ///
    /// # Errors
    ///
    /// When the script cannot be written.
    pub fn with_launcher_in(parent: &Path, script: &str) -> Result<Self> {
        let data = tempfile::tempdir_in(parent)?;
        let site = Self::new(data, Path::new("/nonexistent"), Path::new("/tmp"))?;
        let launcher = site.data.path().join("python/bin/torchrun");
        std::fs::create_dir_all(launcher.parent().context("a parent")?)?;
        std::fs::write(&launcher, script)?;
        std::fs::set_permissions(&launcher, PermissionsExt::from_mode(0o755))?;
        let python = site.data.path().join("python").display().to_string();
        let work = site.data.path().display().to_string();
        Ok(site
            .set("TRAINER_LOCAL_PYTHON", &python)
            .set("TRAINER_LOCAL_WORKDIR", &work))
    }

    /// A site that runs its jobs on Kubernetes, with the rights of a kubeconfig.
    ///
    /// # Errors
    ///
    /// When there is no folder for it.
    pub fn on_kubernetes(kubeconfig: &Path, namespace: &str) -> Result<Self> {
        let nowhere = Path::new("/nonexistent");
        Ok(Self::new(tempfile::tempdir()?, nowhere, nowhere)?
            .set("TRAINER_CLUSTER", "kubernetes")
            .set("KUBECONFIG", &kubeconfig.display().to_string())
            .set("TRAINER_JOBS_NAMESPACE", namespace)
            .set("TRAINER_ALLOWED_NAMESPACES", namespace))
    }

    /// A site whose settings are those of a container, which the command that starts it sets.
    ///
    /// # Errors
    ///
    /// When there is no folder for its log.
    pub fn in_a_container() -> Result<Self> {
        Ok(Self {
            data: tempfile::tempdir()?,
            settings: Vec::new(),
        })
    }

    fn new(data: TempDir, python: &Path, work: &Path) -> Result<Self> {
        let settings = [
            ("TRAINER_PLUGINS", root().join("target/plugins")),
            ("TRAINER_DATA_DIR", data.path().to_path_buf()),
            ("TRAINER_LOCAL_PYTHON", python.to_path_buf()),
            ("TRAINER_LOCAL_WORKDIR", work.to_path_buf()),
        ];
        let settings = settings.map(|(name, path)| (name.to_string(), path.display().to_string()));
        let site = Self {
            data,
            settings: settings.into(),
        };
        Ok(site.set("TRAINER_LOCAL_BACKOFF_MS", "100"))
    }

    /// Changes a setting of the service.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_string(), value.to_string()));
        self
    }

    /// Starts the service and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not answer within a minute: a busy machine takes long to compile plugins.
    pub fn start(&self) -> Result<Server> {
        self.start_as(&mut Command::new(binary()))
    }

    /// Starts the service with the token among its settings.
    ///
    /// # Errors
    ///
    /// As [`Site::start`].
    pub fn start_with_token(&self) -> Result<Server> {
        let keep = "exec env TRAINER_API_TOKEN=\"$TOKEN\" \"$0\" \"$@\"";
        let token = self
            .settings
            .iter()
            .find(|(name, _)| name == "TRAINER_API_TOKEN");
        let token = token.map_or("", |(_, token)| token);
        let mut command = Command::new("bash");
        self.start_as(command.args(["-c", keep]).arg(binary()).env("TOKEN", token))
    }

    /// Starts the service through another command, which gets `serve` as its argument.
    ///
    /// # Errors
    ///
    /// When it does not answer within a minute: a busy machine takes long to compile plugins.
    pub fn start_as(&self, command: &mut Command) -> Result<Server> {
        let address = free_address()?;
        let process = command
            .arg("serve")
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .env("TRAINER_LISTEN", &address)
            .env_remove("TRAINER_API_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(self.log())?,
            )
            .spawn()
            .context("starting the service: `make build` builds it")?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .new_agent();
        let server = Server {
            process,
            agent,
            address,
        };
        server
            .wait_until_it_answers()
            .with_context(|| self.service_log())?;
        Ok(server)
    }

    fn log(&self) -> PathBuf {
        self.data.path().join("service.log")
    }

    /// What the service has logged.
    pub fn service_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The whole log of a replica, restarts included.
    pub fn replica_log(&self, job: &str, pod: &str) -> String {
        let folder = self.data.path().join("jobs/default").join(job).join(pod);
        let logs = (0..).map(|number| folder.join(format!("{number}.log")));
        logs.map_while(|log| std::fs::read_to_string(log).ok())
            .collect()
    }
}

impl Server {
    fn wait_until_it_answers(&self) -> Result<()> {
        let begun = Instant::now();
        while self.get("/healthz").is_err() {
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("the service does not answer");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits until the service is ready to take jobs.
    ///
    /// # Errors
    ///
    /// When it is not within thirty seconds.
    pub fn wait_until_ready(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let (status, message) = self.get("/readyz?verbose")?;
            if status == 200 {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("the service is not ready: {message}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The memory of the service that is resident, in bytes.
    ///
    /// # Errors
    ///
    /// When the service is gone.
    pub fn resident_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kibibytes: u64 = kibibytes.context("VmRSS")?.trim().parse()?;
        Ok(kibibytes * 1024)
    }

    /// The processor time that the service has taken so far.
    ///
    /// # Errors
    ///
    /// When the service is gone.
    pub fn processor_time(&self) -> Result<Duration> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()))?;
        let times = tasks.map(|task| {
            // Exact, where `stat` counts ticks of ten milliseconds.
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let time = text.split_whitespace().next().context("schedstat")?;
            anyhow::Ok(Duration::from_nanos(time.parse()?))
        });
        times.sum()
    }

    /// The id of the service's process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Status and body of a GET.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<(u16, Value)> {
        answer(self.agent.get(self.url(path)).call()?)
    }

    /// Status and body of a POST.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        answer(self.agent.post(self.url(path)).send_json(body)?)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status and body of a DELETE.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn delete(&self, path: &str) -> Result<(u16, Value)> {
        answer(self.agent.delete(self.url(path)).call()?)
    }

    /// The value of a series such as `trainer_jobs{status="running"}`, 0 where there is none yet.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn measured(&self, series: &str) -> Result<f64> {
        let (_, text) = self.get("/metrics")?;
        let mut lines = text.as_str().unwrap_or_default().lines();
        let value = lines.find_map(|line| line.strip_prefix(series));
        value.map_or(Ok(0.0), |value| Ok(value.trim().parse()?))
    }

    /// Posts JSON with a header.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn post_with_header(
        &self,
        path: &str,
        (name, value): (&str, &str),
        body: &Value,
    ) -> Result<(u16, Value)> {
        let request = self.agent.post(self.url(path)).header(name, value);
        answer(request.send_json(body)?)
    }

    /// Submits a job and gives its name.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub fn submit(&self, request: &Value) -> Result<String> {
        match self.post("/train", request)? {
            (201, summary) => Ok(summary["name"].as_str().unwrap_or_default().to_string()),
            (status, problem) => bail!("{status}: {problem}"),
        }
    }

    /// Waits until a job has a status, and gives its summary.
    ///
    /// # Errors
    ///
    /// When it ends otherwise, or three minutes pass.
    pub fn wait_for(&self, job: &str, status: &str) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let (_, summary) = self.get(&format!("/train/{job}"))?;
            if summary["status"] == status {
                return Ok(summary);
            }
            let ended = summary["status"] == "failed" || summary["status"] == "succeeded";
            if ended || begun.elapsed() > Duration::from_secs(180) {
                bail!("{job} is not {status}: {summary}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the service as a crash or the kernel would: it has no chance to clean up.
    ///
    /// # Errors
    ///
    /// When there is nothing to kill.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn answer(mut response: Response<ureq::Body>) -> Result<(u16, Value)> {
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string()?;
    Ok((
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    ))
}

/// An address of this machine that nobody listens on.
///
/// # Errors
///
/// When there is none.
pub fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// A request that trains the debug model on English text in a folder.
///
/// # Errors
///
/// The dataset cannot be written.
pub fn training(folder: &Path, run_id: &str, max_steps: u32) -> Result<Value> {
    let dataset = folder.join("data/licence.jsonl");
    if !dataset.exists() {
        std::fs::create_dir_all(folder.join("data"))?;
        let text = include_str!("../../LICENSE");
        let paragraphs = text
            .split("\n\n")
            .filter(|paragraph| !paragraph.trim().is_empty());
        let rows: Vec<String> = paragraphs
            .map(|text| json!({ "text": text }).to_string())
            .collect();
        std::fs::write(&dataset, rows.join("\n"))?;
    }
    Ok(json!({
        "framework": "meta",
        "model_id": "llama-debug",
        "run_id": run_id,
        "checkpoint_base_uri": format!("file://{}/runs", folder.display()),
        "dataset_uri": format!("file://{}/data/", folder.display()),
        "extra_args": {
            "max_steps": max_steps, "lr": 0.003, "max_seq_len": 64, "batch_size": 4, "save_steps": 5,
        },
    }))
}
