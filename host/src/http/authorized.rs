//! The caller of a request and what it may do. All decisions about access are made here, by the
//! table of operations, the roles and the policy of the access file.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::Method;
use axum::http::request::Parts;
use serde_json::Value;
use tokio::sync::MutexGuard;

use super::app::App;
use super::openapi::operations::{self, Operation};
use super::problem::Problem;
use crate::access_rules::{
    Access, Defaults, Forbidden, Namespaces, Principal, Reach, Refusal, Role, reach,
};
use crate::cluster::ClusterError;
use crate::keys::OWNER_ANNOTATION;
use crate::manifest::record_owner;
use crate::pytorch_job::PyTorchJob;
use crate::request::{AllowedNamespaces, JobRequest};

/// The caller of a service without an access file.
static ANYBODY: LazyLock<Arc<Principal>> =
    LazyLock::new(|| Arc::new(Principal::unrestricted(None)));

/// An authenticated caller, and the operation that it wants.
#[derive(Clone)]
pub(super) struct Authorized {
    pub(super) principal: Arc<Principal>,
    /// The rules that were in force when the request came.
    access: Option<Arc<Access>>,
    operation: &'static str,
    reach: Reach,
    subject: Arc<Mutex<Subject>>,
}

/// What a request is about, for the audit log.
#[derive(Clone, Debug, Default)]
pub(super) struct Subject {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) rules: Vec<String>,
}

/// The turn of a submission whose policy limits all jobs together: held until the job is created.
pub(super) struct Turn<'a>(#[expect(dead_code, reason = "held")] Option<MutexGuard<'a, ()>>);

/// The operation of a request.
pub(super) fn operation(request: &Request) -> Option<&'static Operation> {
    let route = request.extensions().get::<MatchedPath>()?;
    let method = match request.method() {
        &Method::HEAD => &Method::GET,
        method => method,
    };
    operations::of(method.as_str(), route.as_str())
}

impl Authorized {
    /// The caller of a service without an access file, who may do everything.
    pub(super) fn anybody(operation: Option<&'static Operation>) -> Self {
        Self {
            principal: ANYBODY.clone(),
            access: None,
            operation: operation.map_or("", |operation| operation.id),
            reach: Reach::Open,
            subject: Arc::default(),
        }
    }

    /// A caller who may use the operation in some namespace at least.
    ///
    /// # Errors
    ///
    /// The caller does not have the role. An operation without a row in the table is always refused.
    pub(super) fn admit(
        principal: Arc<Principal>,
        access: Arc<Access>,
        operation: Option<&'static Operation>,
    ) -> Result<Self, Problem> {
        let row = operation.and_then(|operation| Some((operation.id, reach(operation.id)?)));
        let Some((operation, reach)) = row else {
            let refused = principal.lacks("this operation", Role::Admin, "the table of operations");
            return Err(refused.into());
        };
        let (has, least, scope) = match reach {
            Reach::Open => (Some(Role::Viewer), Role::Viewer, ""),
            Reach::Anywhere(least) | Reach::Namespace(least) => {
                (principal.highest_role(), least, "a namespace")
            }
            Reach::OwnJob => (principal.highest_role(), Role::Submitter, "a namespace"),
            Reach::Everywhere(least) => (principal.role_everywhere(), least, "all namespaces"),
        };
        if has < Some(least) {
            return Err(principal.lacks(operation, least, scope).into());
        }
        Ok(Self {
            principal,
            access: Some(access),
            operation,
            reach,
            subject: Arc::default(),
        })
    }

    /// Whether the caller may read the jobs of a namespace.
    pub(super) fn may_see(&self, app: &App, namespace: &str) -> bool {
        self.principal.may_see(namespace) && app.policy.namespaces.check(namespace).is_ok()
    }

    /// Checks that the caller may read the jobs of a namespace. The answer does not depend on
    /// whether it exists.
    pub(super) fn check_namespace(&self, app: &App, namespace: &str) -> Result<(), Problem> {
        if !self.principal.may_see(namespace) {
            return Err(self.principal.no_namespace(namespace).into());
        }
        Ok(app.policy.namespaces.check(namespace)?)
    }

    /// The namespace of requests that name none: that of the service, or the caller's only one.
    pub(super) fn default_namespace(&self, app: &App) -> Option<String> {
        let default = &app.policy.default_namespace;
        if self.may_see(app, default) {
            return Some(default.clone());
        }
        match self.visible(app).as_slice() {
            [only] => Some((*only).to_string()),
            _ => None,
        }
    }

    /// The namespaces that the caller may see, where they can be listed.
    pub(super) fn visible<'a>(&'a self, app: &'a App) -> Vec<&'a str> {
        match (self.principal.namespaces(), &app.policy.namespaces) {
            (Namespaces::Only(names), allowed) => {
                let names = names.iter().map(String::as_str);
                names.filter(|name| allowed.check(name).is_ok()).collect()
            }
            (Namespaces::All, AllowedNamespaces::Only(names)) => {
                names.iter().map(String::as_str).collect()
            }
            (Namespaces::All, AllowedNamespaces::All) => Vec::new(),
        }
    }

