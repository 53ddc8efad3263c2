"""Runs every operation of a generated Python client against a service.

    every_operation.py PACKAGE ADDRESS REQUEST

PACKAGE is the folder that openapi-python-client has generated, REQUEST a file with the JSON of a
request. Each response must have the declared status and type.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = "unified_trainer_api_client"


def operations(package: ModuleType) -> dict[str, ModuleType]:
    """The modules of all operations by name."""
    found = pkgutil.walk_packages(package.__path__, f"{NAME}.api.")
    modules = [importlib.import_module(module.name) for module in found if not module.ispkg]
    return {module.__name__.rsplit(".", 1)[1]: module for module in modules}


def main(folder: str, address: str, request: str) -> None:
    sys.path.insert(0, folder)
    package = importlib.import_module(NAME)
    models = importlib.import_module(f"{NAME}.models")
    api = operations(importlib.import_module(f"{NAME}.api"))
    # The service has no token, so it takes any.
    client = package.AuthenticatedClient(
        base_url=address, token="any", raise_on_unexpected_status=True
    )
    left = set(api)

    def call(name: str, expected: int, *path: str, **arguments: Any) -> Any:
        answer = api[name].sync_detailed(*path, client=client, **arguments)
        assert answer.status_code == expected, f"{name}: {answer.status_code} {answer.content!r}"
        left.discard(name)
        print(f"{name}: {expected} {type(answer.parsed).__name__}")
        return answer.parsed

    body = models.TrainingJobRequest.from_dict(json.loads(Path(request).read_text()))
    preview = call("preview_job", 200, body=body)
    assert preview.manifest, preview
    job = call("create_job", 201, body=body, idempotency_key="one").name
    assert call("create_job", 201, body=body, idempotency_key="one").name == job
    refused = call("create_job", 400, body=body)
    assert "already exists" in refused.detail, refused

    assert call("get_job", 200, job).name == job
    details = call("get_job", 200, job, view=models.GetJobView.FULL)
    assert isinstance(details, models.JobDetails) and details.replicas, details
    page = call("list_jobs", 200, status=models.JobState(str(details.status)), progress=True)
    assert [listed.name for listed in page.jobs] == [job], page
    call("suspend_job", 200, job)
    call("resume_job", 200, job)
    call("follow_job", 200, job)
    assert "event: status" in call_text(client, f"/train/{job}/events")
    assert call("get_job_logs", 200, job, tail=10) is not None
    metrics = call("get_job_metrics", 200, job, points=10)
    assert metrics.points[-1].step == 3, metrics
    assert "event: metrics" in call_text(client, f"/train/{job}/metrics?follow=true")
    assert call("get_job_manifest", 200, job)["kind"] == "PyTorchJob"
    again = call("get_job_request", 200, job)
    assert again.run_id == body.run_id and again.extra_args == body.extra_args, again
    follow_until_synced(client)
    left.discard("follow_jobs")
    call("delete_job", 204, job)
    call("get_job", 404, job)

    assert call("list_frameworks", 200).frameworks
    assert call("get_framework", 200, "meta").name == "meta"
    call("get_framework", 404, "jax")
    call("reload", 200)
    call("roll_back_framework", 409, "meta")

    # The generated code expects JSON, which is the answer with this parameter.
    assert call("get_readiness", 200, verbose="true")["status"] == "ready"
    for name in ("get_health", "get_liveness", "get_openapi", "get_docs"):
        call(name, 200)
    assert "trainer_jobs" in call("get_metrics", 200)
    call("who_am_i", 200)
    assert not left, f"not called: {sorted(left)}"


def call_text(client: Any, path: str) -> str:
    return client.get_httpx_client().get(path, headers={"accept": "text/event-stream"}).text


def follow_until_synced(client: Any) -> None:
    """Reads the stream of all jobs, which never ends, up to the end of its list."""
    with client.get_httpx_client().stream("GET", "/events") as response:
        assert any(line == "event: synced" for line in response.iter_lines())


if __name__ == "__main__":
    main(*sys.argv[1:])
