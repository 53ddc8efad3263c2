"""Logging: log lines to standard error, progress to standard output, and both to a file."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from run import Run

LOG = logging.getLogger("trainer")
PROGRESS = logging.getLogger("trainer.progress")
# Marks records that the console already shows in another form.
ALREADY_REPORTED = {"reported": True}


def start(run: Run) -> Path:
    """Opens the log of this process, and returns the path of the file."""
    # Jobs of one run share the scratch folder, but each uploads only its own logs.
    folder = run.scratch / "logs" / (run.job_uid or "no-job")
    folder.mkdir(parents=True, exist_ok=True)
    # The time distinguishes attempts, even if they start within the same second.
    started = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    path = folder / f"{started}-rank-{run.rank}.log"
    form = logging.Formatter(f"%(asctime)s rank {run.rank} %(levelname)s %(message)s")
    file = logging.FileHandler(path, mode="w")
    file.setFormatter(form)
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(form)
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(logging.Formatter("%(message)s"))
    console.addFilter(
        lambda record: record.name != PROGRESS.name and not hasattr(record, "reported")
    )
    PROGRESS.handlers = [lines]
    PROGRESS.setLevel(logging.INFO)
    level = run.environment.get("TRAINER_LOG_LEVEL", "INFO")
    logging.basicConfig(level=level, handlers=[console, file], force=True)
    # It logs a line for each request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return path


class Progress:
    """Reports the progress of a run as lines of JSON, which the host reads."""

    def __init__(self, run: Run, first_step: int, total_steps: int) -> None:
        self._run, self._total = run, total_steps
        self._step, self._tokens, self._at = first_step, 0, time.monotonic()
        self._first, self._begun = first_step, time.monotonic()

    def count(self, tokens: int) -> None:
        """Adds the tokens that all processes have trained on since the last call."""
        self._tokens += tokens

    def report(self, step: int, loss: float) -> None:
        """Prints a line with the rates since the previous line and the estimated time left."""
        if not self._run.is_writer:
            return
        now = time.monotonic()
        pace = (now - self._begun) / max(1, step - self._first)
        line = {
            "event": "progress",
            "step": step,
            "total_steps": self._total,
            # JSON cannot represent the loss of a diverged run (NaN or infinity).
            "loss": round(loss, 6) if math.isfinite(loss) else None,
            "tokens_per_second": round(self._tokens / max(now - self._at, 1e-9), 1),
            "seconds_left": round(pace * (self._total - step), 1),
        }
        PROGRESS.info(json.dumps(line))
        self._step, self._tokens, self._at = step, 0, now
