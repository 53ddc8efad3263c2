"""The operations of the service as values: what to send, and whether it may be sent again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

Query = Mapping[str, Any]

#: Media types of the responses that are not a JSON document.
EVENT_STREAM = "text/event-stream"
TEXT = "text/plain"


@dataclass(frozen=True)
class Call:
    """A request that has not been sent."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def params(self) -> dict[str, str]:
        """The query parameters that have a value, as the service writes them."""
        given = {name: value for name, value in self.query.items() if value is not None}
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in given.items()
        }

    def after(self, event: str | None) -> "Call":
        """The call that resumes a stream after an event."""
        if not event:
            return self
        return replace(self, headers={**self.headers, "Last-Event-ID": event})


def create(request: Mapping[str, Any], key: str) -> Call:
    """Submit a job. The key makes it safe to send the call again."""
    return Call("POST", "train", body=request, headers={"Idempotency-Key": key})


def preview(request: Mapping[str, Any], dry_run: str | None) -> Call:
    return Call("POST", "train/preview", {"dry_run": dry_run}, body=request)


def jobs(query: Query) -> Call:
    return Call("GET", "train", query)


def job(name: str, namespace: str | None) -> Call:
    return Call("GET", _job(name), {"namespace": namespace, "view": "full"})


def manifest(name: str, namespace: str | None) -> Call:
    return Call("GET", f"{_job(name)}/manifest", {"namespace": namespace})


def request(name: str, namespace: str | None) -> Call:
    return Call("GET", f"{_job(name)}/request", {"namespace": namespace})


def delete(name: str, namespace: str | None) -> Call:
    return Call("DELETE", _job(name), {"namespace": namespace})


def suspend(name: str, namespace: str | None) -> Call:
    return Call("POST", f"{_job(name)}/suspend", {"namespace": namespace})


def resume(name: str, namespace: str | None) -> Call:
    return Call("POST", f"{_job(name)}/resume", {"namespace": namespace})


def logs(name: str, query: Query) -> Call:
    return Call("GET", f"{_job(name)}/logs", query, headers={"Accept": TEXT})


def events(name: str, namespace: str | None) -> Call:
    headers = {"Accept": EVENT_STREAM}
    return Call("GET", f"{_job(name)}/events", {"namespace": namespace}, headers=headers)


def all_events() -> Call:
    return Call("GET", "events", headers={"Accept": EVENT_STREAM})


def metrics(name: str, namespace: str | None, points: int | None) -> Call:
    return Call("GET", f"{_job(name)}/metrics", {"namespace": namespace, "points": points})


def follow_metrics(name: str, namespace: str | None) -> Call:
    headers = {"Accept": EVENT_STREAM}
    query = {"namespace": namespace, "follow": True}
    return Call("GET", f"{_job(name)}/metrics", query, headers=headers)


def frameworks() -> Call:
    return Call("GET", "frameworks")


def framework(name: str) -> Call:
    return Call("GET", f"frameworks/{_segment(name)}")


def reload_frameworks() -> Call:
    return Call("POST", "frameworks/reload")


def roll_back(name: str) -> Call:
    return Call("POST", f"frameworks/{_segment(name)}/rollback")


def whoami() -> Call:
    return Call("GET", "whoami")


def _job(name: str) -> str:
    return f"train/{_segment(name)}"


def _segment(name: str) -> str:
    if not name:
        raise ValueError("the name is empty")
    return quote(name, safe="")
