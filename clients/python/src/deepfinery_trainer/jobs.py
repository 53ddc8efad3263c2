"""Jobs: creation, reads, changes and streams."""

import time
import uuid
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import TypeAdapter
from typing_extensions import Unpack

from . import calls, parsing
from .bar import ProgressBar
from .checkpoints import Checkpoints
from .errors import JobDeletedError, JobFailedError, NotFoundError
from .models import (
    JobChange,
    JobChanges,
    JobDetails,
    JobRequest,
    ListFilters,
    LogOptions,
    Metrics,
    Preview,
)
from .transport import Transport
from .view import JobView

#: Seconds between two looks at a job that is waited for.
_POLL = 1.0


class Job(JobView):
    """A job of the service. Its members are those of the last read; `refresh` reads them again."""

    def __init__(self, jobs: "Jobs", details: JobDetails) -> None:
        super().__init__(details)
        self._jobs = jobs

    def refresh(self) -> "Job":
        """Read the job again."""
        job = self._jobs.get(self.name, self.namespace)
        self.details = job.details
        return self

    def wait(
        self, *, timeout: float | None = None, progress: bool | None = None, check: bool = True
    ) -> "Job":
        """Wait until the job has ended; see `Jobs.wait`."""
        ended = self._jobs.wait(
            self.name, self.namespace, timeout=timeout, progress=progress, check=check
        )
        self.details = ended.details
        return self

    def logs(self, **options: Unpack[LogOptions]) -> str:
        """The log; see `Jobs.logs`."""
        return self._jobs.logs(self.name, self.namespace, **options)

    def follow_logs(self, **options: Unpack[LogOptions]) -> Iterator[str]:
        """The lines of the log until the job ends; see `Jobs.follow_logs`."""
        return self._jobs.follow_logs(self.name, self.namespace, **options)

    def events(self) -> Iterator[JobChange]:
        """The changes of the status until the job ends; see `Jobs.events`."""
        return self._jobs.events(self.name, self.namespace)

    def metrics(self, *, points: int | None = None) -> Metrics:
        """The curves of the run; see `Jobs.metrics`."""
        return self._jobs.metrics(self.name, self.namespace, points=points)

    def follow_metrics(self) -> Iterator[Metrics]:
        """New points of the curves until the job ends."""
        return self._jobs.follow_metrics(self.name, self.namespace)

    def manifest(self) -> dict[str, Any]:
        """The object as stored in the cluster."""
        return self._jobs.manifest(self.name, self.namespace)

    def request(self) -> JobRequest:
        """The request that the job was made from, with defaults filled in."""
        return self._jobs.request(self.name, self.namespace)

    def suspend(self) -> "Job":
        """Stop the replicas and keep the job."""
        self._jobs.suspend(self.name, self.namespace)
        return self.refresh()

    def resume(self) -> "Job":
        """Resume a suspended job."""
        self._jobs.resume(self.name, self.namespace)
        return self.refresh()

    def delete(self) -> None:
        """Delete the job and its pods. Its checkpoints remain."""
        self._jobs.delete(self.name, self.namespace)

    def clone(self, **changes: Unpack[JobChanges]) -> "Job":
        """Submit the request of this job again, with changes; see `Jobs.clone`."""
        return self._jobs.clone(self.name, self.namespace, **changes)

    def checkpoints(self, **storage_options: Any) -> Checkpoints:
        """The checkpoints of the run. The options are those of the fsspec file system."""
        job = self.refresh()
        return Checkpoints(job.details, storage_options)