    /// Fills in the namespace of a body that has none, if the service's own is not the caller's.
    pub(super) fn fill_namespace(&self, app: &App, body: &mut Value) {
        if self.access.is_none() {
            return;
        }
        let Some(members) = body.as_object_mut() else {
            return;
        };
        let is_missing = members.get("namespace").is_none_or(Value::is_null);
        if let Some(namespace) = self.default_namespace(app).filter(|_| is_missing) {
            members.insert("namespace".to_string(), namespace.into());
        }
    }

    /// Checks that the caller may use the operation on a job. The job is read only if that depends
    /// on its owner.
    pub(super) async fn check_job(
        &self,
        app: &App,
        namespace: &str,
        name: &str,
    ) -> Result<(), JobProblem> {
        self.note(namespace, Some(name));
        let checked = match self.reach {
            Reach::Open | Reach::Anywhere(_) | Reach::Everywhere(_) => Ok(()),
            Reach::Namespace(least) => {
                let role = self.principal.check(self.operation, least, namespace);
                role.map(drop)
            }
            Reach::OwnJob if self.principal.role_in(namespace) >= Some(Role::Operator) => Ok(()),
            Reach::OwnJob => {
                let job = app.cluster.get(namespace, name).await;
                let job = job.map_err(JobProblem::Cluster)?;
                let owner = job.annotation(OWNER_ANNOTATION);
                self.principal
                    .check_change(self.operation, namespace, owner)
            }
        };
        checked.map_err(|refused| JobProblem::Refused(refused.into()))
    }

    /// Checks that the caller may submit a request, and that the policy allows all of it.
    pub(super) fn check_request(&self, app: &App, request: &JobRequest) -> Result<(), Problem> {
        let namespace = request.namespace.as_str();
        self.note(namespace, Some(request.name.as_str()));
        self.check_namespace(app, namespace)?;
        let Some(access) = &self.access else {
            return Ok(());
        };
        let role = self
            .principal
            .check(self.operation, Role::Submitter, namespace)?;
        let defaults = Defaults {
            image: &app.policy.default_image,
            profile: app.policy.profiles.default_of(namespace),
        };
        self.refuse(access.rules(namespace, role).check(request, defaults))
    }

    /// Checks the limits of all jobs together. The turn keeps others from creating jobs meanwhile.
    pub(super) async fn take_turn<'a>(
        &self,
        app: &'a App,
        request: &JobRequest,
    ) -> Result<Turn<'a>, Problem> {
        let (Some(access), Some(control)) = (&self.access, &app.access) else {
            return Ok(Turn(None));
        };
        let namespace = request.namespace.as_str();
        let role = self.principal.role_in(namespace).unwrap_or(Role::Viewer);
        let rules = access.rules(namespace, role);
        if !rules.limit_totals() {
            return Ok(Turn(None));
        }
        let turn = control.creation.lock().await;
        let jobs = app.cluster.list()?;
        let jobs = || jobs.iter().map(AsRef::as_ref);
        self.refuse(rules.check_totals(request, self.principal.name(), jobs))?;
        Ok(Turn(Some(turn)))
    }

    /// Records the caller as the owner of a job that it creates.
    pub(super) fn own(&self, job: &mut PyTorchJob) {
        if let Some(name) = self.principal.name() {
            record_owner(job, name);
        }
    }

    /// Removes what the caller may not know about other namespaces from an error.
    pub(super) fn visible_part(&self, app: &App, error: ClusterError) -> ClusterError {
        error.for_caller(|namespace| self.may_see(app, namespace))
    }

    /// What the request is about, for the audit log.
    pub(super) fn subject(&self) -> Subject {
        let subject = self.subject.lock();
        subject.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, namespace: &str, name: Option<&str>) {
        let mut subject = self.subject.lock().unwrap_or_else(PoisonError::into_inner);
        subject.namespace = (!namespace.is_empty()).then(|| namespace.to_string());
        subject.name = name.map(str::to_string);
    }

    fn refuse(&self, refusals: Vec<Refusal>) -> Result<(), Problem> {
        if refusals.is_empty() {
            return Ok(());
        }
        let (rules, findings) = refusals
            .into_iter()
            .map(|refusal| (refusal.rule, refusal.finding))
            .unzip();
        let mut subject = self.subject.lock().unwrap_or_else(PoisonError::into_inner);
        subject.rules = rules;
        let findings: Vec<_> = findings;
        Err(findings.into())
    }
}

/// Why an operation on a job is refused.
pub(super) enum JobProblem {
    /// The job could not be read, for example because it does not exist.
    Cluster(ClusterError),
    Refused(Problem),
}

impl From<Forbidden> for Problem {
    fn from(refused: Forbidden) -> Self {
        Self::forbidden(&refused)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Authorized {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().cloned();
        // Only a route without the check of tokens gets here without a caller, who may see nothing.
        Ok(known.unwrap_or_else(|| Self {
            principal: Arc::new(Principal::new("nobody", Vec::new())),
            access: Some(Arc::default()),
            operation: "",
            reach: Reach::Everywhere(Role::Admin),
            subject: Arc::default(),
        }))
    }
}
