"""Errors of the client. Their text names the argument that is wrong and what would be right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import Finding, JobDetails, Problem


class TrainerError(Exception):
    """Any error of this package."""


class ConfigurationError(TrainerError):
    """The address or the configuration file is invalid."""


class UnreachableError(TrainerError):
    """The service did not respond, even after retries."""


class StreamInterruptedError(TrainerError):
    """A log or a stream was cut off before its end."""


class ApiError(TrainerError):
    """The service refused a request."""

    def __init__(self, problem: "Problem") -> None:
        self.problem = problem
        super().__init__(_text(problem))

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str:
        """What went wrong, such as `name-taken`; see `trainer explain`."""
        return self.problem.type.rpartition(":")[2]

    @property
    def findings(self) -> "Sequence[Finding]":
        """Every finding, each with a code and a pointer to the argument."""
        return self.problem.errors

    @property
    def request_id(self) -> str:
        """The id of the request in the logs of the service."""
        return self.problem.instance


class InvalidRequestError(ApiError):
    """400, 413, 415 or 422: the request is invalid or refused by the cluster."""


class AuthenticationError(ApiError):
    """401: the token is missing or wrong."""


class PermissionDeniedError(ApiError):
    """403: the caller or the service may not do this."""


class NotFoundError(ApiError):
    """404: the job or the framework does not exist."""


class RateLimitError(ApiError):
    """429, also after retries."""


class ServiceError(ApiError):
    """500 to 504: the service, a plugin or the cluster failed."""


class JobFailedError(TrainerError):
    """A job that was waited for has failed."""

    def __init__(self, job: "JobDetails") -> None:
        self.job = job
        reasons = [job.detail, *job.explanation]
        super().__init__(f"{job.name} has failed: {' '.join(dict.fromkeys(reasons))}")


class JobDeletedError(TrainerError):
    """A job that was waited for has been deleted."""


def api_error(problem: "Problem") -> ApiError:
    """The error for a problem document."""
    kinds: dict[int, type[ApiError]] = {
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        429: RateLimitError,
    }
    default = ServiceError if problem.status >= 500 else InvalidRequestError
    return kinds.get(problem.status, default)(problem)


def _text(problem: "Problem") -> str:
    if not problem.errors:
        return problem.detail or problem.title
    return "\n".join(_line(finding) for finding in problem.errors)


def _line(finding: "Finding") -> str:
    names = [part.replace("~1", "/").replace("~0", "~") for part in finding.pointer.split("/")[1:]]
    place = ".".join(names)
    is_named = not place or place in finding.detail
    return f"{finding.detail if is_named else f'{place}: {finding.detail}'} ({finding.code})"
