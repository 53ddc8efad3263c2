//! The service on the control plane, with the rights that `deploy/` gives it.

use anyhow::{Context, Result};
use e2e::control_plane::{ControlPlane, Deployment, Overlay};
use e2e::{Server, Site};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;

/// A service that runs with `deploy/`'s own service account in a namespace of its own.
pub struct Deployed {
    pub plane: &'static ControlPlane,
    /// What it creates.
    pub kind: JobKind,
    pub server: Server,
    pub namespace: String,
    deployment: Deployment,
    /// It goes with the service.
    _site: Site,
}

impl Deployed {
    /// A service that creates jobs of a kind.
    pub fn start(kind: JobKind, name: &str) -> Result<Self> {
        Self::start_on(ControlPlane::shared()?, kind, name)
    }

    /// A service on a control plane that the test may break.
    pub fn start_alone(kind: JobKind, name: &str) -> Result<Self> {
        // It ends with this process.
        Self::start_on(Box::leak(Box::new(ControlPlane::start()?)), kind, name)
    }

    fn start_on(plane: &'static ControlPlane, kind: JobKind, name: &str) -> Result<Self> {
        kinds::extend(plane, kind)?;
        let namespace = kinds::namespace(kind, name);
        Self::start_with(plane, kind, &namespace, kinds::components(kind), |site| {
            site
        })
    }

    /// A service with components of `deploy/` and other settings.
    pub fn start_with(
        plane: &'static ControlPlane,
        kind: JobKind,
        namespace: &str,
        components: &[&str],
        settings: impl FnOnce(Site) -> Site,
    ) -> Result<Self> {
        let deployment = plane.install_with(Overlay::OneNamespace, components, namespace)?;
        let site = Site::on_kubernetes(&deployment.kubeconfig, namespace)?;
        let site = settings(kinds::creates(site, kind));
        let server = site.start()?;
        let ready = server.wait_until_ready();
        ready.with_context(|| site.service_log())?;
        Ok(Self {
            plane,
            kind,
            server,
            namespace: namespace.to_string(),
            deployment,
            _site: site,
        })
    }

    /// A client with the rights of the service.
    pub async fn client(&self) -> Result<kube::Client> {
        e2e::control_plane::client(&self.deployment.kubeconfig).await
    }

    /// What `?view=full` says of a job.
    pub fn full(&self, job: &str) -> Value {
        let answer = self.server.get(&format!("/train/{job}?view=full"));
        let (status, body) = answer.unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// What `?view=full` says as soon as it says what is looked for.
    pub fn full_when(&self, job: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(|| {
            let full = self.full(job);
            match is(&full) {
                true => Ok(full),
                false => Err(full.to_string()),
            }
        })
    }

    /// Patches an object of the service's namespace.
    pub fn patch(&self, kind: &str, name: &str, patch: &Value, more: &[&str]) {
        let patch = patch.to_string();
        let arguments = ["patch", kind, name, "--type=merge", "--patch", &patch];
        let namespace = ["--namespace", &self.namespace];
        let arguments = [&arguments[..], &namespace[..], more].concat();
        self.plane.kubectl(&arguments).unwrap();
    }

    /// The pods of a job.
    pub fn pods(&self, job: &str) -> Vec<Value> {
        let selector = kinds::pods_of(self.kind, job);
        kinds::objects(self.plane, &self.namespace, "pods", &selector)
    }

    /// The name of the pod of a job's master.
    pub fn master(&self, job: &str) -> String {
        kinds::master(self.plane, self.kind, &self.namespace, job)
    }

    /// The names of the jobs in the service's namespace.
    pub fn jobs(&self) -> Vec<String> {
        kinds::jobs(self.plane, self.kind, &self.namespace)
    }
}

/// Looks until there is something, for half a minute.
pub fn eventually<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = std::time::Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(_) if begun.elapsed().as_secs() < 30 => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(last) => panic!("{last}"),
        }
    }
}

/// A request whose pods do what annotations say.
pub fn request(run_id: &str, fate: &Value) -> Value {
    json!({
        "framework": "meta",
        "model_id": "llama",
        "run_id": run_id,
        "gpus_per_node": 0,
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "annotations": fate,
    })
}

/// A site that shares its data with others. On Kubernetes that is compiled plugins alone, and a
/// service that finds them starts in a moment.
pub fn with_compiled_plugins(site: Site) -> Site {
    let folder = e2e::root().join("target/kubernetes-tests");
    site.set("TRAINER_DATA_DIR", &folder.display().to_string())
}
