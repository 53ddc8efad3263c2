//! Calls to the API server. Each has a time limit, and only idempotent ones are retried.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures_util::AsyncBufRead;
use http::{Request, header};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::api::{
    DeleteParams, GetParams, ListParams, LogParams, Patch, PatchParams, Preconditions, VersionMatch,
};
use kube::core::{ObjectList, Request as Path};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::CallError;
use super::measured::MeasuredCall;
use super::owner::{self, Controller};
use super::resource::{WatchedJob, group};
use crate::cluster::RunState;
use crate::job::ObservedJob;
use crate::job_kind::JobKind;
use crate::train_job;

/// The time limit of a call. The API server itself gives up after 60 s, a client earlier.
const CALL_TIME: Duration = Duration::from_secs(10);
/// The time limit of the readiness probe, which the kubelet repeats.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// The delays before retries of idempotent calls.
const AGAIN: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_factor(3.0)
    .with_max_times(2);
/// The field manager.
const FIELD_MANAGER: &str = "trainer";
/// The maximum number of events read per object. The API server keeps them for an hour.
const MAX_EVENTS: u32 = 100;

/// Whether to really create an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CreateMode {
    Create,
    /// Everything except the creation itself: schema, defaults, admission.
    DryRun,
}

/// The log stream of a container.
pub(super) type LogReader = Pin<Box<dyn AsyncBufRead + Send>>;

/// The API server.
#[derive(Clone)]
pub(super) struct Calls {
    client: Client,
}

impl Calls {
    /// `client` must not retry calls by itself.
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Creates a job, without retries. If the response is lost, the job may or may not exist.
    pub(super) async fn create(
        &self,
        (kind, namespace): (JobKind, &str),
        manifest: &impl Serialize,
        earnest: CreateMode,
    ) -> Result<ObservedJob, CallError> {
        let dry_run = match earnest {
            CreateMode::Create => "",
            CreateMode::DryRun => "&dryRun=All",
        };
        // Strict: a cluster whose version of the kind does not have a field must not silently drop it.
        let path = format!(
            "{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict{dry_run}",
            WatchedJob::url_path(&kind, Some(namespace))
        );
        let body = serde_json::to_vec(manifest).map_err(|e| CallError::NoRequest(e.into()))?;
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let request = request
            .body(body)
            .map_err(|e| CallError::NoRequest(e.into()))?;
        let create = || self.once(request.clone());
        create
            .retry(AGAIN)
            .when(|error| error.was_not_processed() && error.is_passing())
            .await
    }

