"""The runners by framework: each one file with a `run` function, imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from run import TrainingError
from session import Session

# What a framework is to this program. A new one is a file here and a line in this table.
Runner = Callable[[Session], None]
RUNNERS = {"hf": "runners.hf", "meta": "runners.meta", "nemo": "runners.nemo"}


def find(framework: str) -> Runner:
    """The runner of a framework, or the one line that says why there is none."""
    if framework not in RUNNERS:
        known = ", ".join(sorted(RUNNERS))
        raise TrainingError(f"framework {framework}: unknown to train.py; known: {known}")
    try:
        runner: Runner = importlib.import_module(RUNNERS[framework]).run
    except ModuleNotFoundError as error:
        raise lacks(f"framework {framework}", error.name or "a package") from error
    return runner


def lacks(what: str, package: str) -> TrainingError:
    """What is said where a package is not there."""
    return TrainingError(
        f"{what}: this image lacks the package {package}; set `image` to one that has it"
    )
