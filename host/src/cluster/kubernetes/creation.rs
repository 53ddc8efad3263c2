//! Creates a job exactly once, even if the response is lost, and interprets refusals.

use tracing::warn;
use uuid::Uuid;

use super::KubernetesCluster;
use super::calls::CreateMode;
use super::error::CallError;
use super::prefixes::{Creation, NotBegun, Recent};
use crate::cluster::{Cluster, ClusterError, Created, WritingJob};
use crate::gang::no_gang_warning;
use crate::job::{ObservedJob, queue};
use crate::job_kind::JobKind;
use crate::keys::{IDEMPOTENCY_LABEL, RUN_ID_LABEL, SUBMISSION_ANNOTATION};
use crate::manifest;
use crate::pytorch_job::PyTorchJob;

impl KubernetesCluster {
    /// The outcome of a creation without a conclusive response.
    async fn look_up(
        &self,
        kind: JobKind,
        job: &PyTorchJob,
        submission: &str,
        failed: CallError,
    ) -> Result<ObservedJob, ClusterError> {
        let found = self
            .calls
            .get::<ObservedJob>(kind, job.namespace(), job.name())
            .await;
        match found {
            Ok(found) if found.annotation(SUBMISSION_ANNOTATION) == Some(submission) => Ok(found),
            Ok(taken) => Err(already_exists(&taken)),
            Err(error) => {
                let name = job.name();
                let error = &error as &dyn std::error::Error;
                warn!(
                    job = name,
                    error, "creating a job failed, and no matching job exists"
                );
                Err(failed.doing("creating the job"))
            }
        }
    }

    /// The meaning of a refused creation.
    async fn refused(&self, kind: JobKind, job: &PyTorchJob, error: CallError) -> ClusterError {
        let action = "creating the job";
        let Some(status) = error.status() else {
            return error.doing(action);
        };
        let message = status.message.clone();
        let of_details = status.details.as_ref().map(|details| details.kind.as_str());
        let was_refused = matches!(status.code, 400 | 403 | 422);
        if was_refused && let Some(missing) = self.missing_runtime(kind, job).await {
            return missing;
        }
        match status.code {
            409 if status.is_already_exists() => self.taken(job).await,
            404 if of_details == Some("namespaces") => ClusterError::NoSuchNamespace {
                namespace: job.namespace().to_string(),
            },
            404 => ClusterError::Unavailable {
                action: match kind {
                    JobKind::PyTorchJob => {
                        "the cluster has no PyTorchJob resource; is the training operator installed?"
                    }
                    JobKind::TrainJob => {
                        "the cluster has no TrainJob resource; is Kubeflow Trainer installed?"
                    }
                },
                source: Box::new(error),
            },
            400 | 413 | 422 => ClusterError::Refused { message },
            // Quotas, policies and missing permissions have the same status; an access review
            // distinguishes them.
            403 => match self.calls.may("create", kind, Some(job.namespace())).await {
                Ok(true) => ClusterError::Refused { message },
                _ => error.doing(action),
            },
            _ => error.doing(action),
        }
    }

    /// The error for a TrainJob whose runtime does not exist. Kubeflow refuses such a job with the same
    /// status as any other.
    async fn missing_runtime(&self, kind: JobKind, job: &PyTorchJob) -> Option<ClusterError> {
        if kind != JobKind::TrainJob {
            return None;
        }
        let runtime = manifest::train_job(job).spec.runtime_ref.name;
        match self.calls.has_runtime(&runtime).await {
            Ok(false) => Some(ClusterError::NoRuntime { runtime }),
            Ok(true) | Err(_) => None,
        }
    }

    /// The error for an existing name, with its run.
    async fn taken(&self, job: &PyTorchJob) -> ClusterError {
        match self.get(job.namespace(), job.name()).await {
            Ok(taken) => already_exists(&taken),
            Err(_) => ClusterError::AlreadyExists {
                name: job.name().to_string(),
                run_id: None,
            },
        }
    }

