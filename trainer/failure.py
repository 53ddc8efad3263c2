"""Reports the failure of a run in one line, and whether a restart may help."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from repeat import EXIT_CODE_PERMANENT, FILE_VARIABLE
from run import PassingError, TrainingError

# Transient errors of libraries, by name, because an image may not contain the library.
PASSING_NAMES = {
    "OutOfMemoryError",
    "HTTPError",
    "RequestException",
    "TransportError",
    "TimeoutException",
}
# The maximum length of an error in torchrun's report.
MAX_REPORT = 400
# HTTP status codes of transient errors.
PASSING_ANSWERS = {408, 425, 429, *range(500, 600)}


def report(error: TrainingError, environment: Mapping[str, str]) -> int:
    """Prints the error as the last line, records permanent ones, and returns the exit code."""
    rank = environment.get("RANK", "0")
    message = str(error) if rank == "0" else f"[rank {rank}] {error}"
    if is_permanent(error):
        _record(message, environment)
    report_to_torchrun(f"train.py: error: {message}", environment)
    print(f"train.py: error: {message}", file=sys.stderr, flush=True)
    return EXIT_CODE_PERMANENT if is_permanent(error) else 1


def report_to_torchrun(message: str, environment: Mapping[str, str]) -> None:
    """Has torchrun show the error and its time in the report at the end of the log.

    Kubernetes keeps the last 2 KB of a pod's log. The report of many processes fills them.
    """
    if not (name := environment.get("TORCHELASTIC_ERROR_FILE")):
        return
    line = " ".join(message.split())[:MAX_REPORT]
    more = {"py_callstack": line, "timestamp": str(int(time.time()))}
    with suppress(OSError):
        Path(name).write_text(json.dumps({"message": {"message": line, "extraInfo": more}}))


def is_permanent(error: TrainingError) -> bool:
    """Whether the error would occur again after a restart."""
    causes = list(_causes(error))
    # huggingface_hub is configured to use no network.
    offline = any(type(cause).__name__ == "OfflineModeIsEnabled" for cause in causes)
    return offline or not any(_passes(cause) for cause in causes)


def _passes(error: BaseException) -> bool:
    """Whether an error is transient: network, server, or memory used by other processes."""
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
    """Writes the file that informs the cluster and the next start in this pod."""
    if not (name := environment.get(FILE_VARIABLE)):
        return
    unfinished = Path(f"{name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps({"permanent": True, "message": message}))
        unfinished.replace(name)
    except OSError as error:
        print(f"train.py: cannot write {name}: {error}", file=sys.stderr)
