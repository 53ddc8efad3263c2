"""Python client of the Unified Trainer API."""

from .async_client import AsyncTrainer
from .async_jobs import AsyncJob, AsyncJobs
from .client import Trainer
from .errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    JobDeletedError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServiceError,
    StreamInterruptedError,
    TrainerError,
    UnreachableError,
)
from .jobs import Job, Jobs
from .models import JobChanges, JobDetails, JobRequest, Metrics, Preview

__all__ = [
    "ApiError",
    "AsyncJob",
    "AsyncJobs",
    "AsyncTrainer",
    "AuthenticationError",
    "ConfigurationError",
    "InvalidRequestError",
    "Job",
    "JobChanges",
    "JobDeletedError",
    "JobDetails",
    "JobFailedError",
    "JobRequest",
    "Jobs",
    "Metrics",
    "NotFoundError",
    "PermissionDeniedError",
    "Preview",
    "RateLimitError",
    "ServiceError",
    "StreamInterruptedError",
    "Trainer",
    "TrainerError",
    "UnreachableError",
]
