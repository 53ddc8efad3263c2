"""Reads responses: documents, problems, events and the request behind a job."""

import json
import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
from httpx_sse import ServerSentEvent
from pydantic import ValidationError

from .errors import TrainerError, api_error
from .models import JobChange, JobChanges, JobDetails, JobRequest, Metrics, Problem

PROFILE = "trainer.deepfinery/profile"
#: Labels and annotations that the service and its operators set.
_OWN_KEYS = re.compile(
    r"trainer\.deepfinery/|app\.kubernetes\.io/managed-by$|sidecar\.istio\.io/|kueue\.x-k8s\.io/"
)

#: Variables that a request cannot set.
_RESERVED = re.compile(r"TRAINER_(?!LOG_LEVEL$)|TRAINING_|MASTER_|PET_|RANK$|WORLD_SIZE$")


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


def request_of(manifest: Mapping[str, Any]) -> JobRequest:
    """The request that a job was made from, except for its environment variables."""
    metadata, container = manifest["metadata"], _container(manifest)
    values = {of["name"]: _unescaped(of.get("value", "")) for of in container.get("env", [])}
    limits = container.get("resources", {}).get("limits", {})
    command = [*container.get("command", []), *container.get("args", [])]
    memory = re.fullmatch(r"(\d+)Gi", str(limits.get("memory", "")))
    annotations = metadata.get("annotations", {})
    profile = {PROFILE: annotations[PROFILE]} if PROFILE in annotations else {}
    request = {
        "framework": values.get("FRAMEWORK"),
        "model_id": values.get("MODEL_ID"),
        "run_id": values.get("RUN_ID"),
        "checkpoint_base_uri": values.get("CHECKPOINT_BASE_URI"),
        "dataset_uri": values.get("DATASET_URI"),
        "namespace": metadata.get("namespace"),
        "num_nodes": int(values.get("NUM_NODES") or 1),
        "gpus_per_node": int(values.get("GPUS_PER_NODE") or 0),
        "cpus_per_node": int(limits["cpu"]) if str(limits.get("cpu", "")).isdecimal() else None,
        "memory_per_node_gb": int(memory[1]) if memory else None,
        "image": container.get("image"),
        "config_path": _after("--config", [_unescaped(part) for part in command]),
        "resume_from_checkpoint": values.get("RESUME_FROM_CHECKPOINT") == "true" or None,
        "extra_args": json.loads(values.get("TRAINING_EXTRA_ARGS_JSON") or "{}"),
        "labels": _of_request(metadata.get("labels", {})),
        "annotations": _of_request(annotations) | profile,
    }
    given = {name: value for name, value in request.items() if value not in (None, {})}
    return cast(JobRequest, given)


def cloned(
    manifest: Mapping[str, Any], plain: Mapping[str, Any], changes: JobChanges
) -> JobRequest:
    """The request of a job, with changes. `plain` is the manifest of it without variables."""
    request = request_of(manifest)
    request["run_id"] = next_run_id(request["run_id"])
    env = _env(manifest, plain)
    merged = {
        "env": {**env, **changes.get("env", {})},
        "extra_args": {**request.get("extra_args", {}), **changes.get("extra_args", {})},
    }
    return cast(JobRequest, {**request, **changes, **merged})


def _env(manifest: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that a manifest has in addition to that of the same request without any."""
    known = {of["name"]: of for of in _container(plain).get("env", [])}
    variables = _container(manifest).get("env", [])
    added = [
        of
        for of in variables
        if of["name"] not in known or (of != known[of["name"]] and not _RESERVED.match(of["name"]))
    ]
    return {of["name"]: _variable(of) for of in added}


def next_run_id(run_id: str) -> str:
    """A free name after that of a run: `run-1` becomes `run-2`, and `demo` becomes `demo-2`."""
    numbered = re.fullmatch(r"(.*?)(\d{1,6})", run_id)
    if numbered is None:
        return f"{run_id}-2"
    stem, number = numbered[1], numbered[2]
    return f"{stem}{int(number) + 1:0{len(number)}}"


def _container(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The trainer's container."""
    spec = manifest["spec"]
    if manifest.get("kind") == "TrainJob":
        trainer: Mapping[str, Any] = spec["trainer"]
        return {**trainer, "resources": trainer.get("resourcesPerNode", {})}
    container: Mapping[str, Any] = spec["pytorchReplicaSpecs"]["Master"]["template"]["spec"][
        "containers"
    ][0]
    return container


def _variable(variable: Mapping[str, Any]) -> Any:
    secret = variable.get("valueFrom", {}).get("secretKeyRef")
    if secret:
        return {"secret": secret["name"], "key": secret["key"]}
    return _unescaped(variable.get("value", ""))


def _of_request(keys: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in keys.items() if not _OWN_KEYS.match(name)}


def _unescaped(text: str) -> str:
    """Kubernetes expands `$(NAME)`, so a dollar sign is doubled."""
    return text.replace("$$", "$")


def _after(flag: str, parts: list[str]) -> str | None:
    return parts[parts.index(flag) + 1] if flag in parts[:-1] else None


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
