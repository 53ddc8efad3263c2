"""Runs train.py and kills it after a step: the steps and the delay are in a variable."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence

import logs
import train

VARIABLE = "DIFFERENTIAL_KILL"


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Trains until a timer ends the process. SIGALRM has no handler, so nothing is cleaned up."""
    last, delay = environment[VARIABLE].split(":")
    report = logs.Progress.report

    def report_and_die(progress: logs.Progress, step: int, loss: float) -> None:
        report(progress, step, loss)
        if step == int(last):
            signal.setitimer(signal.ITIMER_REAL, float(delay))

    logs.Progress.report = report_and_die  # type: ignore[assignment,method-assign]
    return train.main(argv, environment)
