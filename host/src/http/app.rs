//! The state that handlers share, and steps that several of them use.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::authorized::Authorized;
use super::heavy::Load;
use super::origin::Origin;
use super::problem::Problem;
use super::token::{Failures, Token};
use crate::access::AccessControl;
use crate::audit::Audit;
use crate::cluster::{Cluster, ClusterError, Created};
use crate::plan::Plan;
use crate::plugin::Registry;
use crate::pytorch_job::PyTorchJob;
use crate::request::{self, Checked, RequestPolicy};

/// The state that handlers share.
#[derive(Clone)]
pub struct App {
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

    /// The policy for the kind of jobs that the cluster creates, which it may learn after the start.
    fn policy_now(&self) -> Arc<RequestPolicy> {
        let job_kind = self.cluster.job_kind();
        match job_kind == self.policy.job_kind {
            true => self.policy.clone(),
            false => Arc::new(RequestPolicy {
                job_kind,
                ..(*self.policy).clone()
            }),
        }
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
