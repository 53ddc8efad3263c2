"""Runs a job by train.py and by a bare script, and finds what they have written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Processes, Training

from differential import rows
from differential.grid import Job, arguments
from differential.killed import VARIABLE

BARE = {"hf": "differential.bare_hf", "meta": "differential.bare_meta"}


@dataclass(frozen=True)
class Inputs:
    """The model and the dataset of a job."""

    model: Path
    data: Path

    @staticmethod
    def write(folder: Path, job: Job) -> Inputs:
        """Writes them to a folder."""
        return Inputs(rows.model(folder, job["stored"]), rows.write(folder, job["data"]))


class Run:
    """A run of a job by train.py, in one folder however often it is started."""

    def __init__(self, folder: Path, job: Job, inputs: Inputs) -> None:
        self.folder, self.job, self._inputs = folder, job, inputs

    def start(
        self, *, processes: int | None = None, resume: bool = False, kill: str | None = None
    ) -> Training:
        """Starts it with a number of processes. `kill` contains a step and a delay."""
        ranks = processes or self.job["processes"]
        return Training(
            self.folder,
            arguments(self.job, ranks),
            ranks=ranks,
            flags=("--resume",) if resume else (),
            variables={VARIABLE: kill} if kill else {},
            program="differential.killed" if kill else "train",
            framework=self.job["framework"],
            model_id=str(self._inputs.model),
            dataset_uri=f"file://{self._inputs.data}",
        )

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / f"runs/run-1/framework={self.job['framework']}/checkpoints"

    @property
    def steps(self) -> list[int]:
        """The committed steps."""
        return sorted(int(path.stem[5:]) for path in self.checkpoints.glob("step-*.json"))

    @property
    def sequences(self) -> int | None:
        """The number of sequences of an epoch, which a stream does not know."""
        commit = json.loads((self.checkpoints / f"step-{self.steps[-1]:06}.json").read_text())
        found: int | None = commit["metadata"]["resume_terms"]["sequences"]
        return found

    @property
    def last(self) -> Path:
        """The last checkpoint in the format of Hugging Face."""
        name = f"step-{self.steps[-1]:06}"
        if self.job["framework"] == "hf":
            return self.checkpoints / name
        part = "hf" if self.job["peft_method"] == "none" else "adapters"
        return self.checkpoints / name / part


def bare(folder: Path, job: Job, inputs: Inputs) -> Processes:
    """Starts the bare script of a job. That of meta trains in one process."""
    folder.mkdir(parents=True)
    file = folder / "job.json"
    file.write_text(json.dumps(dict(job)))
    framework = job["framework"]
    argv = [str(file), str(inputs.model), str(inputs.data), str(folder / "saved")]
    ranks = job["processes"] if framework == "hf" else 1
    variables = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return Processes(folder, BARE[framework], argv, variables, ranks=ranks)


def losses(log: str) -> dict[int, float]:
    """The losses by step in the progress lines."""
    found = [json.loads(line) for line in log.splitlines() if line.startswith('{"event"')]
    return {line["step"]: line["loss"] for line in found}


def evaluations(log: str) -> dict[int, float]:
    """The losses of the evaluations by step."""
    found: list[Any] = re.findall(r"evaluation at step (\d+): loss ([\d.]+)", log)
    return {int(step): float(loss) for step, loss in found}
