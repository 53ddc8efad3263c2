//! What the handlers share, and the steps that several of them take.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::heavy::Load;
use super::origin::Origin;
use super::problem::Problem;
use super::token::{Failures, Token};
use crate::cluster::{Cluster, ClusterError, Created};
use crate::plan::Plan;
use crate::plugin::Registry;
use crate::pytorch_job::PyTorchJob;
use crate::request::{self, Checked, RequestPolicy};

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    pub plugins: Arc<Registry>,
    pub cluster: Arc<dyn Cluster>,
    pub policy: Arc<RequestPolicy>,
    /// Nobody is asked for a token where there is none.
    pub token: Option<Token>,
    /// Names of this service beside its addresses, where no token is asked for.
    pub allowed_hosts: Arc<[String]>,
    /// Other sites whose pages may use this service.
    pub allowed_origins: Arc<[Origin]>,
    /// What is logged of requests without the right token.
    pub failures: Failures,
    /// Set when the service is shutting down.
    pub draining: watch::Receiver<bool>,
}

impl App {
    /// Steps 1 and 2, with one set of plugins whatever is loaded meanwhile.
    pub(super) async fn plan(&self, body: Value, load: &Load) -> Result<(Checked, Plan), Problem> {
        let plugins = self.plugins.current();
        let (loaded, policy) = (plugins.clone(), self.policy.clone());
        let check = move || request::check(body, loaded.schemas(), &policy);
        let checked = load.run(check).await??;
        self.policy.namespaces.check(&checked.request.namespace)?;
        let plan = plugins.plan(&checked).await?;
        Ok((checked, plan))
    }

    /// Step 4.
    pub(super) async fn create(&self, job: PyTorchJob) -> Result<Created, ClusterError> {
        let created = self.cluster.create(job).await;
        created.map_err(|error| self.for_caller(error))
    }

    /// An error without what only callers of other namespaces may know.
    pub(super) fn for_caller(&self, error: ClusterError) -> ClusterError {
        error.for_caller(|namespace| self.policy.namespaces.check(namespace).is_ok())
    }
}
