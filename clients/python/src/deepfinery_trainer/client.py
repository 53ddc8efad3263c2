"""The entry point: a client of the service."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from . import calls, parsing
from .jobs import Jobs
from .models import Framework, WhoAmI
from .settings import Settings
from .transport import Transport

_FRAMEWORKS = TypeAdapter(list[Framework])


class Frameworks:
    """The framework plugins of the service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Sequence[Framework]:
        """The loaded frameworks."""
        response = self._transport.send(calls.frameworks())
        return _frameworks(parsing.document(response))

    def get(self, name: str) -> Framework:
        """A framework with the JSON Schema of its arguments."""
        response = self._transport.send(calls.framework(name))
        return Framework.model_validate(parsing.document(response))

    def reload(self) -> Sequence[Framework]:
        """Check all plugins again."""
        response = self._transport.send(calls.reload_frameworks())
        return _frameworks(parsing.document(response))

    def roll_back(self, name: str) -> Sequence[Framework]:
        """Restore the previous version of a framework."""
        response = self._transport.send(calls.roll_back(name))
        return _frameworks(parsing.document(response))


class Trainer:
    """A client of the service.

    Args:
        url: The address; see `Settings.find` for the default.
        token: The token, if the service requires one.
        server: A name in the configuration file of the command line.
        timeout: Seconds to wait for one response.
        retry_seconds: How long a call is repeated while the service does not respond.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        server: str | None = None,
        timeout: float = 60.0,
        retry_seconds: float = 60.0,
    ) -> None:
        settings = Settings.find(url, token, server)
        self._transport = Transport(settings, timeout, retry_seconds)
        self.url = settings.url
        self.jobs = Jobs(self._transport)
        self.frameworks = Frameworks(self._transport)

    def whoami(self) -> WhoAmI:
        """Who the caller is for the service, and its roles."""
        response = self._transport.send(calls.whoami())
        return WhoAmI.model_validate(parsing.document(response))

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _frameworks(answer: Any) -> Sequence[Framework]:
    return _FRAMEWORKS.validate_python(answer["frameworks"])
