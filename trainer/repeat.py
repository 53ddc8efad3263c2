"""Gives torchrun the exit code of a permanent error, and ends a later start in the pod at once.

torchrun itself exits with 1 whatever its processes exit with. In the image each interpreter imports
this file (`repeat.pth`), also that of torchrun.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping, Sequence

# EX_CONFIG of sysexits.h: a restart does not help, because the job itself is wrong.
EXIT_CODE_PERMANENT = 78
FILE_VARIABLE = "TRAINER_FAILURE_FILE"


def already_failed(environment: Mapping[str, str]) -> bool:
    """Prints the permanent error of an earlier start in this pod, if there was one."""
    if not (name := environment.get(FILE_VARIABLE)) or not os.path.exists(name):
        return False
    # Most interpreters need neither this module nor the file.
    import json

    try:
        with open(name, "rb") as file:
            failure = json.load(file)
        message = failure["message"] if failure["permanent"] is True else None
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if message:
        print(f"train.py: error: {message}", file=sys.stderr, flush=True)
    return bool(message)


def end_torchrun(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """If this process is torchrun, ends it after a permanent error: now, or when torchrun ends."""
    if not any(os.path.basename(word) == "torchrun" for word in words[:2]):
        return
    _end_after_error(environment)
    atexit.register(_end_after_error, environment)


def _end_after_error(environment: Mapping[str, str]) -> None:
    if not already_failed(environment):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_CODE_PERMANENT)
