"""The address and the token of the service, found as the command line finds them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from .errors import ConfigurationError

#: The address of `make run`.
DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Settings:
    """Which service to use. The token is not part of the representation."""

    url: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def find(
        cls,
        url: str | None = None,
        token: str | None = None,
        server: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> "Settings":
        """Find the service as the command line does.

        Arguments take precedence over `TRAINER_URL` and `TRAINER_API_TOKEN`, and these over the
        server of the configuration file. A `server` that is named as an argument uses its own token
        before that of the environment, which may belong to another service.

        Raises:
            ConfigurationError: The file is invalid, or it has no server of this name.
        """
        url = url or (None if server else environment.get("TRAINER_URL"))
        named = None if url else _named(server or environment.get("TRAINER_SERVER"), environment)
        of_file = named.read_token() if named else None
        of_environment = environment.get("TRAINER_API_TOKEN")
        found = (of_file or of_environment) if server else (of_environment or of_file)
        address = url or (named.url if named else DEFAULT_URL)
        return cls(_checked(address), token or found or None)


@dataclass(frozen=True)
class _Server:
    url: str
    token_file: Path | None

    def read_token(self) -> str | None:
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(f"cannot read the token of the server: {error}") from error


def _named(name: str | None, environment: Mapping[str, str]) -> _Server | None:
    """The server of a name, or the current one, from the configuration file."""
    file = _file(environment)
    if not file.exists() and not environment.get("TRAINER_CONFIG"):
        if name:
            raise ConfigurationError(f"unknown server {name!r}: {file} does not exist")
        return None
    configuration = _read(file)
    name = name or configuration.get("current")
    if not name:
        return None
    servers = configuration.get("servers") or {}
    entry = servers.get(name)
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        known = ", ".join(servers) or "none"
        raise ConfigurationError(f"{file} has no server {name!r} with a url; known: {known}")
    token_file = entry.get("token_file")
    return _Server(entry["url"], Path(token_file) if token_file else None)


def _file(environment: Mapping[str, str]) -> Path:
    """The path according to the XDG base directory specification."""
    if named := environment.get("TRAINER_CONFIG"):
        return Path(named)
    folder = Path(environment.get("XDG_CONFIG_HOME") or "")
    home = folder if folder.is_absolute() else Path(environment.get("HOME", "~")) / ".config"
    return home.expanduser() / "trainer/config.yaml"


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("servers") or {}, dict):
        raise ConfigurationError(
            f"{file}: expected `current` and `servers`, a name with a url each"
        )
    return content


def _checked(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(
            f"the address of the service is {url!r}; expected one such as https://trainer.example.org"
        )
    return url.strip().rstrip("/")
