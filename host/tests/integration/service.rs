//! The service under test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt;
use trainer_host::access::AccessControl;
use trainer_host::access_rules::AccessFile;
use trainer_host::audit::Audit;
use trainer_host::cluster::Cluster;
use trainer_host::cluster::local::contain::Mode;
use trainer_host::cluster::local::quota::Limits as Quota;
use trainer_host::cluster::local::{LocalCluster, LocalSettings};
use trainer_host::document;
use trainer_host::http::{AppParts, Failures, Token, router};
use trainer_host::plugin::golden::SelfTests;
use trainer_host::plugin::{
    Compiler, Limits, Loader, LoaderSettings, Registry, UnknownArguments, error_chain,
};
use trainer_host::request::RequestPolicy;

/// In place of torchrun: the request's model_id says what the replica does.
const LAUNCHER: &str = r#"#!/bin/sh
# What a test prints stands alone in its log.
[ "$MODEL_ID" = script ] && { cd "$(dirname "$0")"; eval "$SCRIPT"; exit; }
echo "$0 $*"
env
case "$MODEL_ID" in
  # The job ends with its master, and so does every worker that still runs.
  succeed) [ "$RANK" = 0 ] && sleep 0.2; exit 0 ;;
  fail) printf '  exitcode  : 7 (pid: 1)\n'; exit 1 ;;
  crash) kill -SEGV $$ ;;
  wait) exec sleep 600 ;;
  # A child in a session of its own, as torchrun starts its workers.
  nest) setsid sleep 600 & exec sleep 600 ;;
esac
"#;

pub struct Service {
    pub router: Router,
    pub cluster: Arc<LocalCluster>,
    pub registry: Arc<Registry>,
    /// The access file in force, if the service has one.
    pub access: Option<Arc<AccessControl>>,
    /// Says that the service is shutting down.
    pub draining: watch::Sender<bool>,
    pub data: TempDir,
}

/// Who may use a service.
#[derive(Default)]
struct Restrictions {
    token: Option<Token>,
    access: Option<Arc<AccessControl>>,
    audit: Option<Arc<Audit>>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that this is a problem document and gives it.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail", "instance"] {
            assert!(
                problem[member].as_str().is_some_and(|m| !m.is_empty()),
                "{member}: {problem}"
            );
        }
        assert_eq!(problem["instance"], self.header("x-request-id"));
        problem
    }
}

impl Service {
    pub async fn start() -> Self {
        Self::with(built_plugins().to_path_buf(), None).await
    }

    pub async fn with_token(token: &str) -> Self {
        Self::with(built_plugins().to_path_buf(), Some(Token::new(token))).await
    }

    pub async fn with(plugins: PathBuf, token: Option<Token>) -> Self {
        Self::with_policy(plugins, token, RequestPolicy::default()).await
    }

    pub async fn with_policy(
        plugins: PathBuf,
        token: Option<Token>,
        policy: RequestPolicy,
    ) -> Self {
        Self::within(tempfile::tempdir().unwrap(), plugins, token, policy).await
    }

    /// A service whose jobs are kept in memory, for tests that make thousands.
    pub async fn in_memory() -> Self {
        let data = tempfile::tempdir_in("/dev/shm").unwrap();
        Self::within(
            data,
            built_plugins().to_path_buf(),
            None,
            RequestPolicy::default(),
        )
        .await
    }

    /// A service that waits so long before a failed replica starts again.
    pub async fn with_backoff(backoff: Duration) -> Self {
        let data = tempfile::tempdir().unwrap();
        let settings = LocalSettings {
            restart_backoff: backoff,
            ..local_settings(data.path())
        };
        let plugins = built_plugins().to_path_buf();
        Self::of(data, settings, plugins, None, RequestPolicy::default()).await
    }

    /// A service that does not contain its jobs, as on a machine that does not allow it.
    pub async fn uncontained() -> Self {
        let data = tempfile::tempdir().unwrap();
        let settings = LocalSettings {
            containment: Mode::Off,
            ..local_settings(data.path())
        };
        let plugins = built_plugins().to_path_buf();
        Self::of(data, settings, plugins, None, RequestPolicy::default()).await
    }

    /// The same data, after a clean stop and a new start.
    pub async fn restarted(self) -> Self {
        self.cluster.shut_down().await;
        let Self { data, cluster, .. } = self;
        drop((self.router, cluster));
        // The alarms of its jobs end, and with them the last user of the store.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let plugins = built_plugins().to_path_buf();
        Self::within(data, plugins, None, RequestPolicy::default()).await
    }

    async fn within(
        data: TempDir,
        plugins: PathBuf,
        token: Option<Token>,
        policy: RequestPolicy,
    ) -> Self {
        let settings = local_settings(data.path());
        Self::of(data, settings, plugins, token, policy).await
    }

    /// A service with an access file, in TOML, and an audit log in its data folder.
    pub async fn with_access(access: &str, policy: RequestPolicy) -> Self {
        let data = tempfile::tempdir_in("/dev/shm").unwrap();
        let audit = Audit::File(data.path().join("audit.jsonl"));
        let settings = local_settings(data.path());
        let file: AccessFile = document::from_toml(access).unwrap();
        let restricted = Restrictions {
            access: Some(Arc::new(AccessControl::new(file.check().unwrap()))),
            audit: Some(Arc::new(audit)),
            ..Restrictions::default()
        };
        let plugins = built_plugins().to_path_buf();
        Self::restricted(data, settings, plugins, restricted, policy).await
    }

