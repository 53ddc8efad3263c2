//! The service in this process, with the plugins of `make plugins`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tower::ServiceExt;
use trainer_host::cluster::local::contain::Mode;
use trainer_host::cluster::local::quota::Limits as Quota;
use trainer_host::cluster::local::{LocalCluster, LocalSettings};
use trainer_host::http::{App, AppParts, Failures, router};
use trainer_host::plugin::golden::SelfTests;
use trainer_host::plugin::{Compiler, Limits, Loader, LoaderSettings, Registry, UnknownArguments};
use trainer_host::request::RequestPolicy;

use crate::measure::{Measured, measured};

const PLUGINS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/plugins");

pub struct Service {
    router: Router,
    runtime: Runtime,
    _data: TempDir,
    _draining: watch::Sender<bool>,
}

pub struct Answer {
    pub status: u16,
    pub bytes: usize,
}

impl Service {
    pub fn open() -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let data = tempfile::tempdir().unwrap();
        let settings = LocalSettings {
            program: "/nonexistent".into(),
            data_folder: data.path().to_path_buf(),
            working_directory: data.path().to_path_buf(),
            python: None,
            slots: Some(4),
            containment: Mode::Off,
            secret_files: Vec::new(),
            secrets_key: None,
            user: None,
            limits: Quota {
                jobs: 100,
                manifest_bytes: 1 << 28,
                log_bytes: 1 << 30,
                all_logs_bytes: 1 << 40,
            },
            restart_backoff: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(1),
        };
        let loader = LoaderSettings {
            folder: PLUGINS.into(),
            data: data.path().to_path_buf(),
            limits: Limits::default(),
            unknown: UnknownArguments::default(),
            compiler: Compiler::Here,
            own_tests: SelfTests::Run,
        };
        let registry = Registry::open(Loader::open(loader).unwrap()).unwrap();
        assert!(registry.current().all().count() >= 3, "make plugins");
        let draining = watch::Sender::new(false);
        let app = App::from(AppParts {
            plugins: Arc::new(registry),
            cluster: Arc::new(runtime.block_on(LocalCluster::open(settings)).unwrap()),
            policy: Arc::new(RequestPolicy::default()),
            token: None,
            access: None,
            audit: None,
            allowed_hosts: Arc::new([]),
            allowed_origins: Arc::new([]),
            failures: Failures::default(),
            draining: draining.subscribe(),
        });
        Self {
            router: router(app),
            runtime,
            _data: data,
            _draining: draining,
        }
    }

    pub fn preview(&self, body: &[u8]) -> (Answer, Measured) {
        let request = Request::post("/train/preview").header("content-type", "application/json");
        let request = request.body(Body::from(body.to_vec())).unwrap();
        self.runtime.block_on(measured(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await.unwrap();
            let bytes = bytes.to_bytes().len();
            Answer { status, bytes }
        }))
    }
}

/// A valid request, to begin with.
pub fn request(model_id: &str, run_id: &str) -> Value {
    json!({
        "framework": "meta", "model_id": model_id, "run_id": run_id,
        "checkpoint_base_uri": "s3://bucket/runs", "dataset_uri": "s3://bucket/data/",
    })
}