    /// Reads a job as the requested type.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        kind: JobKind,
        namespace: &str,
        name: &str,
    ) -> Result<T, CallError> {
        self.again(jobs(kind, namespace).get(name, &GetParams::default()))
            .await
    }

    pub(super) async fn delete(
        &self,
        kind: JobKind,
        namespace: &str,
        name: &str,
    ) -> Result<(), CallError> {
        // The garbage collector deletes the pods afterwards.
        self.delete_with(kind, namespace, name, &DeleteParams::background())
            .await
    }

    /// Deletes exactly this job, not a newer one with the same name.
    pub(super) async fn delete_exactly(&self, job: &ObservedJob) -> Result<(), CallError> {
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: job.metadata.uid.clone(),
            resource_version: None,
        });
        self.delete_with(job.kind, job.namespace(), job.name(), &parameters)
            .await
    }

    async fn delete_with(
        &self,
        kind: JobKind,
        namespace: &str,
        name: &str,
        parameters: &DeleteParams,
    ) -> Result<(), CallError> {
        let request = jobs(kind, namespace).delete(name, parameters);
        let deleted: Value = self.again(request).await?;
        drop(deleted);
        Ok(())
    }

    pub(super) async fn set_running(
        &self,
        job: &ObservedJob,
        state: RunState,
    ) -> Result<ObservedJob, CallError> {
        let suspend = state == RunState::Suspend;
        let patch = match job.kind {
            JobKind::PyTorchJob => json!({"spec": {"runPolicy": {"suspend": suspend}}}),
            JobKind::TrainJob => json!({"spec": {"suspend": suspend}}),
        };
        self.patch(job.kind, job.namespace(), job.name(), patch)
            .await
    }

    /// Writes annotations of exactly this job: the API server rejects the uid if it is a newer one
    /// with the same name.
    pub(super) async fn annotate(
        &self,
        job: &ObservedJob,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), CallError> {
        let patch = json!({"metadata": {"uid": job.metadata.uid, "annotations": annotations}});
        self.patch(job.kind, job.namespace(), job.name(), patch)
            .await
            .map(drop)
    }

    /// Takes the backoff limit of this very PyTorchJob down to nothing: the next restart fails it.
    pub(super) async fn limit_restarts(&self, job: &Controller) -> Result<(), CallError> {
        let patch = json!({
            "metadata": {"uid": job.id},
            "spec": {"runPolicy": {"backoffLimit": 0}},
        });
        self.patch(JobKind::PyTorchJob, &job.namespace, &job.name, patch)
            .await
            .map(drop)
    }

    pub(super) async fn patch(
        &self,
        kind: JobKind,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<ObservedJob, CallError> {
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_string()),
            ..PatchParams::default()
        };
        let request = jobs(kind, namespace).patch(name, &parameters, &Patch::Merge(patch));
        self.again(request).await
    }

    /// The pods of a job.
    pub(super) async fn pods(&self, job: &Controller) -> Result<Vec<Pod>, CallError> {
        self.labelled_pods(job, &owner::selector(job)).await
    }

    /// The pods of a replica, such as `master-0`, the newest first: a pod that is being deleted may
    /// coexist with its successor.
    pub(super) async fn pods_of(
        &self,
        job: &Controller,
        replica: &str,
    ) -> Result<Vec<Pod>, CallError> {
        let selector = owner::replica_selector(job, replica);
        let mut pods = self.labelled_pods(job, &selector).await?;
        pods.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref();
            std::cmp::Reverse(created.map(|created| created.0))
        });
        Ok(pods)
    }

    /// The pods with these labels that belong to exactly this job.
    async fn labelled_pods(&self, job: &Controller, labels: &str) -> Result<Vec<Pod>, CallError> {
        let parameters = ListParams::default().labels(labels);
        let path = Path::new(Pod::url_path(&(), Some(&job.namespace)));
        let pods: ObjectList<Pod> = self.again(path.list(&parameters)).await?;
        let own = pods.items.into_iter();
        Ok(own.filter(|pod| owner::belongs_to(pod, job)).collect())
    }

    /// Streams the log of a pod.
    pub(super) async fn log(
        &self,
        namespace: &str,
        pod: &str,
        parameters: &LogParams,
    ) -> Result<LogReader, CallError> {
        let path = Path::new(Pod::url_path(&(), Some(namespace)));
        let request = path.logs(pod, parameters);
        let request = request.map_err(|e| CallError::NoRequest(e.into()))?;
        let call = MeasuredCall::of(&request);
        let stream = call.within(CALL_TIME, self.client.request_stream(request));
        Ok(Box::pin(stream.await?))
    }

    /// The jobs of a namespace with a label.
    pub(super) async fn labelled(
        &self,
        kind: JobKind,
        namespace: &str,
        label: &str,
        value: &str,
    ) -> Result<Vec<ObservedJob>, CallError> {
        let parameters = ListParams::default().labels(&format!("{label}={value}"));
        let request = jobs(kind, namespace).list(&parameters);
        let jobs: ObjectList<ObservedJob> = self.again(request).await?;
        Ok(jobs.items)
    }

    /// The jobs of a namespace with a label, at an earlier resource version.
    pub(super) async fn labelled_at(
        &self,
        (kind, namespace): (JobKind, &str),
        label: (&str, &str),
        resource_version: &str,
    ) -> Result<Vec<ObservedJob>, CallError> {
        let (label, value) = label;
        let parameters = ListParams::default()
            .labels(&format!("{label}={value}"))
            .at(resource_version)
            .matching(VersionMatch::Exact);
        let request = jobs(kind, namespace).list(&parameters);
        let jobs: ObjectList<ObservedJob> = self.again(request).await?;
        Ok(jobs.items)
    }

    /// The events of an object.
    pub(super) async fn events(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Result<Vec<Event>, CallError> {
        let about = format!("involvedObject.kind={kind},involvedObject.name={name}");
        let parameters = ListParams::default().fields(&about).limit(MAX_EVENTS);
        let path = Path::new(Event::url_path(&(), Some(namespace)));
        let events: ObjectList<Event> = self.again(path.list(&parameters)).await?;
        Ok(events.items)
    }

    /// Whether this service has a permission in a namespace, or in all. This check needs none itself.
    pub(super) async fn may(
        &self,
        verb: &str,
        kind: JobKind,
        namespace: Option<&str>,
    ) -> Result<bool, CallError> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(group(kind).to_string()),
                    resource: Some(kind.plural().to_string()),
                    verb: Some(verb.to_string()),
                    namespace: namespace.map(str::to_string),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let body = serde_json::to_vec(&review).map_err(|e| CallError::NoRequest(e.into()))?;
        let path = Path::new(SelfSubjectAccessReview::url_path(&(), None));
        let answer: SelfSubjectAccessReview = self
            .again(path.create(&kube::api::PostParams::default(), body))
            .await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Reads an object or a list at a path.
    pub(super) async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|e| CallError::NoRequest(e.into()))?;
        let call = || self.once(request.clone());
        call.retry(AGAIN).when(CallError::is_passing).await
    }

    /// Merges a patch into the object at a path.
    pub(super) async fn merge<T: DeserializeOwned>(
        &self,
        path: &str,
        patch: &Value,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(patch).map_err(|e| CallError::NoRequest(e.into()))?;
        let request = Request::patch(format!("{path}?fieldManager={FIELD_MANAGER}"))
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(body)
            .map_err(|e| CallError::NoRequest(e.into()))?;
        let call = || self.once(request.clone());
        call.retry(AGAIN).when(CallError::is_passing).await
    }

    /// Whether the API server has a kind of jobs. Every account may read this.
    pub(super) async fn serves(&self, kind: JobKind) -> Result<bool, CallError> {
        let path = format!("/apis/{}", kind.api_version());
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|e| CallError::NoRequest(e.into()))?;
        match self.once::<APIResourceList>(request).await {
            Ok(list) => Ok(list.resources.iter().any(|one| one.name == kind.plural())),
            Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a ClusterTrainingRuntime exists.
    pub(super) async fn has_runtime(&self, name: &str) -> Result<bool, CallError> {
        let path = format!(
            "/apis/{}/clustertrainingruntimes/{name}",
            train_job::API_VERSION
        );
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|e| CallError::NoRequest(e.into()))?;
        match self.text(request, PROBE_TIME).await {
            Ok(_) => Ok(true),
            Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the API server is reachable.
    pub(super) async fn probe(&self) -> Result<(), CallError> {
        let version = Request::get("/version").body(Vec::new());
        let version = version.map_err(|e| CallError::NoRequest(e.into()))?;
        self.text(version, PROBE_TIME).await.map(drop)
    }

    /// A call that may be retried: a read or an idempotent write.
    async fn again<T: DeserializeOwned>(
        &self,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, CallError> {
        let request = request.map_err(|e| CallError::NoRequest(e.into()))?;
        let call = || self.once(request.clone());
        call.retry(AGAIN).when(CallError::is_passing).await
    }

    async fn once<T: DeserializeOwned>(&self, request: Request<Vec<u8>>) -> Result<T, CallError> {
        let text = self.text(request, CALL_TIME).await?;
        serde_json::from_str(&text).map_err(CallError::Nonsense)
    }

    async fn text(&self, request: Request<Vec<u8>>, time: Duration) -> Result<String, CallError> {
        let call = MeasuredCall::of(&request);
        // Not `Client::request`, because it logs responses that it cannot parse, which may contain
        // secrets.
        call.within(time, self.client.request_text(request)).await
    }
}

fn jobs(kind: JobKind, namespace: &str) -> Path {
    Path::new(WatchedJob::url_path(&kind, Some(namespace)))
}
