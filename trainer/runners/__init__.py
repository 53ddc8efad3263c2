"""The runners by framework: each one file with a `run` function, imported when asked for."""

from __future__ import annotations

import importlib
import importlib.util

from run import Runner, TrainingError

RUNNERS = {"meta": "runners.meta"}

# Frameworks whose runner this image does not have, and the packages that theirs would need.
ABSENT = {
    "hf": ["transformers"],
    "nemo": ["nemo_automodel", "megatron.bridge", "nemo"],
}


def find(framework: str) -> Runner:
    """The runner of a framework, or the one line that says why there is none."""
    if framework in ABSENT:
        packages = " or ".join(ABSENT[framework])
        raise TrainingError(
            f"framework {framework}: this image lacks {packages} and the runner for it; "
            f"set `image` to one that has them"
        )
    if framework not in RUNNERS:
        known = ", ".join(sorted([*RUNNERS, *ABSENT]))
        raise TrainingError(f"framework {framework}: unknown to train.py; known: {known}")
    runner: Runner = importlib.import_module(RUNNERS[framework]).run
    return runner