class Jobs:
    """The jobs of the service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, *, idempotency_key: str | None = None, **request: Unpack[JobRequest]) -> Job:
        """Submit a job.

        The submission is repeated if its response is lost; the key ensures that there is one job.

        Raises:
            InvalidRequestError: An argument is wrong, or the name or the prefix is in use.
        """
        call = calls.create(request, idempotency_key or str(uuid.uuid4()))
        response = self._transport.send(call)
        return Job(self, parsing.job(response))

    def preview(
        self, *, dry_run: Literal["server"] | None = None, **request: Unpack[JobRequest]
    ) -> Preview:
        """The job that a submission would create. `dry_run="server"` also asks the cluster."""
        response = self._transport.send(calls.preview(request, dry_run))
        return Preview.model_validate(parsing.document(response))

    def get(self, name: str, namespace: str | None = None) -> Job:
        """A job with all its details.

        Raises:
            NotFoundError: The job does not exist.
        """
        response = self._transport.send(calls.job(name, namespace))
        return Job(self, parsing.job(response))

    def list(self, **filters: Unpack[ListFilters]) -> Iterator[Job]:
        """All jobs that match, newest first. Pages are read as they are needed."""
        query: dict[str, Any] = dict(filters)
        while True:
            response = self._transport.send(calls.jobs(query))
            page = parsing.document(response)
            for listed in TypeAdapter(list[JobDetails]).validate_python(page["jobs"]):
                yield Job(self, listed)
            if not (token := page.get("next_page_token")):
                return
            query["page_token"] = token

    def wait(
        self,
        name: str,
        namespace: str | None = None,
        *,
        timeout: float | None = None,
        progress: bool | None = None,
        check: bool = True,
    ) -> Job:
        """Wait until a job has ended.

        Args:
            timeout: Maximum number of seconds to wait.
            progress: Whether to show a bar; by default on terminals and in notebooks.
            check: Whether a failed job raises an error.

        Raises:
            JobFailedError: The job has failed.
            JobDeletedError: The job was deleted meanwhile.
            TimeoutError: It has not ended in time.
        """
        started = time.monotonic()
        job = self.get(name, namespace)
        with ProgressBar(name, progress) as bar:
            while not job.has_ended:
                bar.show(job.details)
                if timeout is not None and time.monotonic() - started > timeout:
                    raise TimeoutError(f"{name} is still {job.status} after {timeout:g} s")
                time.sleep(_POLL)
                job = self._again(job)
            bar.show(job.details)
        if check and job.status == "failed":
            raise JobFailedError(job.details)
        return job

    def logs(self, name: str, namespace: str | None = None, **options: Unpack[LogOptions]) -> str:
        """The log of the first replica, or of those in `replica`."""
        call = calls.logs(name, {**options, "namespace": namespace})
        response = self._transport.send(call)
        return parsing.text(response)

    def follow_logs(
        self, name: str, namespace: str | None = None, **options: Unpack[LogOptions]
    ) -> Iterator[str]:
        """The lines of the log as they come, until the job ends.

        Raises:
            StreamInterruptedError: The log was cut off before the job ended.
        """
        call = calls.logs(name, {**options, "namespace": namespace, "follow": True})
        return self._transport.lines(call)

    def events(self, name: str, namespace: str | None = None) -> Iterator[JobChange]:
        """The status now and after each change, until the job ends or is deleted."""
        for event in self._transport.events(calls.events(name, namespace)):
            change = parsing.change(event)
            yield change
            if change.is_last:
                return

    def all_events(self) -> Iterator[JobChange]:
        """The changes of all jobs, without an end. `reset` precedes a complete list."""
        for event in self._transport.events(calls.all_events()):
            yield parsing.change(event)

    def metrics(
        self, name: str, namespace: str | None = None, *, points: int | None = None
    ) -> Metrics:
        """The curves of a run, downsampled to at most `points`; by default 500."""
        response = self._transport.send(calls.metrics(name, namespace, points))
        return Metrics.model_validate(parsing.document(response))

    def follow_metrics(self, name: str, namespace: str | None = None) -> Iterator[Metrics]:
        """New points of the curves as they come, until the job ends.

        After a broken connection they start with the first point again.
        """
        for event in self._transport.events(calls.follow_metrics(name, namespace)):
            if event.event == "end":
                return
            yield parsing.metrics(event)

    def manifest(self, name: str, namespace: str | None = None) -> dict[str, Any]:
        """The PyTorchJob or TrainJob as stored in the cluster."""
        response = self._transport.send(calls.manifest(name, namespace))
        manifest: dict[str, Any] = parsing.document(response)
        return manifest

    def request(self, name: str, namespace: str | None = None) -> JobRequest:
        """The request that a job was made from, with defaults filled in."""
        response = self._transport.send(calls.request(name, namespace))
        request: JobRequest = parsing.document(response)
        return request

    def suspend(self, name: str, namespace: str | None = None) -> Job:
        """Stop the replicas of a job and keep the job."""
        response = self._transport.send(calls.suspend(name, namespace))
        return Job(self, parsing.job(response))

    def resume(self, name: str, namespace: str | None = None) -> Job:
        """Resume a suspended job."""
        response = self._transport.send(calls.resume(name, namespace))
        return Job(self, parsing.job(response))

    def delete(self, name: str, namespace: str | None = None) -> None:
        """Delete a job and its pods. Its checkpoints remain."""
        response = self._transport.send(calls.delete(name, namespace))
        parsing.document(response)

    def clone(self, name: str, namespace: str | None = None, **changes: Unpack[JobChanges]) -> Job:
        """Submit the request of a job again, with changes.

        The run id becomes the next one, such as `run-2` after `run-1`, unless the changes name it.
        `extra_args` are merged with those of the job.
        """
        request = self.request(name, namespace)
        return self.create(**parsing.cloned(request, changes))

    def _again(self, job: Job) -> Job:
        try:
            return self.get(job.name, job.namespace)
        except NotFoundError as error:
            raise JobDeletedError(f"{job.name} was deleted while it was waited for") from error
