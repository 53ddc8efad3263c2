"""How a run fails: in one line, and with whether another start of the job may help."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from run import PassingError, TrainingError

# EX_CONFIG of sysexits.h: the job has to change, so starting it again does not help.
EXIT_CODE_PERMANENT = 78
# Errors of libraries that may pass, by name, since not every image has each library.
PASSING_NAMES = {
    "OutOfMemoryError",
    "HTTPError",
    "RequestException",
    "TransportError",
    "TimeoutException",
}
# Answers of a server that may be others the next time.
PASSING_ANSWERS = {408, 425, 429, *range(500, 600)}


def tell(error: TrainingError, environment: Mapping[str, str]) -> int:
    """Prints the error as the last line, records a permanent one, and gives the exit code."""
    rank = environment.get("RANK", "0")
    message = str(error) if rank == "0" else f"[rank {rank}] {error}"
    if is_permanent(error):
        _record(message, environment)
    print(f"train.py: error: {message}", file=sys.stderr, flush=True)
    return EXIT_CODE_PERMANENT if is_permanent(error) else 1


def told_before(environment: Mapping[str, str]) -> bool:
    """Repeats the permanent failure of an earlier start in this pod, if there was one."""
    try:
        failure = json.loads(Path(environment["TRAINER_FAILURE_FILE"]).read_bytes())
        message = failure["message"] if failure["permanent"] is True else None
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if message:
        print(f"train.py: error: {message}", file=sys.stderr, flush=True)
    return bool(message)


def is_permanent(error: TrainingError) -> bool:
    """Whether another start would fail alike."""
    causes = list(_causes(error))
    # huggingface_hub was told to use no network.
    offline = any(type(cause).__name__ == "OfflineModeIsEnabled" for cause in causes)
    return offline or not any(_passes(cause) for cause in causes)


def _passes(error: BaseException) -> bool:
    """Whether an error may pass: of the network, of a server, of memory that others took."""
    if isinstance(error, PassingError | ConnectionError | TimeoutError | MemoryError):
        return True
    answer = getattr(getattr(error, "response", None), "status_code", None)
    if answer is not None:
        return answer in PASSING_ANSWERS
    return any(kind.__name__ in PASSING_NAMES for kind in type(error).__mro__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _record(message: str, environment: Mapping[str, str]) -> None:
    """Writes the file from which the cluster, and the next start in this pod, learn of it."""
    if not (name := environment.get("TRAINER_FAILURE_FILE")):
        return
    unfinished = Path(f"{name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps({"permanent": True, "message": message}))
        unfinished.replace(name)
    except OSError as error:
        print(f"train.py: cannot write {name}: {error}", file=sys.stderr)
