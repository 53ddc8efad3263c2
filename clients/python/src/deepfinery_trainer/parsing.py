"""Reads responses: documents, problems, events and the request behind a job."""

import json
import re
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
from httpx_sse import ServerSentEvent
from pydantic import ValidationError

from .errors import TrainerError, api_error
from .models import JobChange, JobChanges, JobDetails, JobRequest, Metrics, Problem

#: Fields that are about the run of the original.
_OF_ONE_RUN = {"job_name", "resume_from_checkpoint", "overwrite"}


def document(response: httpx.Response) -> Any:
    """The JSON document of a successful response.

    Raises:
        ApiError: The service refused the request.
        TrainerError: The response does not come from the service.
    """
    if response.status_code == httpx.codes.NO_CONTENT:
        return None
    if response.is_success:
        return _json(response)
    raise api_error(_problem(response))


def job(response: httpx.Response) -> JobDetails:
    """The job of a response, with the namespace that a header names."""
    members = document(response)
    location = response.headers.get("Location") or response.headers.get("Content-Location") or ""
    named = parse_qs(urlsplit(location).query).get("namespace", [""])[0]
    return JobDetails.model_validate({"namespace": named} | members)


def text(response: httpx.Response) -> str:
    """The text of a successful response."""
    if response.is_success:
        return response.text
    raise api_error(_problem(response))


def change(event: ServerSentEvent) -> JobChange:
    """The change that an event reports."""
    return JobChange.model_validate({**json.loads(event.data or "{}"), "kind": event.event})


def metrics(event: ServerSentEvent) -> Metrics:
    """The new points that an event reports."""
    return Metrics.model_validate_json(event.data)


def cloned(request: JobRequest, changes: JobChanges) -> JobRequest:
    """The request of a job for another run, with changes."""
    given: dict[str, Any] = {k: v for k, v in request.items() if k not in _OF_ONE_RUN}
    given["run_id"] = next_run_id(given["run_id"])
    merged = {
        field: {**given.get(field, {}), **cast(dict[str, Any], changes.get(field, {}))}
        for field in ("env", "extra_args")
    }
    return cast(JobRequest, {**given, **changes, **merged})


def next_run_id(run_id: str) -> str:
    """A free name after that of a run: `run-1` becomes `run-2`, and `demo` becomes `demo-2`."""
    numbered = re.fullmatch(r"(.*?)(\d{1,6})", run_id)
    if numbered is None:
        return f"{run_id}-2"
    stem, number = numbered[1], numbered[2]
    return f"{stem}{int(number) + 1:0{len(number)}}"


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        place = f"{response.request.method} {response.request.url}"
        detail = f"{place}: status {response.status_code} with a body that is not of this service"
        return Problem(type="", title="", status=response.status_code, detail=detail)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        url = response.request.url
        raise TrainerError(f"{url} returned no JSON; is it the address of the service?") from error
