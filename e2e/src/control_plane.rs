//! A real Kubernetes control plane on the loopback: etcd, kube-apiserver, the scheduler, the training
//! operator with its webhook, and kwok for the kubelets; Kubeflow Trainer with JobSet, and Kueue, for
//! the tests that ask for them. `make control-plane` builds it.
//!
//! Annotations determine what happens to a pod: see `e2e/control-plane/stages.yaml`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use tempfile::TempDir;

use crate::root;

/// A running control plane. It ends when this is dropped, and with the process that started it.
pub struct ControlPlane {
    process: Child,
    orders: Mutex<Orders>,
    /// What was added to it.
    extensions: Mutex<BTreeSet<Extension>>,
    /// Where the API server listens.
    pub server: String,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The folder of `current.log` and `previous.log`, which every container has for its logs.
    pub logs: PathBuf,
}

/// The pipe on which the control plane takes orders, and the one on which it answers.
struct Orders {
    input: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What the control plane says when it is up.
#[derive(Deserialize)]
struct Ready {
    server: String,
    kubeconfig: PathBuf,
    logs: PathBuf,
}

/// A process of the control plane.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    ApiServer,
    Etcd,
    Kubelets,
    Kueue,
    Operator,
    Trainer,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::Etcd => "etcd",
            Self::Kubelets => "kwok",
            Self::Kueue => "kueue",
            Self::Operator => "operator",
            Self::Trainer => "trainer",
        }
    }
}

/// What a control plane has only for the tests that ask for it: it takes seconds and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extension {
    /// Kubeflow Trainer, JobSet and the Job controller: what runs a TrainJob.
    Trainer,
    /// Kueue that manages PyTorchJobs and TrainJobs.
    Kueue,
    /// Kueue as it is by default, which manages TrainJobs alone.
    KueueWithoutPyTorchJobs,
}

impl Extension {
    fn order(self) -> &'static str {
        match self {
            Self::Trainer => "install trainer",
            Self::Kueue => "install kueue kubeflow.org/pytorchjob trainer.kubeflow.org/trainjob",
            Self::KueueWithoutPyTorchJobs => "install kueue trainer.kubeflow.org/trainjob",
        }
    }
}

/// An overlay of `deploy/`.
#[derive(Clone, Copy, Debug)]
pub enum Overlay {
    OneNamespace,
    WholeCluster,
}

impl Overlay {
    /// Its folder, from the project's root.
    pub fn folder(self) -> &'static str {
        match self {
            Self::OneNamespace => "deploy/overlays/one-namespace",
            Self::WholeCluster => "deploy/overlays/whole-cluster",
        }
    }
}

/// `deploy/` as it stands in a cluster.
pub struct Deployment {
    pub namespace: String,
    /// The kubeconfig of the service account that `deploy/` runs the service as.
    pub kubeconfig: PathBuf,
    _folder: TempDir,
}

