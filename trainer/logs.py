"""What a process says: log lines on standard error, progress on standard output, both in a file."""

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
# Marks a record that the console is told in another way.
ALREADY_REPORTED = {"told": True}


def start(run: Run) -> Path:
    """Opens the log of this process; the file goes to the run's logs."""
    # Jobs of one run share the scratch folder, and each publishes its own logs.
    folder = run.scratch / "logs" / (run.job_uid or "no-job")
    folder.mkdir(parents=True, exist_ok=True)
    # The time keeps the logs of attempts apart, also of two that start within one second.
    started = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    path = folder / f"{started}-rank-{run.rank}.log"
    form = logging.Formatter(f"%(asctime)s rank {run.rank} %(levelname)s %(message)s")
    file = logging.FileHandler(path, mode="w")
    file.setFormatter(form)
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(form)
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(logging.Formatter("%(message)s"))
    console.addFilter(lambda record: record.name != PROGRESS.name and not hasattr(record, "told"))
    PROGRESS.handlers = [lines]
    PROGRESS.setLevel(logging.INFO)
    level = run.environment.get("TRAINER_LOG_LEVEL", "INFO")
    logging.basicConfig(level=level, handlers=[console, file], force=True)
    # Each of its requests would be a line.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return path


class Progress:
    """Counts steps, and says how far the run is in one line of JSON that the host reads."""

    def __init__(self, run: Run, first_step: int, total_steps: int) -> None:
        self._run, self._total = run, total_steps
        self._step, self._tokens, self._at = first_step, 0, time.monotonic()
        self._first, self._begun = first_step, time.monotonic()

    def count(self, tokens: int) -> None:
        """Adds what all processes have trained on since."""
        self._tokens += tokens

    def report(self, step: int, loss: float) -> None:
        """One line: rates since the line before, time left from the pace of the whole run."""
        if not self._run.is_writer:
            return
        now = time.monotonic()
        pace = (now - self._begun) / max(1, step - self._first)
        line = {
            "event": "progress",
            "step": step,
            "total_steps": self._total,
            # JSON has no word for what a diverged run has.
            "loss": round(loss, 6) if math.isfinite(loss) else None,
            "tokens_per_second": round(self._tokens / max(now - self._at, 1e-9), 1),
            "seconds_left": round(pace * (self._total - step), 1),
        }
        PROGRESS.info(json.dumps(line))
        self._step, self._tokens, self._at = step, 0, now
