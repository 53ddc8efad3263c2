"""What a job shows of itself, in a terminal and in a notebook."""

from html import escape

from .models import CheckpointLayout, Finding, JobDetails, JobState, Progress

_COLOURS = {
    "submitted": "#8a6d00",
    "running": "#0b5cad",
    "succeeded": "#1a7f37",
    "failed": "#b42318",
}


class JobView:
    """The members of a job, as last read."""

    def __init__(self, details: JobDetails) -> None:
        #: Everything that the service returned.
        self.details = details

    @property
    def name(self) -> str:
        return self.details.name

    @property
    def namespace(self) -> str | None:
        return self.details.namespace or None

    @property
    def status(self) -> JobState:
        return self.details.status

    @property
    def has_ended(self) -> bool:
        """Whether it has succeeded or failed."""
        return self.details.has_ended

    @property
    def explanation(self) -> list[str]:
        """Why the job waits or has failed."""
        return self.details.explanation

    @property
    def progress(self) -> Progress | None:
        return self.details.progress

    @property
    def warnings(self) -> list[Finding]:
        return self.details.warnings

    @property
    def checkpoint(self) -> CheckpointLayout | None:
        return self.details.checkpoint

    def __repr__(self) -> str:
        return f"<Job {self.name}: {self.status}>"

    def _repr_html_(self) -> str:
        details = self.details
        rows = {
            "framework": details.framework,
            "model": details.model_id,
            "run id": details.run_id,
            "progress": progress_text(details.progress),
            "reason": " ".join(details.explanation) or details.detail,
        }
        cells = [
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in rows.items()
            if value
        ]
        colour = _COLOURS[details.status]
        return (
            f"<b>{escape(details.name)}</b> <span style='color:{colour}'>{details.status}</span>"
            f"<table>{''.join(cells)}</table>"
        )


def progress_text(progress: Progress | None) -> str:
    """The progress in a few words."""
    if progress is None:
        return ""
    loss = "" if progress.loss is None else f", loss {progress.loss:.4g}"
    return f"step {progress.step} of {progress.total_steps}{loss}"