    async fn of(
        data: TempDir,
        settings: LocalSettings,
        plugins: PathBuf,
        token: Option<Token>,
        policy: RequestPolicy,
    ) -> Self {
        let restricted = Restrictions {
            token,
            ..Restrictions::default()
        };
        Self::restricted(data, settings, plugins, restricted, policy).await
    }

    async fn restricted(
        data: TempDir,
        settings: LocalSettings,
        plugins: PathBuf,
        restricted: Restrictions,
        policy: RequestPolicy,
    ) -> Self {
        let registry = Arc::new(registry(&plugins, data.path()));
        if plugins == built_plugins() {
            all_served(&registry);
        }
        let cluster = Arc::new(LocalCluster::open(settings).await.unwrap());
        let draining = watch::Sender::new(false);
        let app = AppParts {
            plugins: registry.clone(),
            cluster: cluster.clone(),
            policy: Arc::new(policy),
            token: restricted.token,
            access: restricted.access.clone(),
            audit: restricted.audit,
            allowed_hosts: Arc::new([]),
            allowed_origins: Arc::new(["https://dashboard.example".parse().unwrap()]),
            failures: Failures::default(),
            draining: draining.subscribe(),
        };
        Self {
            router: router(app.into()),
            cluster,
            registry,
            access: restricted.access,
            draining,
            data,
        }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn submit(&self, request: &Value) -> Answer {
        self.post("/train", request.to_string()).await
    }

    /// Submits a job that must be accepted.
    pub async fn create(&self, request: &Value) {
        let answer = self.submit(request).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }

    pub async fn preview(&self, request: &Value) -> Answer {
        self.post("/train/preview", request.to_string()).await
    }

    /// The status of a job, as soon as it is the expected one.
    pub async fn wait_for(&self, job: &str, status: &str) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.get(&format!("/train/{job}")).await.json();
            if answer["status"] == status {
                return answer;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "still {answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The names of the jobs that the cluster knows.
    pub fn cluster_jobs(&self) -> Vec<String> {
        let jobs = self.cluster.list().unwrap();
        jobs.iter().map(|job| job.name().to_string()).collect()
    }

    pub async fn stop(self) -> TempDir {
        self.cluster.shut_down().await;
        self.data
    }
}

/// A valid request whose replica does what `model_id` says.
pub fn request(model_id: &str, run_id: &str) -> Value {
    json!({
        "framework": "meta",
        "model_id": model_id,
        "run_id": run_id,
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
    })
}

/// The plugins of a folder, made in children of the real binary as the service makes them.
pub fn registry(folder: &Path, data: &Path) -> Registry {
    let loader = Loader::open(LoaderSettings {
        folder: folder.to_path_buf(),
        data: data.to_path_buf(),
        limits: Limits::default(),
        unknown: UnknownArguments::default(),
        compiler: Compiler::Child {
            program: env!("CARGO_BIN_EXE_trainer").into(),
            niceness: 0,
        },
        own_tests: SelfTests::Run,
    });
    Registry::open(loader.unwrap()).unwrap()
}

/// Asserts that no plugin was refused.
fn all_served(registry: &Registry) {
    if let Some(refused) = registry.current().refused().first() {
        panic!("{}: {}", refused.source, error_chain(&*refused.error));
    }
}

pub fn local_settings(data: &Path) -> LocalSettings {
    let python = data.join("python");
    let launcher = python.join("bin/torchrun");
    std::fs::create_dir_all(launcher.parent().unwrap()).unwrap();
    std::fs::write(&launcher, LAUNCHER).unwrap();
    std::fs::set_permissions(&launcher, PermissionsExt::from_mode(0o755)).unwrap();
    LocalSettings {
        program: env!("CARGO_BIN_EXE_trainer").into(),
        data_folder: data.to_path_buf(),
        working_directory: data.to_path_buf(),
        python: Some(python),
        slots: Some(4),
        containment: Mode::Auto,
        secret_files: Vec::new(),
        secrets_key: None,
        user: None,
        limits: Quota {
            jobs: 20_000,
            manifest_bytes: 1 << 28,
            log_bytes: 1 << 30,
            all_logs_bytes: 1 << 40,
        },
        restart_backoff: Duration::from_millis(10),
        shutdown_grace: Duration::from_secs(1),
    }
}

pub fn built_plugins() -> &'static Path {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/plugins"));
    assert!(
        folder.join("meta.wasm").exists(),
        "`make plugins` builds the plugins first"
    );
    folder
}

/// A plugin folder with meta and a plugins.toml.
pub fn meta_with(settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let meta = built_plugins().join("meta.wasm");
    std::fs::copy(meta, folder.path().join("meta.wasm")).unwrap();
    std::fs::write(folder.path().join("plugins.toml"), settings).unwrap();
    folder
}

pub fn hostile_plugin() -> PathBuf {
    let file = "/../target/wasm32-unknown-unknown/plugin/hostile.wasm";
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR")).to_string() + file);
    assert!(
        file.exists(),
        "`make hostile` builds the hostile plugin first"
    );
    file
}

/// The hostile plugin with the word for its attack on `describe` replaced.
pub fn with_attack(attack: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(hostile_plugin()).unwrap();
    let word = b"on-describe:nothing             ";
    let at = bytes
        .windows(word.len())
        .position(|window| window == word)
        .unwrap();
    let new = format!("{:<32}", format!("on-describe:{attack}"));
    bytes[at..at + word.len()].copy_from_slice(new.as_bytes());
    bytes
}
