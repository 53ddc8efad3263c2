"""A progress bar for a job, in terminals and notebooks."""

import sys
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

from .models import JobDetails


class ProgressBar:
    """Shows the steps, the loss and the speed of a job while it is waited for."""

    def __init__(self, name: str, wanted: bool | None) -> None:
        self._name = name
        self._is_wanted = _is_interactive() if wanted is None else wanted
        self._bar: Any = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, job: JobDetails) -> None:
        """Show the state of the job."""
        if not self._is_wanted:
            return
        if self._bar is None:
            self._bar = tqdm(desc=self._name, unit="step", total=None)
        values: dict[str, str] = {"status": job.status}
        if job.progress is not None:
            self._bar.total = job.progress.total_steps
            self._bar.n = job.progress.step
            values["tokens/s"] = f"{job.progress.tokens_per_second:.0f}"
            if job.progress.loss is not None:
                values["loss"] = f"{job.progress.loss:.4g}"
        self._bar.set_postfix(values)


def _is_interactive() -> bool:
    """Whether somebody sees a bar: on a terminal, or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
