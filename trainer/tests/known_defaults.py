"""Generates defaults.json: the defaults of the plugins that do not depend on other arguments.

Usage: python tests/known_defaults.py PATH_OF_TRAINER > defaults.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

FRAMEWORKS = ("hf", "meta", "nemo")


def defaults(trainer: str) -> str:
    """The content of the file."""
    found = {framework: _of(trainer, framework) for framework in FRAMEWORKS}
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def _of(trainer: str, framework: str) -> dict[str, Any]:
    command = [trainer, "explain", framework, "--output", "json"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    schema: dict[str, dict[str, Any]] = json.loads(shown)["properties"]
    # The member x-default describes a default that depends on other arguments.
    return {
        name: argument["default"]
        for name, argument in schema.items()
        if "default" in argument and "x-default" not in argument
    }


if __name__ == "__main__":
    sys.stdout.write(defaults(sys.argv[1]))