    pub(super) async fn submit(
        &self,
        mut job: PyTorchJob,
        earnest: CreateMode,
    ) -> Result<Created, ClusterError> {
        let submission = Uuid::new_v4().to_string();
        let annotations = job.metadata.annotations.get_or_insert_default();
        annotations.insert(SUBMISSION_ANNOTATION.to_string(), submission.clone());
        manifest::identify(&mut job, &submission);
        let kind = self.kind()?;
        self.check_other_kinds(kind, &job)?;
        let creation = self.begin(&job).await?;
        let created = match self.created(kind, &job, earnest).await {
            Ok(job) => job,
            Err(error) if error.was_not_processed() || earnest == CreateMode::DryRun => {
                return Err(self.refused(kind, &job, error).await);
            }
            Err(error) => self.look_up(kind, &job, &submission, error).await?,
        };
        if earnest == CreateMode::Create {
            self.check_key(&created).await?;
            creation.created(&created);
        }
        let mut warnings = match queue::queue_of(&created) {
            Some(_) => {
                let manifest = serde_json::to_value(&job).unwrap_or_default();
                self.queue_warnings(&created, &manifest).await
            }
            None => no_gang_warning(&job).into_iter().collect(),
        };
        if kind == JobKind::TrainJob {
            warnings.extend(manifest::no_ttl_warning(&job));
        }
        Ok(Created {
            job: created,
            warnings,
        })
    }

    async fn created(
        &self,
        kind: JobKind,
        job: &PyTorchJob,
        earnest: CreateMode,
    ) -> Result<ObservedJob, CallError> {
        let place = (kind, job.namespace());
        match kind {
            JobKind::PyTorchJob => self.calls.create(place, job, earnest).await,
            JobKind::TrainJob => {
                let job = manifest::train_job(job);
                self.calls.create(place, &job, earnest).await
            }
        }
    }

    /// The kind that this service creates.
    fn kind(&self) -> Result<JobKind, ClusterError> {
        self.kinds.created().ok_or_else(|| {
            let why = self.cache.not_known().unwrap_or_default();
            ClusterError::Unavailable {
                action: "finding out which kind of jobs the cluster has",
                source: why.into(),
            }
        })
    }

    /// Checks that no job of another kind has the name. The API server cannot: to it, they are
    /// unrelated.
    fn check_other_kinds(&self, kind: JobKind, job: &PyTorchJob) -> Result<(), ClusterError> {
        let known = self.cache.get(job.namespace(), job.name());
        match known.filter(|known| known.kind != kind) {
            Some(taken) => Err(already_exists(&taken)),
            None => Ok(()),
        }
    }

    /// Begins the creation of a job, unless another one writes to its prefix.
    async fn begin(&self, job: &PyTorchJob) -> Result<Creation, ClusterError> {
        loop {
            match self.creations.begin(job, &self.cache) {
                Ok(creation) => return Ok(creation),
                Err(NotBegun::Taken(taken)) => return Err(taken),
                Err(NotBegun::TakenBy(recent, taken)) => match self.still_writes(&recent).await {
                    true => return Err(taken),
                    false => self.creations.forget(&recent.job),
                },
            }
        }
    }

    /// Whether a job that was created here is there and has not ended. Where that cannot be read it
    /// counts as one that writes.
    async fn still_writes(&self, recent: &Recent) -> bool {
        let WritingJob { namespace, name } = &recent.job;
        match self.live::<ObservedJob>(namespace, name).await {
            Ok(found) => {
                found.metadata.uid.as_ref() == Some(&recent.uid) && !found.status.has_ended()
            }
            Err(error) => !error.status().is_some_and(|status| status.is_not_found()),
        }
    }

    /// Of jobs that were created concurrently with the same idempotency key, keeps only the first.
    ///
    /// The cluster state at this job's resource version contains exactly the jobs that were created
    /// before it. So all hosts agree on which job was first, without a lock or further permissions.
    /// The others are deleted.
    async fn check_key(&self, created: &ObservedJob) -> Result<(), ClusterError> {
        let (Some(key), Some(version)) = (
            created.label(IDEMPOTENCY_LABEL),
            created.metadata.resource_version.as_deref(),
        ) else {
            return Ok(());
        };
        let label = (IDEMPOTENCY_LABEL, key);
        let known = self
            .calls
            .labelled_at((created.kind, created.namespace()), label, version)
            .await;
        let known = known.unwrap_or_else(|error| {
            let cause = &error as &dyn std::error::Error;
            let job = created.name();
            warn!(
                job,
                cause, "cannot check whether the idempotency key was used before"
            );
            Vec::new()
        });
        let is_another = |job: &&ObservedJob| job.metadata.uid != created.metadata.uid;
        let Some(first) = known.iter().find(is_another) else {
            return Ok(());
        };
        let deleted = self.calls.delete_exactly(created).await;
        deleted.map_err(|error| error.doing("deleting a job with a duplicate idempotency key"))?;
        self.cache.forget(created);
        let job = first.name().to_string();
        Err(ClusterError::KeyTaken { job })
    }
}

fn already_exists(taken: &ObservedJob) -> ClusterError {
    ClusterError::AlreadyExists {
        name: taken.name().to_string(),
        run_id: taken.label(RUN_ID_LABEL).map(str::to_string),
    }
}