impl ControlPlane {
    /// The control plane that the tests of this process share.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<ControlPlane>> = OnceLock::new();
        let shared = SHARED.get_or_init(Self::start);
        shared.as_ref().map_err(|error| anyhow!("{error:#}"))
    }

    /// Starts a control plane of one's own, for tests that break it. It takes ten seconds.
    ///
    /// # Errors
    ///
    /// When it was not built, or does not start.
    pub fn start() -> Result<Self> {
        let mut process = Command::new(program())
            .arg("up")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the control plane: `make control-plane` builds it")?;
        let input = process.stdin.take();
        let output = process.stdout.take().context("standard output")?;
        let mut answers = BufReader::new(output);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        if line.is_empty() {
            bail!("the control plane did not start: its words are above");
        }
        let Ready {
            server,
            kubeconfig,
            logs,
        } = serde_json::from_str(&line)?;
        Ok(Self {
            process,
            orders: Mutex::new(Orders { input, answers }),
            extensions: Mutex::default(),
            server,
            kubeconfig,
            logs,
        })
    }

    /// Kills a part at once, as a crash would.
    ///
    /// # Errors
    ///
    /// When the control plane is gone.
    pub fn kill(&self, part: Part) -> Result<()> {
        self.order(&format!("kill {}", part.name()))
    }

    /// Starts a part that was killed and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it runs already, or does not come up.
    pub fn start_again(&self, part: Part) -> Result<()> {
        self.order(&format!("start {}", part.name()))
    }

    /// Adds an extension, unless the control plane has it already, and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn extend(&self, extension: Extension) -> Result<()> {
        // Its webhooks for TrainJobs answer only where there are TrainJobs.
        if extension == Extension::Kueue {
            self.extend(Extension::Trainer)?;
        }
        let extensions = self.extensions.lock();
        let mut extensions = extensions.unwrap_or_else(PoisonError::into_inner);
        if extensions.contains(&extension) {
            return Ok(());
        }
        self.order(extension.order())?;
        extensions.insert(extension);
        Ok(())
    }

    fn order(&self, order: &str) -> Result<()> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let input = orders.input.as_mut().context("standard input")?;
        writeln!(input, "{order}")?;
        let mut answer = String::new();
        orders.answers.read_line(&mut answer)?;
        match answer.trim() {
            "ok" => Ok(()),
            answer => bail!("{order}: {answer}"),
        }
    }

    /// A client with all rights. It belongs to the tokio runtime that it is made on.
    ///
    /// # Errors
    ///
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig).await
    }

    /// What kubectl prints, as the administrator.
    ///
    /// # Errors
    ///
    /// What kubectl says is wrong.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    /// What kubectl prints when it reads `input`.
    ///
    /// # Errors
    ///
    /// What kubectl says is wrong.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut process = Command::new(program())
            .args(["kubectl", "--kubeconfig"])
            .arg(&self.kubeconfig)
            .args(arguments)
            .current_dir(root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // kubectl may have ended before it read everything: then it says why.
        let _ = process
            .stdin
            .take()
            .context("standard input")?
            .write_all(input.as_bytes());
        let output = process.wait_with_output()?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {}: {}", arguments.join(" "), words.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Applies an overlay of `deploy/` in a namespace of its own, with the kustomization that an
    /// operator would write for that, and mints a token of its service account.
    ///
    /// # Errors
    ///
    /// When the API server refuses any of it.
    pub fn install(&self, overlay: Overlay, namespace: &str) -> Result<Deployment> {
        self.install_with(overlay, &[], namespace)
    }

    /// As [`ControlPlane::install`], with components of `deploy/`.
    ///
    /// # Errors
    ///
    /// When the API server refuses any of it.
    pub fn install_with(
        &self,
        overlay: Overlay,
        components: &[&str],
        namespace: &str,
    ) -> Result<Deployment> {
        // Bindings of the whole cluster share no names between namespaces.
        let rename = serde_json::json!([
            {"op": "replace", "path": "/metadata/name", "value": format!("trainer-{namespace}")},
        ]);
        let patch = serde_json::json!({
            "target": {"kind": "ClusterRoleBinding", "name": "trainer-queues"},
            "patch": rename.to_string(),
        });
        let folder = kustomization(overlay, components, namespace, &[patch])?;
        let here = folder.path().canonicalize()?;
        let here = here.display().to_string();
        self.kubectl(&[
            "apply",
            "--server-side",
            "--validate=strict",
            "--kustomize",
            &here,
        ])?;
        let kubeconfig = folder.path().join("service.kubeconfig");
        self.service_kubeconfig(namespace, &kubeconfig)?;
        Ok(Deployment {
            namespace: namespace.to_string(),
            kubeconfig,
            _folder: folder,
        })
    }

    /// Writes a kubeconfig with a token of the service account `trainer`.
    fn service_kubeconfig(&self, namespace: &str, file: &Path) -> Result<()> {
        let token = self.kubectl(&["create", "token", "trainer", "--namespace", namespace])?;
        let mut kubeconfig = serde_json::to_value(Kubeconfig::read_from(&self.kubeconfig)?)?;
        kubeconfig["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
        kubeconfig["contexts"][0]["context"]["namespace"] = namespace.into();
        std::fs::write(file, kubeconfig.to_string())?;
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Its standard input ends, and with it everything.
        let orders = self.orders.get_mut();
        orders.unwrap_or_else(PoisonError::into_inner).input = None;
        let _ = self.process.wait();
    }
}

/// A client with the rights of a kubeconfig, which tries nothing twice.
///
/// # Errors
///
/// When the kubeconfig cannot be read.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

fn program() -> PathBuf {
    root().join("target/control-plane/control-plane")
}

/// A folder with the kustomization that an operator would write for an overlay of `deploy/` with some of its
/// components and patches.
///
/// # Errors
///
/// When a component does not exist.
pub fn kustomization(
    overlay: Overlay,
    components: &[&str],
    namespace: &str,
    patches: &[serde_json::Value],
) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    // kustomize takes no absolute paths.
    let here = folder.path().canonicalize()?;
    let up = "../".repeat(here.components().count() - 1);
    let relative = |folder: &str| -> Result<String> {
        let there = root().join(folder).canonicalize()?;
        Ok(format!("{up}{}", there.strip_prefix("/")?.display()))
    };
    let components = components
        .iter()
        .map(|name| relative(&format!("deploy/components/{name}")));
    let components: Vec<String> = components.collect::<Result<_>>()?;
    let kustomization = serde_json::json!({
        "namespace": namespace,
        "resources": [relative(overlay.folder())?],
        "components": components,
        "patches": patches,
    });
    std::fs::write(here.join("kustomization.yaml"), kustomization.to_string())?;
    Ok(folder)
}
