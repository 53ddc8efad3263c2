//! The state that handlers share, and steps that several of them use.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::authorized::Authorized;
use super::heavy::Load;
use super::origin::Origin;
use super::problem::Problem;
use super::token::{Failures, Token};
use crate::access::AccessControl;
use crate::audit::Audit;
use crate::cluster::{Cluster, ClusterError, Created};
use crate::job_kind::JobKind;
use crate::manifest::{self, Manifest};
use crate::plan::Plan;
use crate::plugin::Registry;
use crate::pytorch_job::PyTorchJob;
use crate::request::{self, Checked, RequestPolicy};

/// The state that handlers share. Its clones share it too, because each request clones it several times.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    parts: AppParts,
    /// The policy for the kind of jobs that `parts.policy` is not for, once it is needed.
    policy_of_other_kind: OnceLock<Arc<RequestPolicy>>,
}

/// What the state consists of.
pub struct AppParts {
    pub plugins: Arc<Registry>,
    pub cluster: Arc<dyn Cluster>,
    pub policy: Arc<RequestPolicy>,
    /// None disables authentication.
    pub token: Option<Token>,
    /// The named callers and what they may do. None: every holder of the token may do everything.
    pub access: Option<Arc<AccessControl>>,
    /// Where changes are recorded.
    pub audit: Option<Arc<Audit>>,
    /// Additional host names of this service, used if there is no token.
    pub allowed_hosts: Arc<[String]>,
    /// Origins whose pages may use this service.
    pub allowed_origins: Arc<[Origin]>,
    /// Limits the logging of failed authentications.
    pub failures: Failures,
    /// Set when the service is shutting down.
    pub draining: watch::Receiver<bool>,
}

impl From<AppParts> for App {
    fn from(parts: AppParts) -> Self {
        Self(Arc::new(Shared {
            parts,
            policy_of_other_kind: OnceLock::new(),
        }))
    }
}

impl Deref for App {
    type Target = AppParts;

    fn deref(&self) -> &AppParts {
        &self.0.parts
    }
}

impl App {
    /// Whether clients must send a token.
    pub(super) fn requires_token(&self) -> bool {
        self.token.is_some() || self.access.is_some()
    }

    /// Steps 1 and 2, with the same set of plugins even if a reload happens meanwhile.
    pub(super) async fn plan(
        &self,
        mut body: Value,
        load: &Load,
        authorized: &Authorized,
    ) -> Result<(Checked, Plan), Problem> {
        authorized.fill_namespace(self, &mut body);
        let plugins = self.plugins.current();
        let (loaded, policy) = (plugins.clone(), self.policy_now());
        let check = move || request::check(body, loaded.schemas(), &policy);
        let checked = load.run(check).await??;
        authorized.check_request(self, &checked.request)?;
        let plan = plugins.plan(&checked).await?;
        Ok((checked, plan))
    }

    /// The request that a job was made from, by its manifest.
    ///
    /// # Errors
    ///
    /// The service no longer accepts such a request.
    pub(super) async fn request_of(&self, manifest: &Value) -> Result<Map<String, Value>, Problem> {
        let kind = JobKind::of(manifest);
        let mut fields = manifest::recovered_fields(manifest);
        let mut plain = self.manifest_of(&fields, kind).await?;
        if manifest::recover_arguments(&mut fields, manifest, &plain) {
            plain = self.manifest_of(&fields, kind).await?;
        }
        Ok(manifest::recovered(fields, manifest, &plain))
    }

    /// The manifest of the job that a request makes.
    async fn manifest_of(
        &self,
        request: &Map<String, Value>,
        kind: JobKind,
    ) -> Result<Value, Problem> {
        let plugins = self.plugins.current();
        let body = request.clone().into();
        let checked = request::check(body, plugins.schemas(), &self.policy_now())?;
        let plan = plugins.plan(&checked).await?;
        let job = manifest::manifest(&checked.request, &plan);
        serde_json::to_value(Manifest::of(job, kind)).map_err(Problem::internal)
    }

    /// The policy for the kind of jobs that the cluster creates, which it may learn after the start.
    fn policy_now(&self) -> Arc<RequestPolicy> {
        let job_kind = self.cluster.job_kind();
        if job_kind == self.policy.job_kind {
            return self.policy.clone();
        }
        let of_other_kind = || {
            let policy = (*self.policy).clone();
            Arc::new(RequestPolicy { job_kind, ..policy })
        };
        let policy = self.0.policy_of_other_kind.get_or_init(of_other_kind);
        policy.clone()
    }

    /// Step 4.
    pub(super) async fn create(
        &self,
        job: PyTorchJob,
        authorized: &Authorized,
    ) -> Result<Created, ClusterError> {
        let created = self.cluster.create(job).await;
        created.map_err(|error| authorized.visible_part(self, error))
    }
}
